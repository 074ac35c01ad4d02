//! Parity with timm and PyTorch on small random models: logits, losses, every gradient, and every
//! layer's Hessian-vector product (`tests/reference/make_parity.py`).

#[path = "common/reference.rs"]
mod reference;

use candle_core::{DType, Device, Tensor};
use planish::models::{Granularity, Layer, layers};
use planish::objective::Examples;
use reference::{Reference, numbers};

/// Maximum error relative to the norm of the reference. f64 differs from PyTorch only in the order
/// of sums. The rounding error of f32 is 6e-8, and each derivative costs about one digit.
struct Tolerance {
    logits: f64,
    gradient: f64,
    hvp: f64,
}
const F64: Tolerance = Tolerance { logits: 1e-9, gradient: 1e-9, hvp: 1e-9 };
const F32: Tolerance = Tolerance { logits: 1e-5, gradient: 1e-4, hvp: 1e-3 };

impl Reference {
    fn vector(&self, layer: &Layer, dtype: DType) -> Vec<Tensor> {
        let names = self.network.params();
        let name = |&i: &usize| format!("vector/{}", names[i].name);
        layer.tensors.iter().map(|i| self.get(&name(i)).to_dtype(dtype).unwrap()).collect()
    }

    /// Checks one tensor and returns its error relative to the reference's norm.
    fn close(&self, what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) -> f64 {
        let (found, expected) = (numbers(found), numbers(expected));
        assert_eq!(found.len(), expected.len());
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
        let scale = norm(&mut expected.iter().copied());
        let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        // A gradient that is exactly zero in theory (the bias of a key) has no scale.
        let relative = error / scale.max(1e-6);
        assert!(relative <= tolerance, "{}: {what}: {error:e} of {scale:e}", self.name);
        relative
    }
}

fn references() -> Vec<Reference> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/parity");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "parity files are missing");
    paths.iter().map(|path| Reference::open(path)).collect()
}

/// Checks one model and returns the worst relative error of logits, gradients and HVPs.
fn check(r: &Reference, dtype: DType, t: &Tolerance) -> [f64; 3] {
    let names: Vec<String> = r.network.params().iter().map(|p| p.name.clone()).collect();
    // Five images in micro-batches of two: the last one is partial.
    let objective = r.objective(dtype, 2);
    let examples = r.examples();
    let logits = objective.predict(&examples).unwrap();
    let logits = Tensor::from_slice(logits.values(), logits.values().len(), &Device::Cpu).unwrap();
    let mut worst = [r.close("logits", &logits, r.get("logits"), t.logits), 0.0, 0.0];

    let all = layers::everything(&r.network);
    let found = objective.hvp(&examples, &all, &r.vector(&all, dtype)).unwrap();
    let loss = Tensor::new(found.loss, &Device::Cpu).unwrap();
    r.close("loss", &loss, r.get("loss"), t.logits);
    let mut derivatives = |what: &str, i: usize, gradient: &Tensor, hvp: &Tensor, of: String| {
        let expected = r.get(&format!("gradient/{}", names[i]));
        worst[1] = worst[1].max(r.close(what, gradient, expected, t.gradient));
        worst[2] = worst[2].max(r.close(what, hvp, r.get(&of), t.hvp));
    };
    for (i, name) in names.iter().enumerate() {
        derivatives(name, i, &found.gradient[i], &found.hvp[i], format!("hvp_all/{name}"));
    }
    for layer in layers::layers(&r.network, Granularity::Block) {
        // From activations at the layer, as in a diagnosis, and without the forward pass below.
        let start = objective.activations(&examples, layer.first_stage).unwrap();
        let found = objective.hvp(&start, &layer, &r.vector(&layer, dtype)).unwrap();
        for (k, &i) in layer.tensors.iter().enumerate() {
            let of = format!("hvp/{}/{}", layer.name, names[i]);
            derivatives(&layer.name, i, &found.gradient[k], &found.hvp[k], of);
        }
    }
    worst
}

fn check_all(dtype: DType, tolerance: &Tolerance) {
    for r in &references() {
        let [logits, gradient, hvp] = check(r, dtype, tolerance);
        println!("{:11} {dtype:?} {logits:8.1e} {gradient:8.1e} {hvp:8.1e}", r.name);
    }
}

#[test]
fn f64_agrees_with_pytorch() {
    check_all(DType::F64, &F64);
}

#[test]
fn f32_agrees_with_pytorch() {
    check_all(DType::F32, &F32);
}

#[test]
fn label_smoothing_agrees_with_pytorch() {
    for r in &references() {
        let mut objective = r.objective(DType::F64, 5);
        objective.smoothing = 0.1;
        let head = layers::select(&r.network, "head").unwrap().remove(0);
        let found = objective.gradient(&r.examples(), &head).unwrap();
        let loss = Tensor::new(found.loss, &Device::Cpu).unwrap();
        r.close("smoothed loss", &loss, r.get("loss_smoothed"), F64.logits);
        let expected = r.get("gradient_smoothed/head.weight");
        r.close("smoothed gradient", &found.gradient[0], expected, F64.gradient);
    }
}

#[test]
fn micro_batches_only_change_rounding() {
    for r in &references() {
        let layer = layers::everything(&r.network);
        let examples = r.examples();
        let whole = r.objective(DType::F64, 5).gradient(&examples, &layer).unwrap();
        for micro_batch in 1..examples.len() {
            let parts = r.objective(DType::F64, micro_batch).gradient(&examples, &layer).unwrap();
            for (a, b) in parts.gradient.iter().zip(&whole.gradient) {
                r.close("micro-batches", a, b, 1e-13);
            }
        }
    }
}

#[test]
fn gradients_of_every_tensor_agree_with_differences_of_the_loss() {
    for r in &references() {
        let objective = r.objective(DType::F64, 5);
        let examples = r.examples();
        let layer = layers::everything(&r.network);
        let gradient = objective.gradient(&examples, &layer).unwrap().gradient;
        let direction = r.vector(&layer, DType::F64);
        for (i, (g, v)) in gradient.iter().zip(&direction).enumerate() {
            let loss = |h: f64| {
                let moved = (objective.weights.tensor(i) + (v * h).unwrap()).unwrap();
                let at = objective.at(objective.weights.with(&[(i, moved)]));
                let p = at.predict(&examples).unwrap();
                let losses = planish::evaluate::losses(&p, 1.0);
                losses.iter().sum::<f64>() / losses.len() as f64
            };
            let h = 1e-5;
            let expected = (loss(h) - loss(-h)) / (2.0 * h);
            let found: f64 = numbers(g).iter().zip(numbers(v)).map(|(a, b)| a * b).sum();
            let scale = expected.abs().max(1e-3);
            assert!((found - expected).abs() < 1e-6 * scale, "{} tensor {i}", r.name);
        }
    }
}
