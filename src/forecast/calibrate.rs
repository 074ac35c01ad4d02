//! Measures speed and memory of this model on this machine by a few timed passes.

use super::Operations;
use crate::memory;
use crate::models::layers::join;
use crate::models::{Layer, cost};
use crate::objective::{Activations, Examples, LayerVectors, Matrix, Objective, Result};
use crate::predictions::Predictions;
use candle_core::Tensor;
use std::time::Instant;

const MIB: f64 = (1 << 20) as f64;
/// Each kind of pass is repeated for at least this many seconds, so that caches are warm.
const ENOUGH: f64 = 0.3;

/// Measured rates and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Operations per second in forward passes.
    pub forward: f64,
    /// Operations per second in gradients.
    pub gradient: f64,
    /// Operations per second in Hessian-vector products.
    pub hvp: f64,
    /// Memory of the process before the measurement, MiB.
    pub resident_mib: f64,
    /// Memory that a Hessian-vector product adds, with a micro-batch on every thread, MiB.
    pub wave_mib: f64,
    /// Peak memory of the process before the measurement, MiB.
    pub peak_mib: f64,
}

impl Calibration {
    /// Seconds for these operations on each of `images` images.
    pub fn seconds(&self, work: Operations, images: usize) -> f64 {
        let each =
            work.forward / self.forward + work.gradient / self.gradient + work.hvp / self.hvp;
        each * images as f64
    }
}

/// Measures the model on its first images: whole micro-batches for every thread, as in the actual
/// work, but at most `most` images. Derivatives are for the layers that are used.
///
/// # Errors
/// Errors of evaluating the model.
pub fn calibrate(
    model: &Objective,
    images: &dyn Examples,
    most: usize,
    layers: &[Layer],
) -> Result<Calibration> {
    let network = &model.network;
    let examples = few(model, images, most)?;
    let n = examples.labels.len();
    // As in diagnosis: one sweep for all gradients, one for the products of all layers.
    let all = join(layers);
    let block = |layer: &Layer| -> Result<Vec<Tensor>> {
        let weights = layer.tensors.iter().map(|&i| model.weights.tensor(i).unsqueeze(0));
        Ok(weights.collect::<candle_core::Result<_>>()?)
    };
    let vectors = layers.iter().map(block).collect::<Result<Vec<_>>>()?;
    let requests: Vec<LayerVectors> = layers
        .iter()
        .zip(&vectors)
        .map(|(layer, vectors)| LayerVectors { layer, vectors })
        .collect();
    let products = cost::sweep(network, &layers.iter().collect::<Vec<_>>());
    let rate = |work: f64, pass: &dyn Fn() -> Result<()>| -> Result<f64> {
        Ok(n as f64 * work / timed(model, pass)?)
    };
    let resident_mib = memory::resident_mib().unwrap_or(0.0);
    let peak_mib = memory::peak_mib().unwrap_or(0) as f64;
    let whole = cost::forward(network, 0..network.stages());
    // Memory is measured over all passes, because each reuses the memory of the previous one.
    let (rates, peak) = memory::peak_during(|| -> Result<[f64; 3]> {
        Ok([
            rate(whole, &|| model.predict(&examples).map(|_| ()))?,
            rate(cost::gradient(network, &all), &|| model.gradient(&examples, &all).map(|_| ()))?,
            rate(products, &|| {
                model.quadratic_forms(&examples, &requests, Matrix::Hessian).map(|_| ())
            })?,
        ])
    });
    let [forward, gradient, hvp] = rates?;
    let wave_mib =
        peak.map_or_else(|| 2.0 * tape_mib(model), |peak| (peak - resident_mib).max(0.0));
    Ok(Calibration { forward, gradient, hvp, resident_mib, wave_mib, peak_mib })
}

