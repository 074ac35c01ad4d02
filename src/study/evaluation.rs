//! Cells that evaluate a model as it is.

use super::cells::{Cell, CellShift, Job};
use super::setup::{Opened, Pair, Setup};
use super::{Kind, Planned};
use crate::data::{CifarC, DataSet, Split};
use crate::error::{Error, Result};
use crate::evaluate::{DEFINITIONS, Summary, summarise_at};
use crate::fingerprint::fingerprint;
use crate::session::Context;
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::{Evaluated, evaluate, other_images};
use crate::shift::{measure, others, preprocessing};
use serde_json::{Map, Value, json};

/// The cells of a pair: its unmodified split, each shift, each set of other images.
///
/// # Errors
/// Unreadable images.
pub fn cells(setup: &Setup, pair: Pair, opened: &Opened, context: &Context) -> Result<Vec<Cell>> {
    let Opened { checkpoint, data: sources, roles } = opened;
    let split = sources.split(setup.file.data[pair.data].split.as_deref())?;
    let v = other_images(sources, roles, split);
    let temperature = v.map_or("halves of the split".into(), |v| {
        format!("V: {}, {} images", roles.val_origin, v.len())
    });
    let mut base = setup.columns(pair, checkpoint);
    base.extend([
        ("split".to_owned(), Value::from(split.name())),
        ("split_digest".to_owned(), split.digest().into()),
    ]);
    let after: [(&str, Value); 3] = [
        ("precision", setup.precision.name().into()),
        ("seed", context.seed.into()),
        ("temperature_from", temperature.into()),
    ];
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
    let cell = |kind: Kind, of: Value, own: Vec<(&str, Value)>, job: Job| -> Result<Cell> {
        let mut settings: Map<String, Value> = base.clone();
        let own = own.into_iter().chain(after.clone());
        settings.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let measures = if kind == Kind::Ood { "ood" } else { "evaluation" };
        let cell = key(measures, of)?;
        Ok(Cell { planned: Planned { cell, kind, control: None, diagnosis: None, settings }, job })
    };
    let shifted = |name: &str, severity: usize, source: String| {
        vec![("shift", name.into()), ("severity", severity.into()), ("shift_source", source.into())]
    };
    let plain = shifted("none", 0, "none".into());
    let mut all =
        vec![cell(Kind::Evaluation, Value::Null, plain, Job::Evaluate { pair, shift: None })?];
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
            all.push(cell(Kind::Evaluation, of, own, Job::Evaluate { pair, shift })?);
        }
    }
    for (set, ood) in setup.file.ood.iter().enumerate() {
        let data = DataSet::open(&ood.source)?;
        let split = data.split("test").or_else(|| data.splits().first());
        let none = || Error::Missing(format!("{} has no split", ood.source));
        let split = split.ok_or_else(none)?;
        let own = vec![
            ("ood", ood.name.as_ref().clone().into()),
            ("ood_source", ood.source.clone().into()),
            ("ood_digest", split.image_digest().into()),
        ];
        let of = json!(split.image_digest());
        all.push(cell(Kind::Ood, of, own, Job::Ood { pair, set })?);
    }
    Ok(all)
}

/// Evaluates cells of one pair and returns each as soon as it is done.
pub struct Evaluator<'a> {
    setup: &'a Setup,
    opened: &'a Opened,
    context: &'a Context<'a>,
    found: Evaluated,
    files: Vec<Option<CifarC>>,
}

impl<'a> Evaluator<'a> {
    /// Computes the logits on the split and fits the temperature.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn new(
        setup: &'a Setup,
        pair: Pair,
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
    pub fn evaluation(&self, shift: Option<CellShift>) -> Result<Map<String, Value>> {
        let Evaluated { predictions, temperatures, .. } = &self.found;
        let summary = match shift {
            None => summarise_at(predictions, temperatures),
            Some(CellShift { asked, corruption, severity }) => {
                let (files, of) = (self.files[asked].as_ref(), (corruption, severity));
                measure(&self.opened.checkpoint, &self.found, files, of, self.context.seed)?
            }
        };
        flat(&summary)
    }

    /// How well images of another kind are detected.
    ///
    /// # Errors
    /// Unreadable images.
    pub fn ood(&self, set: usize) -> Result<Map<String, Value>> {
        let ood = &self.setup.file.ood[set];
        let asked = [(ood.name.as_ref().clone(), ood.source.clone())];
        let quiet = self.context.silenced();
        let found = others(&asked, &self.opened.checkpoint, &self.found, &quiet)?;
        damage_note(&found.damaged).iter().for_each(|note| self.context.note(note));
        let none = || Error::Missing("no metrics of other images".into());
        let one = found.sets.first().ok_or_else(none)?;
        let mut row = Map::new();
        row.insert("images".into(), self.found.predictions.images().into());
        row.insert("ood_images".into(), one.data.images.into());
        for (score, of) in [("probability", &one.max_probability), ("energy", &one.energy)] {
            for (figure, value) in [("auroc", of.auroc), ("fpr95", of.fpr95)] {
                row.insert(format!("{figure}_{score}"), value.mean.into());
                row.insert(format!("{figure}_{score}_stderr"), value.stderr.into());
            }
        }
        Ok(row)
    }
}

/// A summary without its diagrams, as flat columns.
///
/// # Errors
/// A summary that JSON cannot represent.
pub fn flat(summary: &Summary) -> Result<Map<String, Value>> {
    let plain = Summary { reliability: None, ..summary.clone() };
    match serde_json::to_value(plain)? {
        Value::Object(figures) => Ok(figures),
        _ => Ok(Map::new()),
    }
}
