//! Forecast of the cost of each post-training method, printed by `diagnose` with its plan.

use super::findings::Findings;
use crate::forecast::{Calibration, Forecast, Perturbing, Work, step_work};
use crate::models::Layer;
use crate::models::layers::{features, select};
use crate::objective::Objective;
use crate::train::perturbation::StepRule;
use crate::train::recipe::default_rule;

/// Copies of the updated layers at a step's peak, besides the weights themselves: gradient,
/// momentum and new weights.
const COPIES: usize = 3;

/// Time and memory on this machine for `examples` training images, and operation counts, which do
/// not depend on the machine. PoL and SGD need a plan.
pub fn post_training(
    objective: &Objective,
    examples: usize,
    found: &Calibration,
    findings: &Findings,
) -> (Vec<Forecast>, Vec<Work>) {
    let network = &objective.network;
    let named = |name: &str| select(network, name).ok().and_then(|mut l| l.pop());
    let mut methods: Vec<(&str, Layer, Option<Layer>)> = Vec::new();
    methods.extend(named("head").map(|head| ("pof", features(network), Some(head))));
    methods.extend(named("*").map(|all| ("sam", all, None)));
    if let Some(plan) = &findings.plan
        && let (Some(p), Some(u)) = (named(&plan.perturb), named(&plan.update))
    {
        methods.push(("pol", u.clone(), Some(p)));
        methods.push(("sgd", u, None));
    }
    methods
        .into_iter()
        .map(|(name, update, perturb)| {
            let newton = |p: &Layer| default_rule(network, p) == StepRule::Newton;
            let duals = perturb.as_ref().is_some_and(newton);
            let perturbing = match &perturb {
                Some(layer) => Perturbing::Line { layer, newton: duals, ratio: 2.0 },
                None if name == "sam" => Perturbing::Ascent { share: 1.0, norms: false },
                None => Perturbing::Nothing,
            };
            let flop = step_work(network, &update, perturbing);
            let tensors = update.tensors.iter();
            let n: usize = tensors.map(|&i| objective.weights.tensor(i).elem_count()).sum();
            let first = perturb.iter().fold(update.first_stage, |s, p| s.min(p.first_stage));
            let held = (examples * network.activation_len(first) * 4) as f64;
            (
                Forecast {
                    method: name.into(),
                    seconds_per_epoch: examples as f64 * flop / found.gradient,
                    peak_mib: found.resident_mib
                        + if duals { found.wave_mib } else { 0.5 * found.wave_mib }
                        + (held + (COPIES * n * 4) as f64) / (1 << 20) as f64,
                },
                Work { method: name.into(), gflop_per_image: flop / 1e9 },
            )
        })
        .unzip()
}
