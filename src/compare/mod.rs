//! Compares two models on the same images, image by image.
//!
//! [`compare`] takes checkpoints, saved logits, or reports that refer to saved logits.

mod error;
mod source;

pub use error::Error;

use crate::checkpoint::{CheckpointInfo, Load};
use crate::engine::Precision;
use crate::error::Result;
use crate::evaluate::{self, Comparison, RESAMPLES};
use crate::session::Context;
use crate::session::evaluate::places;
use crate::session::saved::SavedLogits;
use serde::{Deserialize, Serialize};
use source::{Read, read};
use std::path::Path;

/// Options of a comparison. These are also the flags of `compare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct CompareOptions {
    /// Images to evaluate checkpoints on, as in `eval`
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    pub data: Option<String>,
    /// Validation images to fit the temperatures of checkpoints on
    #[cfg_attr(feature = "cli", arg(long, value_name = "D", requires = "data"))]
    pub val_data: Option<String>,
    /// Split to evaluate checkpoints on [default: test, or the only split]
    #[cfg_attr(feature = "cli", arg(long, value_name = "S", requires = "data"))]
    pub split: Option<String>,
    /// Number of bootstrap resamples of the images
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N", value_parser = resamples, default_value_t = RESAMPLES
    ))]
    pub resamples: usize,
    /// Settings that the checkpoints do not contain. An adapter is the second model's.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub load: Load,
    /// Operands of matrix products: f32, or bf16 with f32 accumulation
    #[serde(with = "crate::options::as_text")]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "f32|bf16", default_value_t, help_heading = "Model options")
    )]
    pub precision: Precision,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self {
            data: None,
            val_data: None,
            split: None,
            resamples: RESAMPLES,
            load: Load::default(),
            precision: Precision::default(),
        }
    }
}

/// 100 to a million.
#[cfg(feature = "cli")]
fn resamples(text: &str) -> std::result::Result<usize, String> {
    let range = 100..=1_000_000;
    text.parse().ok().filter(|n| range.contains(n)).ok_or("expected 100 to 1000000".into())
}

/// One of the two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedModel {
    /// The path given by the user.
    pub path: String,
    /// The model, if the report or the file identifies it.
    pub checkpoint: Option<CheckpointInfo>,
    /// SHA-256 of images and labels, if known.
    pub data_digest: Option<String>,
}

/// Two models and their differences.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelComparison {
    /// The first model.
    pub a: ComparedModel,
    /// The second model.
    pub b: ComparedModel,
    /// Their differences.
    pub comparison: Comparison,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Reads or evaluates both models, and compares them. Each is a report (.json), logits (.safetensors) or
/// a checkpoint.
///
/// # Errors
/// A model that cannot be read or evaluated; models with different classes or images.
pub fn compare(
    a: &Path,
    b: &Path,
    options: &CompareOptions,
    context: &Context,
) -> Result<ModelComparison> {
    let plain = CompareOptions { load: options.load.without_adapter(), ..options.clone() };
    let mut notes = Vec::new();
    let Read { model: a, saved: of_a, class_names } = read(a, &plain, None, context, &mut notes)?;
    let of_a_alone = notes.len();
    let order = class_names.as_deref();
    let read = read(b, options, order, context, &mut notes)?;
    let Read { model: b, saved: of_b, class_names: of_b_names } = read;
    let mut notes = merge_notes(&notes[..of_a_alone], &notes[of_a_alone..]);
    // Digests cover the labels, which have each checkpoint's own numbers.
    let renumbered = match (&class_names, &of_b_names) {
        (Some(order), Some(names)) => places(names, order).is_some(),
        _ => false,
    };
    check_same((&a, &of_a), (&b, &of_b), renumbered)?;
    let ([raw_a, own_a], [raw_b, own_b]) = (of_a.scores(), of_b.scores());
    let comparison =
        evaluate::compare([&raw_a, &own_a], [&raw_b, &own_b], context.seed, options.resamples)?;
    if a.data_digest.is_none() || b.data_digest.is_none() {
        notes.push(
            "saved logits contain no digest of the images, so only the number of images and the \
             labels were compared; pass reports to compare the digests"
                .into(),
        );
    }
    if !of_a.tempered {
        notes.push("neither side has a temperature; calibrated figures use T = 1".into());
    }
    Ok(ModelComparison { a, b, comparison, notes })
}

/// Notes that apply to both sides, then notes on one side, prefixed by its name.
fn merge_notes(a: &[String], b: &[String]) -> Vec<String> {
    let own = |name: &'static str, notes: &[String], others: &[String]| -> Vec<String> {
        let alone = notes.iter().filter(|note| !others.contains(note));
        alone.map(|note| format!("{name}: {note}")).collect()
    };
    let mut notes: Vec<String> = a.iter().filter(|note| b.contains(note)).cloned().collect();
    notes.extend(own("A", a, b));
    notes.extend(own("B", b, a));
    notes
}

fn check_same(
    (a, of_a): (&ComparedModel, &SavedLogits),
    (b, of_b): (&ComparedModel, &SavedLogits),
    renumbered: bool,
) -> std::result::Result<(), Error> {
    let other = |how: String| Error::OtherImages { a: a.path.clone(), b: b.path.clone(), how };
    let (x, y) = (&of_a.predictions, &of_b.predictions);
    if x.images() != y.images() {
        return Err(other(format!("{} images against {}", x.images(), y.images())));
    }
    if x.classes() != y.classes() {
        return Err(Error::OtherClasses {
            a: a.path.clone(),
            b: b.path.clone(),
            classes: [x.classes(), y.classes()],
        });
    }
    let differ = x.labels().iter().zip(y.labels()).position(|(x, y)| x != y);
    if let Some(i) = differ {
        let [x, y] = [x, y].map(|p| p.labels()[i]);
        return Err(other(format!("image {i} has label {x} in the first and {y} in the second")));
    }
    if let (true, false, without) | (false, true, without) =
        (of_a.tempered, of_b.tempered, if of_a.tempered { b } else { a })
    {
        return Err(Error::NoTemperature { path: without.path.clone() });
    }
    match (&a.data_digest, &b.data_digest) {
        (Some(x), Some(y)) if x != y && !renumbered => {
            Err(other(format!("their SHA-256 is {x} and {y}")))
        }
        _ => Ok(()),
    }
}
