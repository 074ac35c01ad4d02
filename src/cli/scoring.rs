//! A model before and after, on the same images.

use super::common::Common;
use super::flips::flips;
use super::images::pixels;
use super::subject::Subject;
use crate::checkpoint::Checkpoint;
use crate::data::Split;
use crate::data::folds::stratified_halves;
use crate::diagnose::Options;
use crate::evaluate::{
    Predictions, RESAMPLES, Scores, Temperature, Temperatures, compare, paired, summarise_at,
};
use crate::objective::Objective;
use crate::report::DataInfo;
use crate::report::diagnosis::LayerResult;
use crate::report::post_training::{BeforeAfter, LayerBeforeAfter};
use crate::train::recipe::Recipe;
use crate::vit::layers::layers;
use crate::vit::{Config, Granularity, Layer};

/// Logits of one split before and after.
pub type Pair = [Predictions; 2];

/// Both models' logits on a split, if there is one.
///
/// # Errors
/// Images that cannot be read, or a model that cannot be run.
pub fn predict(
    checkpoint: &Checkpoint,
    [before, after]: [&Objective; 2],
    split: Option<&Split>,
) -> anyhow::Result<Option<Pair>> {
    let Some(split) = split else { return Ok(None) };
    let images = pixels(checkpoint, split)?;
    Ok(Some([before.predict(&images)?, after.predict(&images)?]))
}

/// Scores both models on a split; the temperature comes from V where that is another split, else
/// from the split's own halves.
///
/// # Errors
/// A split too small to be halved.
pub fn before_after(
    own: &Pair,
    v: Option<&Pair>,
    data: DataInfo,
    seed: u64,
) -> anyhow::Result<BeforeAfter> {
    let [before, after] = temperatures(own, v, seed)?;
    let scores =
        |i: usize, own_t: &Temperatures| (Scores::at(&own[i], |_| 1.0), own_t.scores(&own[i]));
    let ((raw, calibrated), (raw_after, calibrated_after)) =
        (scores(0, &before), scores(1, &after));
    let sides = ([&raw, &calibrated], [&raw_after, &calibrated_after]);
    Ok(BeforeAfter {
        data,
        before: summarise_at(&own[0], &before),
        after: summarise_at(&own[1], &after),
        nll_gain: paired(&raw.nll, &raw_after.nll)?,
        calibrated_nll_gain: paired(&calibrated.nll, &calibrated_after.nll)?,
        comparison: Some(compare(sides.0, sides.1, seed, RESAMPLES)?),
        flips: Some(flips(own, [&raw, &raw_after])),
    })
}

/// Both models' temperatures: of V where that is another split, else of the split's own halves.
///
/// # Errors
/// A split too small to be halved.
pub fn temperatures(own: &Pair, v: Option<&Pair>, seed: u64) -> anyhow::Result<[Temperatures; 2]> {
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
pub fn measured_again(config: &Config, recipe: &Recipe) -> Vec<Layer> {
    // An update of many blocks is measured block by block, as diagnosis does.
    let within = |l: &Layer| l.tensors.iter().all(|i| recipe.update.tensors.contains(i));
    let blocks: Vec<Layer> =
        layers(config, Granularity::Block).into_iter().filter(within).collect();
    let mut wanted: Vec<Layer> = recipe.perturb.iter().cloned().collect();
    match blocks.len() {
        0 | 1 => wanted.push(recipe.update.clone()),
        _ => wanted.extend(blocks),
    }
    wanted.dedup_by(|a, b| a.name == b.name);
    wanted
}

/// ΔL and κ of p and u at w* and after, on V.
///
/// # Errors
/// Those of diagnosing.
pub fn remeasure(
    subject: &Subject,
    tuned: &Objective,
    recipe: &Recipe,
    common: &Common,
) -> anyhow::Result<Vec<LayerBeforeAfter>> {
    let wanted = measured_again(&tuned.config, recipe);
    // Both sides are summed in the same micro-batches.
    let untouched = Objective {
        micro_batch: tuned.micro_batch,
        checkpointing: tuned.checkpointing,
        ..subject.objective.clone()
    };
    let before = subject.at(untouched).measure(&wanted, &Options::default(), common)?.layers;
    let after = subject.at(tuned.clone()).measure(&wanted, &Options::default(), common)?.layers;
    let pair = |(before, after): (LayerResult, LayerResult)| LayerBeforeAfter { before, after };
    Ok(before.into_iter().zip(after).map(pair).collect())
}
