//! Scores of a model before and after training, on the same images.

use super::flips::flips;
use super::result::{BeforeAfter, LayerBeforeAfter};
use crate::checkpoint::Checkpoint;
use crate::data::folds::stratified_halves;
use crate::data::{DataInfo, Split};
use crate::diagnose::MeasureOptions;
use crate::diagnose::findings::LayerResult;
use crate::diagnose::session::DiagnoseSession;
use crate::error::Result;
use crate::evaluate::{
    Error as EvaluateError, Estimate, RESAMPLES, Scores, Summary, Temperature, Temperatures,
    compare, paired, summarise_at,
};
use crate::models::layers::layers;
use crate::models::{Granularity, Layer, Network};
use crate::objective::Objective;
use crate::predictions::Predictions;
use crate::session::{Context, pixels};
use crate::train::recipe::Recipe;

/// Logits on one split, before and after.
pub type Pair = [Predictions; 2];

/// Both models' logits on a split, if there is one.
///
/// # Errors
/// Unreadable images, or a model that cannot be evaluated.
pub fn predict(
    checkpoint: &Checkpoint,
    [before, after]: [&Objective; 2],
    split: Option<&Split>,
) -> Result<Option<Pair>> {
    let Some(split) = split else { return Ok(None) };
    let images = pixels(checkpoint, split)?;
    Ok(Some([before.predict(&images)?, after.predict(&images)?]))
}

/// Scores of one model on one split, without and with temperature scaling, and a summary.
#[derive(Clone, Debug)]
pub struct Side {
    /// At T = 1.
    pub raw: Scores,
    /// At the fitted temperatures.
    pub calibrated: Scores,
    /// Means and standard errors.
    pub summary: Summary,
}

impl Side {
    /// Scores a model at a given temperature.
    ///
    /// # Errors
    /// A split too small to be halved.
    pub fn new(own: &Predictions, from: Temperature) -> std::result::Result<Self, EvaluateError> {
        let temperatures = Temperatures::of(own, from)?;
        Ok(Self::at(own, &temperatures))
    }

    fn at(own: &Predictions, temperatures: &Temperatures) -> Self {
        Self {
            raw: Scores::at(own, |_| 1.0),
            calibrated: temperatures.scores(own),
            summary: summarise_at(own, temperatures),
        }
    }
}

/// Paired differences before − after; positive is better.
#[derive(Clone, Copy, Debug)]
pub struct Gains {
    /// Difference of NLL.
    pub nll: Estimate,
    /// Difference of NLL with temperature scaling on both sides.
    pub calibrated_nll: Estimate,
}

impl Gains {
    /// Pairs two models image by image.
    ///
    /// # Errors
    /// Scores of different images.
    pub fn of(before: &Side, after: &Side) -> std::result::Result<Self, EvaluateError> {
        Ok(Self {
            nll: paired(&before.raw.nll, &after.raw.nll)?,
            calibrated_nll: paired(&before.calibrated.nll, &after.calibrated.nll)?,
        })
    }
}

/// Scores both models on a split. The temperature is fitted on V if that is another split, else
/// cross-fitted on the split's halves.
///
/// # Errors
/// A split too small to be halved.
pub fn before_after(
    own: &Pair,
    v: Option<&Pair>,
    data: DataInfo,
    seed: u64,
) -> Result<BeforeAfter> {
    let temperatures = temperatures(own, v, seed)?;
    let [before, after] = [0, 1].map(|i| Side::at(&own[i], &temperatures[i]));
    let gains = Gains::of(&before, &after)?;
    let sides = [&before, &after].map(|side| [&side.raw, &side.calibrated]);
    Ok(BeforeAfter {
        data,
        nll_gain: gains.nll,
        calibrated_nll_gain: gains.calibrated_nll,
        comparison: Some(compare(sides[0], sides[1], seed, RESAMPLES)?),
        flips: Some(flips(own, [&before.raw, &after.raw])),
        before: before.summary,
        after: after.summary,
    })
}

/// Both models' temperatures: fitted on V if that is another split, else cross-fitted on the
/// split's halves.
///
/// # Errors
/// A split too small to be halved.
pub fn temperatures(own: &Pair, v: Option<&Pair>, seed: u64) -> Result<[Temperatures; 2]> {
    let first = stratified_halves(own[0].labels(), seed).0;
    let of = |i: usize| {
        let from = match v {
            Some(v) => Temperature::FittedOn(&v[i]),
            None => Temperature::CrossFitted(&first),
        };
        Temperatures::of(&own[i], from)
    };
    Ok([of(0)?, of(1)?])
}

/// The layers whose ΔL and κ are measured before and after: p, and u or its blocks.
pub fn measured_again(network: &Network, recipe: &Recipe) -> Vec<Layer> {
    // Measure an update of several blocks block by block, as diagnosis does.
    let within = |l: &Layer| l.tensors.iter().all(|i| recipe.update.tensors.contains(i));
    let blocks: Vec<Layer> =
        layers(network, Granularity::Block).into_iter().filter(within).collect();
    let mut wanted: Vec<Layer> = recipe.perturb.iter().cloned().collect();
    match blocks.len() {
        0 | 1 => wanted.push(recipe.update.clone()),
        _ => wanted.extend(blocks),
    }
    wanted.dedup_by(|a, b| a.name == b.name);
    wanted
}

/// ΔL and κ of p and u on V, at w* and after training.
///
/// # Errors
/// Those of diagnosing.
pub fn remeasure(
    session: &DiagnoseSession,
    tuned: &Objective,
    recipe: &Recipe,
    context: &Context,
) -> Result<Vec<LayerBeforeAfter>> {
    let wanted = measured_again(&tuned.network, recipe);
    // Both sides use the same micro-batches, so that sums are comparable.
    let untouched = Objective {
        micro_batch: tuned.micro_batch,
        checkpointing: tuned.checkpointing,
        ..session.objective.clone()
    };
    let before =
        session.at(untouched).measure(&wanted, &MeasureOptions::default(), context)?.layers;
    let after =
        session.at(tuned.clone()).measure(&wanted, &MeasureOptions::default(), context)?.layers;
    let pair = |(before, after): (LayerResult, LayerResult)| LayerBeforeAfter { before, after };
    Ok(before.into_iter().zip(after).map(pair).collect())
}
