//! A model small enough to check by hand, and images for it.

use candle_core::{DType, Device, Tensor};
use planish::engine::Engine;
use planish::models::layers::select;
use planish::models::{Layer, Weights, arch};
use planish::objective::{Activations, Objective};
use planish::random::{stream, unit};
use std::sync::Arc;

/// Width 8, two blocks, three classes: weights uniform in ±0.6 (±0.3 in blocks), so that no logit
/// is degenerate.
pub fn model(dtype: DType) -> Objective {
    let mut config = arch::vit("vit_nano_patch7_14", 3, 1).unwrap();
    (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
    let network = config.network().unwrap();
    let mut rng = stream(1, "weights");
    let tensors = network.params().iter().map(|param| {
        let (name, shape) = (&param.name, param.shape.clone());
        let scale = if name.starts_with("blocks") { 0.3 } else { 0.6 };
        let centre = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        let n = shape.iter().product();
        let values: Vec<f32> =
            (0..n).map(|_| (centre + scale * (2.0 * unit(&mut rng) - 1.0)) as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    });
    let tensors = tensors.collect();
    let weights = Weights::new(&network, tensors).unwrap();
    Objective::new(Arc::new(network), weights, &Engine::cpu())
}

/// Random images, with labels drawn from the probabilities that `model` predicts.
pub fn images(model: &Objective, n: usize) -> Activations {
    let mut rng = stream(2, "images");
    let pixels: Vec<f64> = (0..n * 196).map(|_| 2.0 * unit(&mut rng) - 1.0).collect();
    let values = Tensor::from_vec(pixels, (n, 1, 14, 14), &Device::Cpu).unwrap();
    let values = values.to_dtype(model.dtype()).unwrap();
    let unlabelled = Activations { stage: 0, values, labels: vec![0; n].into() };
    let logits = model.predict(&unlabelled).unwrap();
    let labels = logits.values().chunks(3).map(|row| {
        let (p, x) = (softmax(row), unit(&mut rng));
        (0..2).find(|&c| x < p[..=c].iter().sum()).unwrap_or(2) as u32
    });
    Activations { labels: labels.collect(), ..unlabelled }
}

/// The layer of that name, or the joint layer of a glob.
pub fn layer(model: &Objective, name: &str) -> Layer {
    select(&model.network, name).unwrap().remove(0)
}

pub fn softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = row.iter().map(|z| (z - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// −log softmax of each example's label, in nats.
pub fn cross_entropies(model: &Objective, examples: &Activations) -> Vec<f64> {
    let predictions = model.predict(examples).unwrap();
    let rows = predictions.values().chunks(3).zip(examples.labels.iter());
    rows.map(|(row, &label)| -softmax(row)[label as usize].ln()).collect()
}

pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// The values of some tensors, concatenated.
pub fn numbers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<f64> {
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    tensors.into_iter().flat_map(|t| flat(t).to_vec1::<f64>().unwrap()).collect()
}

/// The values of a layer's weights.
pub fn weights_of(model: &Objective, layer: &Layer) -> Vec<f64> {
    numbers(layer.tensors.iter().map(|&i| model.weights.tensor(i)))
}

/// The model with the layer's weights replaced by these values.
pub fn with_weights(model: &Objective, layer: &Layer, values: &[f64]) -> Objective {
    let mut rest = values;
    let mut weights = model.weights.clone();
    for &i in &layer.tensors {
        let old = weights.tensor(i).clone();
        let (current, after) = rest.split_at(old.elem_count());
        let new = Tensor::from_slice(current, old.dims(), &Device::Cpu).unwrap();
        weights.set(i, new.to_dtype(old.dtype()).unwrap());
        rest = after;
    }
    assert!(rest.is_empty());
    model.at(weights)
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// a + factor · b.
pub fn plus(a: &[f64], factor: f64, b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a + factor * b).collect()
}
