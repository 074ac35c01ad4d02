//! From measured layers to a plan: eligibility, argmax, ties.

use crate::evaluate::mean_stderr;
use crate::report::diagnosis::{InSamplePlan, LayerResult, Plan};

/// Two-sided 95% of the normal distribution.
pub const Z95: f64 = 1.96;

/// One layer's cross-fitted evidence, per example of V.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The layer's name.
    pub name: String,
    /// lᵢ(0) − lᵢ(α*), on the basis chosen.
    pub gaps: Vec<f64>,
    /// The same divided by ‖Δw‖² of the fold that gave the direction; `None` where nothing moved.
    pub sharpness: Option<Vec<f64>>,
}

/// Mean over two folds of unequal size at most by one: the mean of the folds' means, and its
/// standard error from independent folds.
pub fn cross_mean(values: &[f64], fold_of: &[usize]) -> (f64, Option<f64>) {
    let mut mean = 0.0;
    let mut variance = Some(0.0);
    for fold in 0..2 {
        let own: Vec<f64> =
            values.iter().zip(fold_of).filter(|(_, f)| **f == fold).map(|(v, _)| *v).collect();
        let estimate = mean_stderr(&own);
        mean += estimate.mean / 2.0;
        variance = variance.zip(estimate.stderr).map(|(sum, se)| sum + (se / 2.0).powi(2));
    }
    (mean, variance.map(f64::sqrt))
}

/// Whether a mean exceeds 1.96 standard errors.
pub fn is_eligible((mean, stderr): (f64, Option<f64>)) -> bool {
    stderr.is_some_and(|se| mean > Z95 * se)
}

/// The plan: among layers whose gap exceeds 1.96 standard errors, u of highest gap and p of
/// highest κ. A layer whose paired difference from the best has a 95% interval that contains 0 is
/// tied with it, and the tied layer nearest the head is taken, being the cheapest.
///
/// `evidence` runs from the image upwards. Nothing eligible, no plan.
pub fn plan(evidence: &[Evidence], fold_of: &[usize], basis: &str) -> Option<Plan> {
    let eligible: Vec<&Evidence> =
        evidence.iter().filter(|e| is_eligible(cross_mean(&e.gaps, fold_of))).collect();
    let gaps: Vec<(&str, &[f64])> = eligible.iter().map(|e| (&*e.name, &e.gaps[..])).collect();
    let sharpness: Vec<(&str, &[f64])> =
        eligible.iter().filter_map(|e| e.sharpness.as_ref().map(|s| (&*e.name, &s[..]))).collect();
    let (update, tied_update) = choose(&gaps, fold_of)?;
    let (perturb, tied_perturb) = choose(&sharpness, fold_of)?;
    Some(Plan { perturb, update, tied_perturb, tied_update, basis: basis.into() })
}

/// The winner and the others tied with the best.
fn choose(candidates: &[(&str, &[f64])], fold_of: &[usize]) -> Option<(String, Vec<String>)> {
    let means: Vec<f64> = candidates.iter().map(|(_, v)| cross_mean(v, fold_of).0).collect();
    let best = argmax(&means)?;
    let tied: Vec<usize> = (0..candidates.len())
        .filter(|&i| {
            let differences: Vec<f64> =
                candidates[best].1.iter().zip(candidates[i].1).map(|(a, b)| a - b).collect();
            let (mean, stderr) = cross_mean(&differences, fold_of);
            i == best || stderr.is_none_or(|se| mean <= Z95 * se)
        })
        .collect();
    let winner = *tied.last()?;
    let others = tied.iter().filter(|&&i| i != winner).map(|&i| candidates[i].0.to_owned());
    Some((candidates[winner].0.to_owned(), others.collect()))
}

/// Position of the largest number; the first of equals.
fn argmax(values: &[f64]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

/// The literal argmaxes of the in-sample figures, as published.
pub fn in_sample(layers: &[LayerResult]) -> Option<InSamplePlan> {
    let of = |value: fn(&LayerResult) -> Option<f64>| {
        let values: Vec<f64> =
            layers.iter().map(|l| value(l).unwrap_or(f64::NEG_INFINITY)).collect();
        argmax(&values).filter(|&i| values[i].is_finite()).map(|i| layers[i].name.clone())
    };
    Some(InSamplePlan {
        perturb: of(|l| l.kappa.in_sample)?,
        update: of(|l| l.delta_l_nats.in_sample)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDS: [usize; 8] = [0, 1, 0, 1, 0, 1, 0, 1];

    fn evidence(name: &str, base: f64, wobble: f64, scale: f64) -> Evidence {
        let gaps: Vec<f64> =
            (0..8).map(|i| base + wobble * [1.0, -1.0, -1.0, 1.0][i % 4]).collect();
        let sharpness = Some(gaps.iter().map(|g| g * scale).collect());
        Evidence { name: name.into(), gaps, sharpness }
    }

    #[test]
    fn the_best_layer_is_taken_where_differences_are_clear() {
        let all = [evidence("embed", 1.0, 0.1, 1.0), evidence("head", 3.0, 0.1, 0.1)];
        let plan = plan(&all, &FOLDS, "cross_fit").unwrap();
        assert_eq!((&*plan.update, &*plan.perturb), ("head", "embed"));
        assert!(plan.tied_update.is_empty() && plan.tied_perturb.is_empty());
    }

    #[test]
    fn among_ties_the_layer_nearest_the_head_is_taken() {
        // The pair differs by 0.1 with a wobble of opposite phase: the interval contains 0.
        let all = [
            evidence("block.0", 1.1, 0.6, 1.0),
            evidence("block.1", 1.0, -0.6, 1.0),
            evidence("head", 0.1, 0.01, 1.0),
        ];
        let plan = plan(&all, &FOLDS, "cross_fit").unwrap();
        assert_eq!(plan.update, "block.1");
        assert_eq!(plan.tied_update, ["block.0"]);
    }

    #[test]
    fn without_an_eligible_layer_there_is_no_plan() {
        let all = [evidence("embed", 0.1, 2.0, 1.0), evidence("head", -1.0, 0.1, 1.0)];
        assert_eq!(plan(&all, &FOLDS, "cross_fit"), None);
    }

    #[test]
    fn the_cross_mean_averages_folds_and_their_errors() {
        // Fold 0: 1, 3 (mean 2, error 1); fold 1: 10, 10 (error 0).
        let (mean, stderr) = cross_mean(&[1.0, 10.0, 3.0, 10.0], &[0, 1, 0, 1]);
        assert_eq!((mean, stderr), (6.0, Some(0.5)));
    }
}
