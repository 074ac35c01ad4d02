//! A checkpoint's logits on a split, with a temperature fitted on other images.

use crate::checkpoint::{Checkpoint, Provenance, SelectionImages, StepSettings};
use crate::data::DataInfo;
use crate::data::DataOptions;
use crate::data::folds::stratified_halves;
use crate::data::{DamagedFile, Roles, Split};
use crate::engine::Precision;
use crate::error::Result;
use crate::evaluate::{Temperature, Temperatures};
use crate::objective::Objective;
use crate::predictions::Predictions;
use crate::session::Context;
use crate::session::Data;
use crate::session::bad_samples::damage_note;
use crate::session::{Counted, data_info, objective, pixels};
use candle_core::DType;
use serde::Serialize;
use std::collections::BTreeSet;

/// Identifier and version of an evaluation report's schema.
pub const EVALUATION: &str = "planish/evaluation/1";

/// A checkpoint's logits on a split, and how they are scored.
pub struct ScoredSplit {
    /// The logits.
    pub predictions: Predictions,
    /// The temperature of each image.
    pub temperatures: Temperatures,
    /// The images that the temperatures were fitted on.
    pub origin: String,
    /// The evaluated images.
    pub data: DataInfo,
    /// The evaluated split.
    pub split: Split,
    /// The model.
    pub objective: Objective,
    /// Damaged image files among those read.
    pub damaged: Vec<DamagedFile>,
    /// Notes for readers of the figures.
    pub warnings: Vec<String>,
}

/// V, as the provenance of a step that chose by it records it.
pub fn selection_images(val: &Split, seed: u64) -> SelectionImages {
    SelectionImages { digest: val.digest().into(), images: val.len(), seed }
}

/// Provenance of a step that changes weights without training images: V alone decides it. Later steps must
/// find the images of fine-tuning and those that it held out, so these are kept from `parent`.
///
/// # Errors
/// Settings that JSON cannot represent.
pub fn step_on_v(
    parent: &Checkpoint,
    method: String,
    update: Vec<String>,
    settings: &impl Serialize,
    val: &Split,
    seed: u64,
) -> Result<Provenance> {
    let earlier = parent.provenance.as_ref();
    let inherited = earlier.filter(|earlier| earlier.split.is_some());
    Ok(Provenance {
        method,
        perturb: Vec::new(),
        update,
        seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: Some(parent.digest.clone()),
        data_digest: inherited.and_then(|earlier| earlier.data_digest.clone()),
        split: inherited.and_then(|earlier| earlier.split),
        sample: earlier.and_then(|earlier| earlier.sample.clone()),
        settings: StepSettings::of(settings, Some(selection_images(val, seed)))?,
    })
}

/// Evaluates `checkpoint` on a whole split, in stored order.
///
/// # Errors
/// Errors of checkpoint or data; logits that are not finite.
pub fn evaluate(
    checkpoint: &Checkpoint,
    data: &DataOptions,
    split: Option<&str>,
    precision: Precision,
    context: &Context,
) -> Result<ScoredSplit> {
    evaluate_in_order(checkpoint, data, split, precision, None, context)
}

/// The same with classes numbered as in `order`, if the checkpoint has the same names in another order.
/// Logits and labels are then those of `order`.
///
/// # Errors
/// Those of [`evaluate`].
pub fn evaluate_in_order(
    checkpoint: &Checkpoint,
    data: &DataOptions,
    split: Option<&str>,
    precision: Precision,
    order: Option<&[String]>,
    context: &Context,
) -> Result<ScoredSplit> {
    let places = order.and_then(|order| places(checkpoint.class_names.as_deref()?, order));
    let predict = |split: &Split, objective: &Objective, task: &str| -> Result<Predictions> {
        let found = predict(checkpoint, objective, split, task, context)?;
        Ok(match &places {
            Some(places) => found.reordered(places)?,
            None => found,
        })
    };
    let sources = Data::open(data, checkpoint)?;
    let roles = sources.roles(checkpoint, context.seed);
    let found = sources.split(split);
    let whole = found.is_ok();
    let split = match (split, found, &roles) {
        (Some("val" | "validation"), Err(error), Ok(roles)) => {
            held_out_of_train(&sources, roles).ok_or(error)?
        }
        (_, found, _) => found?,
    }
    .clone();
    pixels(checkpoint, &split)?;
    let roles = roles?;
    let mut objective = objective(checkpoint, DType::F32, context.engine)?;
    objective.precision = precision;
    let predictions = predict(&split, &objective, "evaluating")?;
    let (temperatures, origin) = match other_images(&sources, &roles, &split) {
        Some(v) => {
            let fitted_on = predict(v, &objective, "validating")?;
            let origin = format!("V: {}, {} images", roles.val_origin, v.len());
            (Temperatures::of(&predictions, Temperature::FittedOn(&fitted_on))?, origin)
        }
        None => {
            let (first, _) = stratified_halves(predictions.labels(), context.seed);
            let origin = format!(
                "each half of the split, to score the other half (stratified, seed {})",
                context.seed
            );
            (Temperatures::of(&predictions, Temperature::CrossFitted(&first))?, origin)
        }
    };
    let mut warnings = warnings(checkpoint, &sources, &roles);
    if places.is_some() {
        warnings.push("the class order differs; classes are matched by name".into());
    }
    warnings.extend(predictions.check_logits().err().map(|e| e.to_string()));
    warnings.extend(chosen_by(checkpoint, &split)?);
    let damaged = sources.damaged();
    warnings.extend(damage_note(&damaged));
    let which = match whole {
        true => format!("split {}, whole, in stored order", split.name()),
        false => format!("V, {}, in stored order", roles.val_origin),
    };
    let data = data_info(sources.of(&split), &split, &which);
    Ok(ScoredSplit { predictions, temperatures, origin, data, split, objective, damaged, warnings })
}

