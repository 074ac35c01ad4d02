//! Scores of a model before and after training, on the same images: of one run, and of the trials of a
//! study or a search.

use super::flips::flips;
use super::result::{BeforeAfter, LayerBeforeAfter};
use crate::checkpoint::{Checkpoint, Error as CheckpointError};
use crate::data::folds::stratified_halves;
use crate::data::{DataInfo, Split};
use crate::diagnose::MeasureOptions;
use crate::diagnose::Measurer;
use crate::diagnose::findings::LayerResult;
use crate::error::{Error, Result};
use crate::evaluate::{
    EQUIVALENT_NATS, Estimate, RESAMPLES, Scores, Summary, Temperature, Temperatures, compare,
    mean_stderr, paired, ratio, summarise_at,
};
use crate::models::layers::layers;
use crate::models::{Granularity, Layer, Network, Weights};
use crate::objective::{Activations, Error as ObjectiveError, Examples, Objective};
use crate::pixels::Pixels;
use crate::predictions::{Error as PredictionsError, Predictions};
use crate::session::{Context, pixels};
use crate::train::recipe::Recipe;

/// Logits on one split, before and after.
pub type Pair = [Predictions; 2];

/// Why a result has no metrics, and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The weights overflow the types of the checkpoint's file.
    #[error(transparent)]
    Overflow(CheckpointError),
    /// Some logits are not finite.
    #[error(transparent)]
    NonFinite(PredictionsError),
}

/// Separates a result that cannot be used from a failure to judge it.
///
/// # Errors
/// Any other error.
pub fn usable<T>(judged: Result<T>) -> Result<std::result::Result<T, Unusable>> {
    match judged {
        Ok(judged) => Ok(Ok(judged)),
        Err(Error::Checkpoint(why @ CheckpointError::Overflow { .. })) => {
            Ok(Err(Unusable::Overflow(why)))
        }
        Err(Error::Objective(ObjectiveError::Predictions(why))) => {
            Ok(Err(Unusable::NonFinite(why)))
        }
        Err(error) => Err(error),
    }
}

/// The model with the weights as the checkpoint's file stores them: rounding to the file's types is part
/// of the result. It computes products in f32, even after training in bf16.
///
/// # Errors
/// Those of [`Checkpoint::as_stored`].
pub fn as_stored(
    checkpoint: &Checkpoint,
    model: &Objective,
    weights: &Weights,
) -> Result<Objective> {
    Ok(model.exact().at(checkpoint.as_stored(weights)?))
}

/// A model's logits on images, or on the outputs of its frozen layers if these are `held`. Both give
/// the same bits.
///
/// # Errors
/// Logits that are not finite; a model that cannot be evaluated.
pub fn logits(
    model: &Objective,
    images: &Pixels,
    held: Option<&Activations>,
) -> Result<Predictions> {
    let examples = held.map_or(images as &dyn Examples, |held| held);
    Ok(model.predict(examples)?)
}

/// Both models' logits on a split, if there is one.
///
/// # Errors
/// Unreadable images; those of [`logits`].
pub fn predict(
    checkpoint: &Checkpoint,
    [before, after]: [&Objective; 2],
    split: Option<&Split>,
) -> Result<Option<Pair>> {
    let Some(split) = split else { return Ok(None) };
    let images = pixels(checkpoint, split)?;
    Ok(Some([logits(before, &images, None)?, logits(after, &images, None)?]))
}

/// A model's temperatures on a split: fitted on V if that is another split, else cross-fitted on the
/// split's halves.
///
/// # Errors
/// A split too small to be halved.
pub fn temperatures(own: &Predictions, v: Option<&Predictions>, seed: u64) -> Result<Temperatures> {
    let half = stratified_halves(own.labels(), seed).0;
    let from = v.map_or(Temperature::CrossFitted(&half), Temperature::FittedOn);
    Ok(Temperatures::of(own, from)?)
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
    /// Scores a model at its [`temperatures`].
    ///
    /// # Errors
    /// A split too small to be halved.
    pub fn new(own: &Predictions, v: Option<&Predictions>, seed: u64) -> Result<Self> {
        let temperatures = temperatures(own, v, seed)?;
        Ok(Self {
            raw: Scores::at(own, |_| 1.0),
            calibrated: temperatures.scores(own),
            summary: summarise_at(own, &temperatures),
        })
    }
}

/// A model before and after training, on one split.
#[derive(Clone, Debug)]
pub struct Compared {
    /// At w*.
    pub before: Summary,
    /// After training.
    pub after: Summary,
    /// Paired difference of NLL, before − after; positive is better.
    pub nll_gain: Estimate,
    /// The same with temperature scaling on both sides.
    pub calibrated_nll_gain: Estimate,
}

impl Compared {
    /// Pairs two models image by image.
    ///
    /// # Errors
    /// Scores of different images.
    pub fn of(before: &Side, after: &Side) -> Result<Self> {
        Ok(Self {
            nll_gain: paired(&before.raw.nll, &after.raw.nll)?,
            calibrated_nll_gain: paired(&before.calibrated.nll, &after.calibrated.nll)?,
            before: before.summary.clone(),
            after: after.summary.clone(),
        })
    }
}

/// The gain in NLL as a share of what a temperature gains on the model before; `None` if that is next to
/// nothing.
fn won_back(before: &Side, after: &Side) -> Option<Estimate> {
    let less = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>();
    let by_temperature = less(&before.raw.nll, &before.calibrated.nll);
    let enough = mean_stderr(&by_temperature).mean >= EQUIVALENT_NATS;
    enough.then(|| ratio(&less(&before.raw.nll, &after.raw.nll), &by_temperature))
}

/// Both models on a split, with all differences and the images whose prediction changed. See
/// [`temperatures`] for `v`.
///
/// # Errors
/// A split too small to be halved.
pub fn before_after(
    own: &Pair,
    v: Option<&Pair>,
    data: DataInfo,
    seed: u64,
) -> Result<BeforeAfter> {
    let side = |i: usize| Side::new(&own[i], v.map(|v| &v[i]), seed);
    let [before, after] = [side(0)?, side(1)?];
    let sides = [&before, &after].map(|side| [&side.raw, &side.calibrated]);
    let comparison = compare(sides[0], sides[1], seed, RESAMPLES)?;
    let flips = flips(own, [&before.raw, &after.raw]);
    let won_back = won_back(&before, &after);
    let Compared { before, after, nll_gain, calibrated_nll_gain } = Compared::of(&before, &after)?;
    Ok(BeforeAfter {
        data,
        before,
        after,
        nll_gain,
        calibrated_nll_gain,
        won_back,
        comparison: Some(comparison),
        flips: Some(flips),
    })
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

/// How layers are measured again: with one halving of V. More would take longer than many a training of one
/// layer.
pub fn remeasure_options() -> MeasureOptions {
    MeasureOptions { repeats: 1, raw_too: false, ..MeasureOptions::default() }
}

/// ΔL and κ of p and u on V, at w* and after training.
///
/// # Errors
/// Those of diagnosing.
pub fn remeasure(
    session: &Measurer,
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
    let options = remeasure_options();
    let before = session.at(untouched).measure(&wanted, &options, context)?.layers;
    // Diagnosis is of the plain loss, whatever training smooths.
    let tuned = Objective { smoothing: 0.0, ..tuned.clone() };
    let after = session.at(tuned).measure(&wanted, &options, context)?.layers;
    let pair = |(before, after): (LayerResult, LayerResult)| LayerBeforeAfter { before, after };
    Ok(before.into_iter().zip(after).map(pair).collect())
}
