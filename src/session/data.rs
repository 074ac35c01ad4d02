//! Opens data sets for a checkpoint, and selects training, validation and test images.

use super::Context;
use super::bad_samples::leave_out;
use crate::checkpoint::{Checkpoint, Provenance, RecordedSplit};
use crate::data::DataInfo;
use crate::data::folds::stratified_sample;
use crate::data::{
    DamagedFile, DataOptions, DataSet, Error as DataError, RoleRequest, Roles, Sample, Split,
    SplitProvenance, TrainOn, channels_changed, choose, number_classes,
};
use crate::format::{count, images};
use crate::pixels::Pixels;

/// The data sets that were read.
#[derive(Clone, Debug)]
pub struct Data {
    /// Notes for readers of the figures.
    pub notes: Vec<String>,
    /// The data set of all splits that are not given separately.
    pub data: DataSet,
    train: Option<DataSet>,
    val: Option<DataSet>,
    test: Option<DataSet>,
    val_from_train: Option<f64>,
    train_on: TrainOn,
}

impl Data {
    /// Reads every data set given, numbers its classes as the checkpoint's, and leaves out bad
    /// images if requested.
    ///
    /// # Errors
    /// Those of [`DataSet::open_all`], [`number_classes`] and [`leave_out`].
    pub fn open(options: &DataOptions, checkpoint: &Checkpoint) -> Result<Data, DataError> {
        let open_all = |specs: &[String]| DataSet::open_all(specs, options.on_bad_sample);
        let open = |specs: &[String]| match specs {
            [] => Ok(None),
            specs => open_all(specs).map(Some),
        };
        let mut all = Data {
            notes: Vec::new(),
            data: open_all(&options.data)?,
            train: open(&options.train_data)?,
            val: open(&options.val_data)?,
            test: open(&options.test_data)?,
            val_from_train: options.val_from_train,
            train_on: options.train_on,
        };
        let Data { notes, data, train, val, test, .. } = &mut all;
        // The training images first: without names, their order of classes numbers the others.
        let (train, others) = (train.as_mut(), [val.as_mut(), test.as_mut()]);
        let mut sets: Vec<&mut DataSet> =
            train.into_iter().chain([data]).chain(others.into_iter().flatten()).collect();
        sets.iter_mut().for_each(|set| notes.append(&mut set.notes));
        let own = checkpoint.class_names.as_deref();
        let classes = checkpoint.network.classes();
        notes.extend(number_classes(&mut sets, own, classes, options.class_order)?);
        for set in sets {
            notes.extend(channels_changed(set, checkpoint.config.channels()));
            notes.extend(leave_out(options.on_bad_sample, set, checkpoint.preprocess.as_ref())?);
        }
        Ok(all)
    }

    /// The training, validation and test images, each checked against the checkpoint's classes and
    /// input shape; see [`choose`].
    ///
    /// # Errors
    /// Those of [`choose`] and [`Pixels::new`].
    pub fn roles(&self, checkpoint: &Checkpoint, seed: u64) -> Result<Roles, DataError> {
        let provenance = held_out(checkpoint);
        let sample = checkpoint.provenance.as_ref().and_then(|p| p.sample.as_ref());
        let mut roles = choose(&RoleRequest {
            data: &self.data,
            train_data: self.train.as_ref(),
            val_data: self.val.as_ref(),
            test_data: self.test.as_ref(),
            val_from_train: self.val_from_train,
            provenance: provenance.as_ref(),
            sample: sample.filter(|_| self.train_on == TrainOn::Fitted),
            seed,
        })?;
        roles.notes.splice(0..0, self.notes.iter().cloned());
        if let (true, Some(held)) = (roles.held_out, &provenance) {
            roles.notes.extend(seen(checkpoint, held));
        }
        if self.val.is_some() {
            roles.notes.extend(known_images(checkpoint, &roles));
        }
        for split in [&roles.train, &roles.val, &roles.test].into_iter().flatten() {
            pixels(checkpoint, split)?;
        }
        Ok(roles)
    }