/// The place of each of these names in `order`; `None` if the order is the same, or the names are not.
pub fn places(names: &[String], order: &[String]) -> Option<Vec<usize>> {
    let unique = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    if names == order || names.len() != order.len() || !unique(names) {
        return None;
    }
    names.iter().map(|name| order.iter().position(|other| other == name)).collect()
}

/// V if fine-tuning, or a given fraction, has split it off the training split, so that it is not a
/// split of the data set itself.
fn held_out_of_train<'a>(sources: &Data, roles: &'a Roles) -> Option<&'a Split> {
    let whole = sources.split(Some("train")).map_or(0, Split::len);
    let cut = roles.train.as_ref().is_some_and(|rest| rest.len() < whole);
    roles.val.as_ref().filter(|_| cut)
}

/// V, if it shares no image with `split`. A temperature must not be judged on the images that it
/// was fitted on.
pub fn other_images<'a>(sources: &Data, roles: &'a Roles, split: &Split) -> Option<&'a Split> {
    let v = roles.val.as_ref()?;
    // Images missing from a role were moved to V.
    let was_cut = |name: &str, role: &Option<Split>| {
        let whole = sources.split(Some(name)).ok().or(sources.data.only());
        let less = |whole: &&Split| role.as_ref().is_some_and(|part| part.len() < whole.len());
        whole.filter(less).is_some_and(|whole| whole.digest() == split.digest())
    };
    let shares = was_cut("train", &roles.train) || was_cut("test", &roles.test);
    (!shares && split.digest() != v.digest()).then_some(v)
}

/// The steps in a checkpoint's making that used validation images for selection.
fn selections(checkpoint: &Checkpoint) -> impl Iterator<Item = (&Provenance, &SelectionImages)> {
    checkpoint.history.iter().filter_map(|step| Some((step, step.settings.validation.as_ref()?)))
}

/// A note if an earlier step has already chosen by the images of V, for commands that choose by them again.
pub fn chosen_before(checkpoint: &Checkpoint, v: &Split) -> Option<String> {
    let used = selections(checkpoint).filter(|(_, of)| of.digest == v.digest());
    let mut steps: Vec<&str> = used.map(|(step, _)| step.method.as_str()).collect();
    steps.dedup();
    (!steps.is_empty()).then(|| {
        format!(
            "{} already used V to choose or check a result, so figures on V are optimistic; \
             rely on test images, or set `val_data` to images that no step has used",
            steps.join(" and ")
        )
    })
}

/// Whether post-training selected its epoch or its recipe by these images, or by half of them if V
/// was split off test.
fn chosen_by(checkpoint: &Checkpoint, split: &Split) -> Result<Option<String>> {
    for (step, SelectionImages { digest, images, seed }) in selections(checkpoint) {
        let (half, _) = stratified_halves(split.labels(), *seed);
        let which = if split.digest() == digest {
            "these images are"
        } else if half.len() == *images && split.subset(&half, split.name())?.digest() == digest {
            "half of these images are"
        } else {
            continue;
        };
        return Ok(Some(format!(
            "{which} V, which {} used to choose or check its result: metrics on them are optimistic; its \
             report has metrics on test images",
            step.method
        )));
    }
    Ok(None)
}

/// The model's logits on a split.
///
/// # Errors
/// Images that cannot be read; logits that are not finite.
pub fn predict(
    checkpoint: &Checkpoint,
    objective: &Objective,
    split: &Split,
    label: &str,
    context: &Context,
) -> Result<Predictions> {
    let progress = context.task(label, split.len() as u64, "images");
    let examples = pixels(checkpoint, split)?;
    Ok(objective.predict(&Counted { examples: &examples, task: &progress })?)
}

fn warnings(checkpoint: &Checkpoint, sources: &Data, roles: &Roles) -> Vec<String> {
    let names = |note: &&String| sources.notes.contains(note) || note.contains("class");
    let assumed = checkpoint.assumed.iter().map(|what| format!("assumed: {what}"));
    assumed.chain(roles.notes.iter().filter(names).cloned()).collect()
}