/// The same for commands without products: measures forward passes, and gradients of `trained` if that
/// is given. The other rates are infinite. Also returns the logits of the images that were passed.
///
/// # Errors
/// Errors of evaluating the model.
pub fn calibrate_passes(
    model: &Objective,
    images: &dyn Examples,
    most: usize,
    trained: Option<&Layer>,
) -> Result<(Calibration, Predictions)> {
    let network = &model.network;
    let resident_mib = memory::resident_mib().unwrap_or(0.0);
    let peak_mib = memory::peak_mib().unwrap_or(0) as f64;
    // The images themselves are no part of a pass.
    let examples = few(model, images, most)?;
    let held_mib = 4.0 * examples.values.elem_count() as f64 / MIB;
    let (found, peak) = memory::peak_during(|| -> Result<_> {
        let n = examples.labels.len() as f64;
        let whole = cost::forward(network, 0..network.stages());
        let logits = model.predict(&examples)?;
        let forward = n * whole / timed(model, &|| model.predict(&examples).map(|_| ()))?;
        let gradient = match trained {
            None => f64::INFINITY,
            Some(layer) => {
                let pass = || model.gradient(&examples, layer).map(|_| ());
                n * cost::gradient(network, layer) / timed(model, &pass)?
            }
        };
        Ok((forward, gradient, logits))
    });
    let (forward, gradient, logits) = found?;
    let wave = |peak: f64| (peak - resident_mib - held_mib).max(0.0);
    let wave_mib = peak.map_or_else(|| tape_mib(model), wave);
    let hvp = f64::INFINITY;
    Ok((Calibration { forward, gradient, hvp, resident_mib, wave_mib, peak_mib }, logits))
}

/// The first images, at most `most`: whole micro-batches for every thread.
fn few(model: &Objective, images: &dyn Examples, most: usize) -> Result<Activations> {
    let n = model.even_examples().min(most).clamp(1, images.len().max(1));
    Ok(Activations {
        stage: images.stage(),
        values: images.inputs(0..n)?,
        labels: images.labels()[..n].into(),
    })
}

/// Seconds of a pass.
fn timed(model: &Objective, pass: &dyn Fn() -> Result<()>) -> Result<f64> {
    // A GPU runs asynchronously.
    let pass = || pass().and_then(|()| model.synchronize());
    // The first pass allocates memory that later ones reuse.
    let clock = Instant::now();
    pass()?;
    let mut least = clock.elapsed().as_secs_f64();
    let (clock, mut passes) = (Instant::now(), 0);
    while least < ENOUGH && clock.elapsed().as_secs_f64() < ENOUGH {
        pass()?;
        passes += 1;
    }
    if passes > 0 {
        least = clock.elapsed().as_secs_f64() / f64::from(passes);
    }
    Ok(least)
}

/// Reduces memory until the tape of gradients is within a limit, so that the measurement itself
/// does not exceed it.
pub fn start_within(model: &mut Objective, limit_mib: f64) {
    let room = limit_mib - memory::resident_mib().unwrap_or(0.0);
    while 2.0 * tape_mib(model) > room && lower(model) {}
}

/// Reduces the memory of derivatives: halves the number of images in parallel or, at one per
/// thread, recomputes blocks in the backward pass. Returns false if no reduction is left.
pub fn lower(model: &mut Objective) -> bool {
    match (model.micro_batch, model.checkpointing) {
        (0 | 1, true) => return false,
        (0 | 1, false) => model.checkpointing = true,
        (n, _) => model.micro_batch = n.div_ceil(2),
    }
    true
}

/// Memory of the tape for the backward pass, with a micro-batch on every thread, MiB. Used if the
/// system does not report memory.
fn tape_mib(model: &Objective) -> f64 {
    let numbers = model.saved_len() * rayon::current_num_threads();
    numbers as f64 * model.dtype().size_in_bytes() as f64 / MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_pass_has_its_rate() {
        let found = Calibration {
            forward: 4.0,
            gradient: 2.0,
            hvp: 1.0,
            resident_mib: 100.0,
            wave_mib: 160.0,
            peak_mib: 100.0,
        };
        let work = Operations { forward: 8.0, gradient: 2.0, hvp: 3.0 };
        assert_eq!(found.seconds(work, 10), 60.0);
    }
}
