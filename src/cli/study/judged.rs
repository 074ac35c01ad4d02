//! A model before training and after, on V and on test.

use crate::data::folds::stratified_halves;
use crate::evaluate::{
    Estimate, Predictions, Scores, Summary, Temperature, Temperatures, paired, summarise_at,
};
use crate::objective::{Activations, Error as ObjectiveError, Examples, Objective};
use crate::pixels::Pixels;
use crate::train::Prefix;
use serde_json::{Map, Value};

/// The splits, by the names of their columns.
const SPLITS: [&str; 2] = ["val", "test"];

/// Columns of a run's result.
#[derive(Default)]
pub struct Judged(pub Map<String, Value>);

/// The model that goes in.
pub struct Start {
    /// V, then test if it is to be read.
    images: Vec<Pixels>,
    before: Vec<Side>,
    /// Positions of the half of V whose temperature the other half is scored at.
    half: Vec<usize>,
}

/// One model on one split.
struct Side {
    raw: Scores,
    calibrated: Scores,
    summary: Summary,
}

impl Side {
    fn new(own: &Predictions, from: Temperature) -> anyhow::Result<Self> {
        let chosen = Temperatures::of(own, from)?;
        let raw = Scores::at(own, |_| 1.0);
        Ok(Self { raw, calibrated: chosen.scores(own), summary: summarise_at(own, &chosen) })
    }

    fn columns(&self, split: &str, when: &str, row: &mut Map<String, Value>) {
        let (s, d) = (&self.summary, self.summary.details.as_ref());
        let of = |mean, stderr| Estimate { mean, stderr };
        let all = [
            ("nll", of(s.nll, s.nll_stderr)),
            ("calibrated_nll", of(s.calibrated_nll, s.calibrated_nll_stderr)),
            ("top1", of(s.top1, s.top1_stderr)),
            ("ece", of(s.ece, d.and_then(|d| d.ece_stderr))),
            ("calibrated_ece", of(s.calibrated_ece, d.and_then(|d| d.calibrated_ece_stderr))),
            ("brier", of(d.map_or(f64::NAN, |d| d.brier), d.and_then(|d| d.brier_stderr))),
        ];
        for (figure, value) in all {
            put(row, &format!("{split}_{when}_{figure}"), value);
        }
        row.insert(format!("{split}_{when}_temperature"), s.temperature.into());
        let bound = serde_json::to_value(s.temperature_bound).unwrap_or_default();
        row.insert(format!("{split}_{when}_temperature_bound"), bound);
    }
}

fn put(row: &mut Map<String, Value>, name: &str, value: Estimate) {
    row.insert(name.to_owned(), value.mean.into());
    row.insert(format!("{name}_stderr"), value.stderr.into());
}

impl Start {
    /// Takes the model's logits on V, the first, and on test, if that is given.
    ///
    /// # Errors
    /// Images that cannot be read; logits that are not finite; a V too small to be halved.
    pub fn new(model: &Objective, images: Vec<Pixels>, seed: u64) -> anyhow::Result<Self> {
        let logits = images.iter().map(|own| model.predict(own));
        let logits = logits.collect::<Result<Vec<_>, _>>()?;
        let half = logits.first().map(|v| stratified_halves(v.labels(), seed).0);
        let half = half.unwrap_or_default();
        let before = sides(&logits, &half)?;
        Ok(Self { images, before, half })
    }

    /// What the layers below `stage` make of V and of test, if that takes no more than `ram` bytes:
    /// all runs that freeze these layers then begin there. The bits are the same.
    ///
    /// # Errors
    /// Images that cannot be read.
    pub fn frozen(
        &self,
        model: &Objective,
        stage: usize,
        ram: u64,
    ) -> anyhow::Result<Vec<Option<Activations>>> {
        let bytes =
            |images: &Pixels| Prefix::new(model, vec![images], stage, false).layout().bytes();
        let fits = self.images.iter().map(bytes).fold(0, u64::saturating_add) <= ram;
        let held = |images: &Pixels| -> anyhow::Result<Option<Activations>> {
            Ok(if fits { Some(model.activations(images, stage)?) } else { None })
        };
        self.images.iter().map(held).collect()
    }

    /// Scores a model that came of training: V at the temperatures of its halves, test at V's, as
    /// `post-train` has it. Logits that are no numbers are a result, if a useless one: then without
    /// figures, but with the reason.
    ///
    /// # Errors
    /// Images that cannot be read.
    pub fn judge(
        &self,
        tuned: &Objective,
        frozen: &[Option<Activations>],
    ) -> anyhow::Result<(Judged, Option<String>)> {
        let logits = self.images.iter().zip(frozen).map(|(images, held)| match held {
            Some(held) => tuned.predict(held as &dyn Examples),
            None => tuned.predict(images),
        });
        let logits = match logits.collect::<Result<Vec<_>, _>>() {
            Ok(logits) => logits,
            Err(ObjectiveError::Predictions(why)) => {
                return Ok((Judged::default(), Some(why.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        let after = sides(&logits, &self.half)?;
        let mut row = Map::new();
        for ((split, before), after) in SPLITS.into_iter().zip(&self.before).zip(&after) {
            before.columns(split, "before", &mut row);
            after.columns(split, "after", &mut row);
            let gain = paired(&before.raw.nll, &after.raw.nll)?;
            put(&mut row, &format!("{split}_nll_gain"), gain);
            let gain = paired(&before.calibrated.nll, &after.calibrated.nll)?;
            put(&mut row, &format!("{split}_calibrated_nll_gain"), gain);
        }
        Ok((Judged(row), None))
    }
}

/// V at the temperatures of its halves, the others at V's.
fn sides(logits: &[Predictions], half: &[usize]) -> anyhow::Result<Vec<Side>> {
    let Some((v, others)) = logits.split_first() else { return Ok(Vec::new()) };
    let on_v = Side::new(v, Temperature::CrossFitted(half));
    let others = others.iter().map(|own| Side::new(own, Temperature::FittedOn(v)));
    std::iter::once(on_v).chain(others).collect()
}
