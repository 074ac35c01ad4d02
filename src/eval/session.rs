//! One evaluation, from its options to its figures.

use super::EvaluateOptions;
use crate::checkpoint::Checkpoint;
use crate::data::{DamagedFile, DataOptions};
use crate::error::Result;
use crate::evaluate::{ByClass, PredictionsInfo, Summary, by_class, summarise_at};
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::{ScoredSplit, evaluate};
use crate::session::{Context, saved};
use crate::shift::{CorruptedCell, Other, Others, Shifts, corrupted_matrix, others, preprocessing};

/// An evaluation, ready to run.
pub struct EvaluateSession {
    /// The options.
    pub options: EvaluateOptions,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The images.
    pub data: DataOptions,
}

/// The result of an evaluation, without corrupted images.
pub struct Evaluated {
    /// The logits and the images.
    pub split: ScoredSplit,
    /// Figures of the split; losses in nats per image.
    pub figures: Summary,
    /// Figures of each class and group, and the confusion matrix.
    pub by_class: ByClass,
    /// The logits, if they were saved.
    pub predictions: Option<PredictionsInfo>,
    /// Results of out-of-distribution detection.
    pub others: Vec<Other>,
    /// Damaged image files that were decoded in part and used.
    pub damaged: Vec<DamagedFile>,
    /// Notes for readers of the figures.
    pub warnings: Vec<String>,
}

impl EvaluateSession {
    /// Checks the options.
    ///
    /// # Errors
    /// Logits that cannot be saved.
    pub fn prepare(
        options: &EvaluateOptions,
        checkpoint: Checkpoint,
        data: &DataOptions,
    ) -> Result<Self> {
        saved::check(options.dump.as_deref())?;
        Ok(Self { options: options.clone(), checkpoint, data: data.clone() })
    }

    /// Evaluates the split and the out-of-distribution images, and saves the logits.
    ///
    /// # Errors
    /// Unreadable images; logits that are not finite, or that cannot be written.
    pub fn run(&self, context: &Context) -> Result<Evaluated> {
        let Self { options, checkpoint, data } = self;
        let wanted = options.split.as_deref();
        let split = evaluate(checkpoint, data, wanted, options.precision, context)?;
        let ScoredSplit { predictions, temperatures, .. } = &split;
        let dump = options.dump.as_deref();
        let saved = dump.map(|path| saved::write(path, predictions, temperatures)).transpose()?;
        let Others { sets, notes, damaged } = others(&options.ood, checkpoint, &split, context)?;
        let mut warnings = split.warnings.clone();
        warnings.extend(notes);
        warnings.extend(damage_note(&damaged));
        Ok(Evaluated {
            figures: summarise_at(predictions, temperatures),
            by_class: by_class(
                predictions,
                checkpoint.class_names.as_deref(),
                split.split.groups(),
            ),
            predictions: saved,
            others: sets,
            damaged: [&split.damaged[..], &damaged].concat(),
            warnings,
            split,
        })
    }

    /// Where corrupted images come from, if the options ask for any: whose settings, or which folder.
    ///
    /// # Errors
    /// A checkpoint without preprocessing.
    pub fn shift_origin(&self) -> Result<Option<String>> {
        let Some(shift) = &self.options.shift else { return Ok(None) };
        Ok(Some(shift.origin(preprocessing(&self.checkpoint)?.image_size)))
    }

    /// Evaluates the corrupted images that the options ask for, except for `known` cells. Calls `save`
    /// with all cells after each new one. `None` if the options ask for none.
    ///
    /// # Errors
    /// Images that cannot be corrupted or read; those of `save`.
    pub fn shifts(
        &self,
        found: &Evaluated,
        known: Vec<CorruptedCell>,
        context: &Context,
        save: &mut dyn FnMut(&Shifts) -> Result<()>,
    ) -> Result<Option<Shifts>> {
        let Some(shift) = &self.options.shift else { return Ok(None) };
        // The content of files is not known in advance, so they are always read again.
        let made = shift.files(&found.split.split)?.is_none();
        let known = if made { known } else { Vec::new() };
        let (split, figures) = (&found.split, &found.figures);
        corrupted_matrix((shift, known), &self.checkpoint, split, figures, context, save).map(Some)
    }
}
