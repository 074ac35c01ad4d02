//! The images of a training split that a model was fitted to.

use super::folds::{stratified_cut, stratified_sample};
use super::{Error, Roles, Split};
use serde::{Deserialize, Serialize};

/// How `finetune` selects images from a training split. First it holds out a fraction for
/// validation, then it keeps a range of positions of the rest, then it samples from these. Holding
/// out and sampling are stratified and depend only on labels and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinetuneSubset {
    /// Seed of the split and of the sample.
    pub seed: u64,
    /// Fraction of the whole split that is held out; 0 for none.
    pub fraction: f64,
    /// Positions in the whole split, first and one past the last; `None` for all.
    #[serde(default)]
    pub range: Option<[usize; 2]>,
    /// Size of the sample; `None` for all remaining images.
    #[serde(default)]
    pub samples: Option<usize>,
}

impl FinetuneSubset {
    /// Positions of the training images and of the held-out ones, each ascending.
    pub fn divide(&self, labels: &[u32]) -> (Vec<usize>, Vec<usize>) {
        let (mut rest, cut) = stratified_cut(labels, self.fraction, self.seed);
        if let Some([first, end]) = self.range {
            rest.retain(|&i| (first..end).contains(&i));
        }
        if let Some(n) = self.samples {
            let of_rest: Vec<u32> = rest.iter().map(|&i| labels[i]).collect();
            let chosen = stratified_sample(&of_rest, n, self.seed);
            rest = chosen.into_iter().map(|i| rest[i]).collect();
        }
        (rest, cut)
    }

    /// The training images in `whole`, if they have this [`Split::digest`].
    ///
    /// # Errors
    /// Those of [`Split::subset`].
    pub fn find(&self, whole: &Split, digest: &str) -> Result<Option<Split>, Error> {
        let (rest, _) = self.divide(whole.labels());
        if rest.is_empty() {
            return Ok(None);
        }
        let found = whole.subset(&rest, whole.name())?;
        Ok((found.digest() == digest).then_some(found))
    }
}

/// The images that a checkpoint was fine-tuned on, if they are a part of a training split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How they were selected.
    #[serde(flatten)]
    pub how: FinetuneSubset,
    /// How many there are.
    pub images: usize,
    /// Their [`Split::digest`].
    pub digest: String,
    /// [`Split::digest`] of the whole training split.
    pub whole: String,
}

/// Restricts training to the images of `sample`, with a note, if `whole` has them. `whole` is the
/// training split before V was split off.
///
/// # Errors
/// Those of [`Split::subset`].
pub(super) fn narrow(roles: &mut Roles, whole: &Split, sample: &Sample) -> Result<(), Error> {
    let Some(train) = roles.train.as_ref().filter(|train| train.digest() != sample.digest) else {
        return Ok(());
    };
    if whole.digest() != sample.whole {
        return Ok(());
    }
    let Some(found) = sample.how.find(whole, &sample.digest)? else { return Ok(()) };
    roles.notes.push(format!(
        "training images: the {} of {} that the checkpoint was fine-tuned on; `train_on` all uses \
         all {}",
        sample.images,
        train.place(),
        train.len()
    ));
    roles.train = Some(found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<u32> {
        (0..60).map(|i| i % 3).collect()
    }

    #[test]
    fn range_and_sample_are_taken_from_the_rest() {
        let fitted =
            FinetuneSubset { seed: 4, fraction: 0.2, range: Some([10, 50]), samples: Some(12) };
        let (rest, cut) = fitted.divide(&labels());
        assert_eq!((rest.len(), cut.len()), (12, 12));
        assert!(rest.iter().all(|i| (10..50).contains(i) && !cut.contains(i)));
        assert!((0..3).all(|c| rest.iter().filter(|&&i| labels()[i] == c).count() == 4));
    }

    #[test]
    fn a_sample_is_found_by_its_digest_alone() {
        let whole = Split::from_levels("train", (0..60).collect(), [1, 1, 1], labels()).unwrap();
        let fitted = FinetuneSubset { seed: 4, fraction: 0.0, range: None, samples: Some(12) };
        let (rest, _) = fitted.divide(&labels());
        let digest = whole.subset(&rest, "train").unwrap().digest().to_owned();
        assert_eq!(fitted.find(&whole, &digest).unwrap().unwrap().len(), 12);
        let other = FinetuneSubset { seed: 5, ..fitted };
        assert!(other.find(&whole, &digest).unwrap().is_none());
    }
}