    /// The same for commands that train, with a note if the checkpoint was fine-tuned on a part of the
    /// training images.
    ///
    /// # Errors
    /// Those of [`Data::roles`].
    pub fn roles_of_training(
        &self,
        checkpoint: &Checkpoint,
        seed: u64,
    ) -> Result<Roles, DataError> {
        let mut roles = self.roles(checkpoint, seed)?;
        let sample = checkpoint.provenance.as_ref().and_then(|p| p.sample.as_ref());
        roles.notes.extend(sample.and_then(|sample| other_images(sample, roles.train.as_ref())));
        Ok(roles)
    }

    /// The whole split of this name; without a name, `test` or the only split.
    ///
    /// # Errors
    /// [`DataError::Missing`], with the existing splits.
    pub fn split(&self, name: Option<&str>) -> Result<&Split, DataError> {
        let wanted = name.unwrap_or("test");
        let lone = |data: &'_ DataSet| data.splits().len() == 1;
        let own = match wanted {
            "train" => self.train.as_ref(),
            "val" | "validation" => self.val.as_ref(),
            "test" => self.test.as_ref(),
            _ => None,
        };
        let data = own.unwrap_or(&self.data);
        let any = (own.is_some() || name.is_none()) && lone(data);
        let found = data.split(wanted).or_else(|| data.splits().first().filter(|_| any));
        found.ok_or_else(|| {
            let names: Vec<&str> = data.splits().iter().map(Split::name).collect();
            DataError::Missing {
                path: data.path.clone(),
                expected: format!("a split called \"{wanted}\""),
                found: names.join(" and "),
                remedy: format!("set `split` to {}{}", names.join(" or "), made(wanted)),
            }
        })
    }

    /// The damaged files among those decoded so far.
    pub fn damaged(&self) -> Vec<DamagedFile> {
        let others = [&self.train, &self.val, &self.test].into_iter().flatten();
        std::iter::once(&self.data).chain(others).flat_map(DataSet::damaged).collect()
    }

    /// The data set of an undivided split.
    pub fn of(&self, split: &Split) -> &DataSet {
        let gives = |data: &&DataSet| data.splits().iter().any(|s| s.place() == split.place());
        let own = [&self.train, &self.val, &self.test].into_iter().flatten();
        own.into_iter().find(gives).unwrap_or(&self.data)
    }
}

/// How V is selected, for users who ask for it by the name of a split.
fn made(wanted: &str) -> &'static str {
    match wanted {
        "val" | "validation" => {
            ", or set `val_data` to your own images; without a split `val`, diagnose and \
             post-train use the images that `planish finetune` held out, or half of the test split"
        }
        _ => "",
    }
}

/// The held-out split that `finetune` recorded in a checkpoint.
pub fn held_out(checkpoint: &Checkpoint) -> Option<SplitProvenance> {
    let provenance = checkpoint.provenance.as_ref()?;
    let split = provenance.split?;
    let data_digest = provenance.data_digest.clone()?;
    Some(SplitProvenance { seed: split.seed, fraction: split.fraction, data_digest })
}

/// A note if a step in the checkpoint's making trained on images of the same training split and did
/// not hold out those of `held`. Such a model has seen some of V.
pub fn seen(checkpoint: &Checkpoint, held: &SplitProvenance) -> Option<String> {
    let data = Some(held.data_digest.as_str());
    let saw = |step: &Provenance| {
        let whole = step.data_digest.as_deref() == data;
        let sample = step.sample.as_ref().is_some_and(|sample| Some(&*sample.digest) == data);
        let same =
            |split: RecordedSplit| split.seed == held.seed && split.fraction == held.fraction;
        (whole || sample) && !(whole && step.split.is_some_and(same))
    };
    checkpoint.history.iter().any(saw).then(|| {
        format!(
            "{}: an earlier step trained on the same training split and held out other images, so V \
             contains images that the model has seen: figures on V are optimistic; use validation \
             images that no step has seen",
            checkpoint.path.display()
        )
    })
}

