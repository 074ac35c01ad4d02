//! Cells that evaluate a model as it is.

use super::cells::{Cell, CellShift, Job};
use super::settings::{CellSettings, EvaluationSettings, OodSettings, Scoring};
use super::setup::{ModelOnData, Opened, Setup};
use super::{CellFigures, CellKind, OodFigures, Planned};
use crate::data::{CifarC, DataSet, Split};
use crate::error::{Error, Result};
use crate::evaluate::{DEFINITIONS, summarise_at};
use crate::fingerprint::fingerprint;
use crate::session::Context;
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::{ScoredSplit, evaluate, other_images};
use crate::shift::{measure, others, preprocessing};
use serde_json::{Value, json};

/// The cells of a pair: its unmodified split, each shift, each set of other images.
///
/// # Errors
/// Unreadable images.
pub fn cells(
    setup: &Setup,
    pair: ModelOnData,
    opened: &Opened,
    context: &Context,
) -> Result<Vec<Cell>> {
    let Opened { checkpoint, data: sources, roles } = opened;
    let split = sources.split(setup.file.data[pair.data].split.as_deref())?;
    let v = other_images(sources, roles, split);
    let temperature = v.map_or("halves of the split".into(), |v| {
        format!("V: {}, {} images", roles.val_origin, v.len())
    });
    let scoring =
        Scoring { precision: setup.precision, seed: context.seed, temperature_from: temperature };
    let key = |measures: &str, of: Value| {
        let spec = json!({
            "definitions": DEFINITIONS,
            "checkpoint": checkpoint.digest,
            "architecture": checkpoint.config,
            "preprocessing": checkpoint.preprocess,
            "precision": setup.precision.name(),
            "rounding": context.engine.rounding(),
            "split": split.digest(),
            "temperature": v.map(Split::digest),
            "seed": context.seed,
            "of": of,
        });
        fingerprint(&format!("planish/{measures}/2"), &spec)
    };
    let cell = |of: Value, settings: CellSettings, job: Job| -> Result<Cell> {
        let measures = if settings.kind() == CellKind::Ood { "ood" } else { "evaluation" };
        let (cell, model) = (key(measures, of)?, setup.model_settings(pair, checkpoint));
        Ok(Cell { planned: Planned { cell, model, settings, control: None, diagnosis: None }, job })
    };
    let (split_name, split_digest) = (split.name().to_owned(), split.digest().to_owned());
    let shifted = |name: &str, severity: usize, source: String| {
        CellSettings::Evaluation(EvaluationSettings {
            split: split_name.clone(),
            split_digest: split_digest.clone(),
            shift: name.into(),
            severity,
            shift_source: source,
            scoring: scoring.clone(),
        })
    };
    let plain = shifted("none", 0, "none".into());
    let mut all = vec![cell(Value::Null, plain, Job::Evaluate { pair, shift: None })?];
    for (asked, shifts) in setup.shifts.iter().enumerate() {
        let preprocess = preprocessing(checkpoint)?;
        let files = shifts.files(split)?;
        let origin = shifts.origin(preprocess.image_size);
        for (corruption, severity) in shifts.cells() {
            let images = match &files {
                Some(files) => files.split(corruption.name(), severity)?.digest().to_owned(),
                None => origin.clone(),
            };
            let of = json!([corruption.name(), severity, images]);
            let own = shifted(corruption.name(), severity, origin.clone());
            let shift = Some(CellShift { asked, corruption, severity });
            all.push(cell(of, own, Job::Evaluate { pair, shift })?);
        }
    }
    for (set, ood) in setup.file.ood.iter().enumerate() {
        let data = DataSet::open(&ood.source)?;
        let other = data.split("test").or_else(|| data.splits().first());
        let none = || Error::Missing(format!("{} has no split", ood.source));
        let other = other.ok_or_else(none)?;
        let own = CellSettings::Ood(OodSettings {
            split: split_name.clone(),
            split_digest: split_digest.clone(),
            ood: ood.name.as_ref().clone(),
            ood_source: ood.source.clone(),
            ood_digest: other.image_digest().into(),
            scoring: scoring.clone(),
        });
        all.push(cell(json!(other.image_digest()), own, Job::Ood { pair, set })?);
    }
    Ok(all)
}

/// Evaluates cells of one pair and returns each as soon as it is done.
pub struct Evaluator<'a> {
    setup: &'a Setup,
    opened: &'a Opened,
    context: &'a Context<'a>,
    found: ScoredSplit,
    files: Vec<Option<CifarC>>,
}

impl<'a> Evaluator<'a> {
    /// Computes the logits on the split and fits the temperature.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn new(
        setup: &'a Setup,
        pair: ModelOnData,
        opened: &'a Opened,
        context: &'a Context<'a>,
    ) -> Result<Self> {
        let quiet = context.silenced();
        let (data, split) = (&setup.data[pair.data], setup.file.data[pair.data].split.as_deref());
        let found = evaluate(&opened.checkpoint, data, split, setup.precision, &quiet)?;
        damage_note(&found.damaged).iter().for_each(|note| context.note(note));
        let files = setup.shifts.iter().map(|s| s.files(&found.split)).collect::<Result<_, _>>()?;
        Ok(Self { setup, opened, context, found, files })
    }

    /// Metrics on the split, shifted or not.
    ///
    /// # Errors
    /// Images that cannot be read or corrupted.
    pub fn evaluation(&self, shift: Option<CellShift>) -> Result<CellFigures> {
        let ScoredSplit { predictions, temperatures, .. } = &self.found;
        let summary = match shift {
            None => summarise_at(predictions, temperatures),
            Some(CellShift { asked, corruption, severity }) => {
                let (files, of) = (self.files[asked].as_ref(), (corruption, severity));
                measure(&self.opened.checkpoint, &self.found, files, of, self.context.seed)?
            }
        };
        Ok(summary.into())
    }

    /// How well images of another kind are detected.
    ///
    /// # Errors
    /// Unreadable images.
    pub fn ood(&self, set: usize) -> Result<CellFigures> {
        let ood = &self.setup.file.ood[set];
        let asked = [(ood.name.as_ref().clone(), ood.source.clone())];
        let quiet = self.context.silenced();
        let found = others(&asked, &self.opened.checkpoint, &self.found, &quiet)?;
        damage_note(&found.damaged).iter().for_each(|note| self.context.note(note));
        let none = || Error::Missing("no metrics of other images".into());
        let one = found.sets.first().ok_or_else(none)?;
        Ok(CellFigures::Ood(OodFigures {
            images: self.found.predictions.images(),
            ood_images: one.data.images,
            probability: one.max_probability,
            energy: one.energy,
        }))
    }
}
