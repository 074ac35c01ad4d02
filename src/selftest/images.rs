//! The images of a self-test.

use super::SelftestOptions;
use crate::checkpoint::Checkpoint;
use crate::data::{DataInfo, DataOptions};
use crate::error::{Error, Result};
use crate::objective::{Activations, Examples};
use crate::random::{below, stream, unit};
use crate::session::{Data, data_info, pixels, sample};
use candle_core::{Device, Tensor};

/// A seeded sample of the split, or noise.
pub(super) fn images(
    options: &SelftestOptions,
    checkpoint: &Checkpoint,
    n: usize,
    seed: u64,
) -> Result<(Box<dyn Examples>, Option<DataInfo>)> {
    let Some(data) = &options.data else {
        return Ok((Box::new(noise(checkpoint, n, seed)?), None));
    };
    let class_order = options.class_order;
    let of_data = DataOptions { data: vec![data.clone()], class_order, ..DataOptions::default() };
    let sources = Data::open(&of_data, checkpoint)?;
    let whole = sources.split(options.split.as_deref())?;
    let too_few = || format!("`samples` {n}: the split has {} images", whole.len());
    let split = sample(whole, Some(n), seed).map_err(|e| Error::from(e).context(too_few()))?;
    let origin = format!("{n} images of split {}, seed {seed}", split.name());
    let info = data_info(sources.of(whole), &split, &origin);
    Ok((Box::new(pixels(checkpoint, &split)?), Some(info)))
}

/// Pixels with mean 0 and variance 1, as normalised images have, and random labels.
fn noise(checkpoint: &Checkpoint, n: usize, seed: u64) -> Result<Activations> {
    let network = &checkpoint.network;
    let [channels, height, width] = network.input();
    let mut rng = stream(seed, "selftest images");
    let half_width = 3f64.sqrt();
    let values: Vec<f32> = (0..n * channels * height * width)
        .map(|_| ((2.0 * unit(&mut rng) - 1.0) * half_width) as f32)
        .collect();
    let labels: Vec<u32> =
        (0..n).map(|_| below(&mut rng, network.classes() as u64) as u32).collect();
    let values = Tensor::from_vec(values, (n, channels, height, width), &Device::Cpu)?;
    Ok(Activations { stage: 0, values, labels: labels.into() })
}