/// Notes if the user's V has the images of a training split that a step was trained on, or those of test.
fn known_images(checkpoint: &Checkpoint, roles: &Roles) -> Vec<String> {
    let Some(val) = &roles.val else { return Vec::new() };
    let is_v = |digest: &str| digest == val.digest();
    let trained = |step: &Provenance| {
        step.data_digest.as_deref().is_some_and(is_v)
            || step.sample.as_ref().is_some_and(|s| is_v(&s.digest) || is_v(&s.whole))
    };
    let mut notes = Vec::new();
    if checkpoint.history.iter().any(trained) {
        notes.push(format!(
            "V ({}) contains images that {} was trained on: figures on V are optimistic, and what is \
             chosen on V may not hold for unseen images; set `val_data` to images that no step has seen",
            val.place(),
            checkpoint.path.display()
        ));
    }
    if roles.test.as_ref().is_some_and(|test| is_v(test.digest())) {
        notes.push(
            "V and test are the same images: figures on test are optimistic; set `val_data` or `test_data` to \
             other images"
                .into(),
        );
    }
    notes
}

/// A note if the checkpoint was fine-tuned on a part of the training images and these differ.
fn other_images(sample: &Sample, train: Option<&Split>) -> Option<String> {
    let train = train.filter(|train| train.digest() != sample.digest)?;
    Some(format!(
        "the checkpoint was fine-tuned on {} images, and {} has {}: these are not the fine-tuning \
         images; gains may come from the new data; compare with plain SGD on the same layers",
        sample.images,
        train.place(),
        train.len()
    ))
}

/// A split as this checkpoint's input.
///
/// # Errors
/// Those of [`Pixels::new`].
pub fn pixels(checkpoint: &Checkpoint, split: &Split) -> Result<Pixels, DataError> {
    Pixels::new(split, checkpoint.preprocess.as_ref(), &checkpoint.network)
}

/// `n` images of the split, stratified and seeded; all of them without `n`.
///
/// # Errors
/// [`DataError::Setting`] if `n` is 0.
pub fn sample(split: &Split, n: Option<usize>, seed: u64) -> Result<Split, DataError> {
    match n {
        None => Ok(split.clone()),
        Some(0) => Err(DataError::Setting {
            name: "samples",
            expected: format!("1 to {}, the number of images", split.len()),
            found: "0".into(),
            remedy: "ask for at least one image",
        }),
        Some(n) => split.subset(&stratified_sample(split.labels(), n, seed), split.name()),
    }
}

/// Notes that V has fewer images than `samples` asks for.
pub fn note_few(split: &Split, samples: Option<usize>, context: &Context) {
    if let Some(n) = samples.filter(|&n| n > split.len()) {
        context.note(&format!(
            "`samples` is {}, but V has only {}; all are used",
            count(n as u64),
            images(split.len())
        ));
    }
}

/// The report's information on a split of a data set.
pub fn data_info(data: &DataSet, split: &Split, origin: impl ToString) -> DataInfo {
    DataInfo {
        path: data.path.display().to_string(),
        kind: data.kind.into(),
        split: split.name().into(),
        images: split.len(),
        digest: split.digest().into(),
        origin: origin.to_string(),
        skipped: split.skipped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_requested_size() {
        let split = Split::from_levels("t", vec![0; 10], [1, 1, 1], vec![0; 10]).unwrap();
        assert_eq!(sample(&split, Some(4), 0).unwrap().len(), 4);
        assert_eq!(sample(&split, None, 0).unwrap().len(), 10);
        assert!(matches!(sample(&split, Some(0), 0), Err(DataError::Setting { .. })));
    }
}
