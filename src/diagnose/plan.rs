//! From measured layers to a plan: eligibility, argmax and ties.

use super::cross_fit::{Z95, cross_fitted, differences};
use crate::diagnose::findings::{InSamplePlan, LayerResult, Plan};
use crate::diagnose::ranking::{Ranking, Rival, Standing};
use crate::evaluate::{Estimate, LEVEL, holm_above_zero};

/// One layer's cross-fitted evidence, by halving and example of V.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The layer's name.
    pub name: String,
    /// lᵢ(0) − lᵢ(α*), on the chosen basis.
    pub gaps: Vec<Vec<f64>>,
    /// κ, from [`sharpness`](super::cross_fit::sharpness); `None` if the layer did not move.
    pub sharpness: Option<Vec<Vec<f64>>>,
}

/// p values of one-sided tests that each layer's ΔL is above 0, corrected for the number of layers
/// (Holm). `None` without a standard error.
pub fn corrected(gaps: &[Estimate]) -> Vec<Option<f64>> {
    holm_above_zero(gaps, gaps.len())
}

/// Whether a corrected p value makes a layer eligible: the chance that any layer without gain passes is
/// at most 0.025, as for one layer whose 95% interval is above 0.
pub fn is_eligible(p_holm: Option<f64>) -> bool {
    p_holm.is_some_and(|p| p <= LEVEL)
}

/// Which layers are eligible.
fn eligible(evidence: &[Evidence], half_of: &[Vec<usize>]) -> Vec<bool> {
    let gaps: Vec<Estimate> = evidence.iter().map(|e| cross_fitted(&e.gaps, half_of)).collect();
    corrected(&gaps).into_iter().map(is_eligible).collect()
}

/// The plan. Among eligible layers, u has the highest gap and p the highest κ. A layer is tied with
/// the best if the 95% interval of their paired difference contains 0, and the lower end of its own
/// interval is at least half of the best's value: a difference can also be open because the layer is
/// known too poorly. Of tied layers, the one nearest the head is chosen, because it is cheapest.
///
/// `evidence` is ordered from input to output. Returns `None` if no layer is eligible.
pub fn plan(evidence: &[Evidence], half_of: &[Vec<usize>], basis: &str) -> Option<Plan> {
    let may = eligible(evidence, half_of);
    let eligible: Vec<&Evidence> =
        evidence.iter().zip(may).filter(|(_, may)| *may).map(|(e, _)| e).collect();
    let gaps: Vec<(&str, &[Vec<f64>])> = eligible.iter().map(|e| (&*e.name, &e.gaps[..])).collect();
    let sharpness: Vec<(&str, &[Vec<f64>])> =
        eligible.iter().filter_map(|e| e.sharpness.as_ref().map(|s| (&*e.name, &s[..]))).collect();
    let (update, tied_update) = choose(&gaps, half_of)?;
    let (perturb, tied_perturb) = choose(&sharpness, half_of)?;
    Some(Plan { perturb, update, tied_perturb, tied_update, basis: basis.into() })
}

/// How clearly the layers are separated, by ΔL and by κ; `None` without an eligible layer. The best
/// is an eligible layer. All other layers are rivals, since more images could make them eligible.
pub fn ranking(evidence: &[Evidence], half_of: &[Vec<usize>]) -> Option<Ranking> {
    let eligible = eligible(evidence, half_of);
    let gaps: Vec<Candidate> =
        evidence.iter().zip(&eligible).map(|(e, &may)| (&*e.name, &e.gaps[..], may)).collect();
    let sharpness: Vec<Candidate> = evidence
        .iter()
        .zip(&eligible)
        .filter_map(|(e, &may)| e.sharpness.as_ref().map(|s| (&*e.name, &s[..], may)))
        .collect();
    Some(Ranking { update: standing(&gaps, half_of)?, perturb: standing(&sharpness, half_of)? })
}

/// A layer's name, its values, and whether it is eligible to be the best.
type Candidate<'a> = (&'a str, &'a [Vec<f64>], bool);

fn standing(candidates: &[Candidate], half_of: &[Vec<usize>]) -> Option<Standing> {
    let all: Vec<Estimate> = candidates.iter().map(|(_, v, _)| cross_fitted(v, half_of)).collect();
    let value = |i: usize| if candidates[i].2 { all[i].mean } else { f64::NEG_INFINITY };
    let best = argmax(&(0..all.len()).map(value).collect::<Vec<_>>())?;
    if !candidates[best].2 {
        return None;
    }
    let rivals = (0..candidates.len()).filter(|&i| i != best).map(|i| {
        let behind = cross_fitted(&differences(candidates[best].1, candidates[i].1), half_of);
        Rival { name: candidates[i].0.to_owned(), behind: behind.mean, stderr: behind.stderr }
    });
    Some(Standing {
        best: candidates[best].0.to_owned(),
        value: all[best].mean,
        stderr: all[best].stderr,
        rivals: rivals.collect(),
    })
}

impl Standing {
    /// Whether more images would change little. The best layer's standard error must be within
    /// `tolerance` of its value. Every rival must be behind by more than 1.96 standard errors of
    /// the paired difference, or known to be level to within `tolerance`.
    pub fn is_decided(&self, tolerance: f64) -> bool {
        let within = |stderr: Option<f64>| stderr.is_some_and(|se| se <= tolerance * self.value);
        let settled =
            |r: &Rival| r.stderr.is_some_and(|se| r.behind > Z95 * se) || within(r.stderr);
        within(self.stderr) && self.rivals.iter().all(settled)
    }
}

/// The winner and the layers tied with it.
fn choose(
    candidates: &[(&str, &[Vec<f64>])],
    half_of: &[Vec<usize>],
) -> Option<(String, Vec<String>)> {
    let all: Vec<Estimate> = candidates.iter().map(|(_, v)| cross_fitted(v, half_of)).collect();
    let best = argmax(&all.iter().map(|e| e.mean).collect::<Vec<_>>())?;
    let is_tied = |i: usize| {
        let behind = cross_fitted(&differences(candidates[best].1, candidates[i].1), half_of);
        let open = behind.stderr.is_none_or(|se| behind.mean <= Z95 * se);
        let lower = all[i].stderr.map(|se| all[i].mean - Z95 * se);
        open && lower.is_some_and(|lower| lower >= 0.5 * all[best].mean)
    };
    let tied: Vec<usize> = (0..candidates.len()).filter(|&i| i == best || is_tied(i)).collect();
    let winner = *tied.last()?;
    let others = tied.iter().filter(|&&i| i != winner).map(|&i| candidates[i].0.to_owned());
    Some((candidates[winner].0.to_owned(), others.collect()))
}

/// Index of the largest value; the first one on ties.
fn argmax(values: &[f64]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

/// The plain in-sample argmaxes of the raw loss, as in the paper.
pub fn in_sample(layers: &[LayerResult]) -> Option<InSamplePlan> {
    let of = |value: fn(&LayerResult) -> Option<f64>| {
        let values: Vec<f64> =
            layers.iter().map(|l| value(l).unwrap_or(f64::NEG_INFINITY)).collect();
        argmax(&values).filter(|&i| values[i].is_finite()).map(|i| layers[i].name.clone())
    };
    Some(InSamplePlan {
        perturb: of(|l| l.raw.map_or(l.kappa, |raw| raw.kappa).in_sample)?,
        update: of(|l| l.raw.map_or(l.delta_l_nats, |raw| raw.delta_l_nats).in_sample)?,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
