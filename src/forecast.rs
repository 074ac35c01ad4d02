//! Time and memory before the work: operations over a rate measured on this machine, and bytes
//! held.

use crate::objective::{Examples, Objective, Result};
use crate::vit::{Config, Layer, cost, stages};
use serde::{Deserialize, Serialize};
use std::time::Instant;

const MIB: f64 = (1 << 20) as f64;
/// Program, threads and small buffers.
const BASE_MIB: f64 = 40.0;

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The command or method.
    pub method: String,
    /// Seconds for one epoch (for `diagnose`: in all).
    pub seconds_per_epoch: f64,
    /// Peak memory of the process.
    pub peak_mib: f64,
}

/// Work of one method and epoch, whatever the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The method.
    pub method: String,
    /// Operations an image of B, in units of 10⁹.
    pub gflop_per_image: f64,
}

/// Operations a second on this model: one micro-batch a thread forward, the best of three.
///
/// # Errors
/// Those of evaluating the model.
pub fn measure_rate(model: &Objective, images: &dyn Examples) -> Result<f64> {
    // A micro-batch for every thread, as the work itself runs.
    let n = (model.micro_batch * rayon::current_num_threads()).clamp(1, images.len().max(1));
    let first = images.inputs(0..n)?;
    let examples = crate::objective::Activations {
        stage: images.stage(),
        values: first,
        labels: images.labels()[..n].into(),
    };
    let work = n as f64 * cost::forward(&model.config, 0..stages(&model.config));
    let mut rate = 0.0f64;
    for _ in 0..3 {
        let clock = Instant::now();
        model.predict(&examples)?;
        rate = rate.max(work / clock.elapsed().as_secs_f64());
    }
    Ok(rate)
}

/// Operations of `diagnose` an image of V: one gradient of all layers; each layer's
/// Hessian-vector product and points of its line; the climb.
pub fn diagnose_work(config: &Config, layers: &[Layer]) -> f64 {
    let all = cost::forward(config, 0..stages(config));
    let each = |layer: &Layer| {
        let linear = layer.first_stage + 2 >= stages(config);
        let points = if linear { 3.0 } else { 7.0 };
        cost::hvp(config, layer) + points * cost::suffix(config, layer)
    };
    5.0 * all + layers.iter().map(each).sum::<f64>()
}

/// What a step of post-training does besides its gradient.
#[derive(Clone, Copy, Debug)]
pub enum Perturbing<'a> {
    /// Nothing: plain SGD.
    Nothing,
    /// A layer goes down the gradient of a batch of its own.
    Line {
        /// The layer.
        layer: &'a Layer,
        /// Whether one Hessian-vector product finds the step, or a search.
        newton: bool,
        /// Size of that batch, as a multiple of B.
        ratio: f64,
    },
    /// The updated layers go up the gradient of B.
    Climb {
        /// Share of the steps that do.
        share: f64,
        /// Whether their normalisation layers alone do, whose gradient needs no weight's product.
        norms: bool,
    },
}

/// Operations of one post-training step an image of B.
pub fn step_work(config: &Config, update: &Layer, perturbing: Perturbing) -> f64 {
    let gradient = cost::gradient(config, update);
    match perturbing {
        Perturbing::Nothing => gradient,
        Perturbing::Climb { share, norms } => {
            let first = if norms { 2.0 * cost::suffix(config, update) } else { gradient };
            gradient + share * first
        }
        Perturbing::Line { layer: p, newton, ratio } => {
            let start = p.first_stage.min(update.first_stage);
            let climb = |to: usize| cost::forward(config, start..to);
            let linear = p.first_stage + 2 >= stages(config);
            let line = match (newton, linear) {
                (true, _) => cost::hvp(config, p),
                (false, true) => 2.0 * cost::suffix(config, p),
                (false, false) => 12.0 * cost::suffix(config, p),
            };
            let search = climb(p.first_stage) + cost::gradient(config, p) + line;
            climb(update.first_stage) + gradient + ratio * search
        }
    }
}

/// Peak memory in MiB: weights, copies of some of them (gradients, momentum, moved weights),
/// activations held, and the tape of one micro-batch.
pub fn peak_mib(model: &Objective, copied: usize, held_bytes: f64, duals: bool) -> f64 {
    let size = model.dtype().size_in_bytes() as f64;
    let weights = model.weights.parameters() as f64 * size;
    // Every thread has a micro-batch of its own in flight.
    let images = model.micro_batch * rayon::current_num_threads();
    let tape = (cost::kept_per_image(&model.config) * images) as f64 * size;
    let tape = if duals { 2.0 * tape } else { tape };
    BASE_MIB + (weights + copied as f64 * size + held_bytes + tape) / MIB
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vit::arch;
    use crate::vit::layers::select;

    #[test]
    fn a_climb_is_a_second_gradient() {
        let config = arch::named("vit_nano_patch7_28", 10, 1).unwrap();
        let all = select(&config, "*").unwrap().remove(0);
        let work = |perturbing| step_work(&config, &all, perturbing);
        let sgd = work(Perturbing::Nothing);
        // A gradient of everything is a forward pass and two of the same size back.
        assert!((sgd / cost::forward(&config, 0..stages(&config)) - 3.0).abs() < 1e-12);
        for (share, norms, expected) in
            [(1.0, false, 2.0), (0.2, false, 1.2), (1.0, true, 5.0 / 3.0)]
        {
            let ratio = work(Perturbing::Climb { share, norms }) / sgd;
            assert!((ratio - expected).abs() < 1e-12, "{ratio}");
        }
    }
}
