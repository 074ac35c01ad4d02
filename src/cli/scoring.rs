//! A model before and after, on the same images.

use super::common::Common;
use super::images::pixels;
use super::subject::Subject;
use crate::checkpoint::Checkpoint;
use crate::data::Split;
use crate::data::folds::stratified_halves;
use crate::diagnose::Options;
use crate::evaluate::{Predictions, Summary, Temperature, fit, losses, paired, summarise};
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
    let first = stratified_halves(own[0].labels(), seed).0;
    let score = |i: usize| -> anyhow::Result<(Summary, Vec<f64>, Vec<f64>)> {
        let fitted = v.map(|v| &v[i]);
        let temperature = match fitted {
            Some(v) => Temperature::FittedOn(v),
            None => Temperature::CrossFitted(&first),
        };
        let calibrated = calibrated_losses(&own[i], fitted, &first)?;
        Ok((summarise(&own[i], temperature)?, losses(&own[i], 1.0), calibrated))
    };
    let ((before, raw, calibrated), (after, raw_after, calibrated_after)) = (score(0)?, score(1)?);
    Ok(BeforeAfter {
        data,
        before,
        after,
        nll_gain: paired(&raw, &raw_after)?,
        calibrated_nll_gain: paired(&calibrated, &calibrated_after)?,
    })
}

fn calibrated_losses(
    predictions: &Predictions,
    fitted: Option<&Predictions>,
    first: &[usize],
) -> anyhow::Result<Vec<f64>> {
    if let Some(v) = fitted {
        return Ok(losses(predictions, fit(v).usable()));
    }
    let mut in_first = vec![false; predictions.images()];
    first.iter().for_each(|&i| in_first[i] = true);
    let second: Vec<usize> = (0..predictions.images()).filter(|&i| !in_first[i]).collect();
    let at = |half: &[usize]| -> anyhow::Result<Vec<f64>> {
        Ok(losses(predictions, fit(&predictions.subset(half)?).usable()))
    };
    let (by_first, by_second) = (at(first)?, at(&second)?);
    Ok((0..predictions.images())
        .map(|i| if in_first[i] { by_second[i] } else { by_first[i] })
        .collect())
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
        recompute: tuned.recompute,
        ..subject.objective.clone()
    };
    let before = subject.at(untouched).measure(&wanted, &Options::default(), common)?.layers;
    let after = subject.at(tuned.clone()).measure(&wanted, &Options::default(), common)?.layers;
    let pair = |(before, after): (LayerResult, LayerResult)| LayerBeforeAfter { before, after };
    Ok(before.into_iter().zip(after).map(pair).collect())
}
