//! Layer operators v ↦ A v against dense matrices computed by PyTorch
//! (`tests/reference/make_hessian.py`).

#[path = "common/reference.rs"]
mod reference;

use candle_core::{DType, Tensor};
use planish::curvature::{LayerOperator, LinearOperator};
use planish::models::{Granularity, Layer, layers};
use planish::objective::{Activations, Error, Examples, Matrix, Objective};
use reference::{Reference, numbers};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

fn reference() -> Reference {
    Reference::open(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/reference/hessian.safetensors"
    )))
}

/// PyTorch's matrix. Rows and columns are in the order of the configuration's tensors.
struct Dense {
    n: usize,
    upper: Vec<f64>,
    /// Index in PyTorch's order, by index in planish's order.
    torch_index: Vec<usize>,
}

impl Dense {
    fn of(r: &Reference, name: &str) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/hessian.safetensors");
        let bytes = std::fs::read(file).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let order = &header.metadata().as_ref().unwrap()["order"];
        let order: Vec<String> = serde_json::from_str(order).unwrap();
        let mut start = HashMap::new();
        let mut n = 0;
        for name in order {
            let numbers = r.get(&format!("model/{name}")).elem_count();
            start.insert(name, n);
            n += numbers;
        }
        let entries = r.network.params();
        let torch_index = entries.iter().map(|param| &param.name).flat_map(|name| {
            let numbers = r.get(&format!("model/{name}")).elem_count();
            start[name]..start[name] + numbers
        });
        let torch_index: Vec<usize> = torch_index.collect();
        assert_eq!(torch_index.len(), n);
        Self { n, upper: numbers(r.get(name)), torch_index }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (
            self.torch_index[i].min(self.torch_index[j]),
            self.torch_index[i].max(self.torch_index[j]),
        );
        self.upper[i * self.n - i * (i + 1) / 2 + j]
    }

    fn largest(&self) -> f64 {
        self.upper.iter().fold(0.0, |m, x| x.abs().max(m))
    }
}

/// Index of each number of a layer among all numbers.
fn positions(objective: &Objective, layer: &Layer) -> Vec<usize> {
    let mut start = vec![0];
    for param in objective.network.params() {
        let numbers: usize = param.shape.iter().product();
        start.push(start.last().unwrap() + numbers);
    }
    layer.tensors.iter().flat_map(|&i| start[i]..start[i + 1]).collect()
}

fn unit(n: usize, i: usize) -> Vec<f64> {
    let mut v = vec![0.0; n];
    v[i] = 1.0;
    v
}

/// Assembles the layer's matrix from unit vectors and compares every entry.
fn check(r: &Reference, dense: &Dense, layer: &Layer, matrix: Matrix) -> f64 {
    let objective = r.objective(DType::F64, 3);
    let from = objective.activations(&r.examples(), layer.first_stage).unwrap();
    let operator = LayerOperator::new(&objective, &from, layer, matrix);
    let n = operator.dimension();
    let places = positions(&objective, layer);
    assert_eq!(places.len(), n);
    let units: Vec<Vec<f64>> = (0..n).map(|i| unit(n, i)).collect();
    let columns = operator.apply(&units).unwrap();
    let mut worst = 0f64;
    for (j, column) in columns.iter().enumerate() {
        for (i, found) in column.iter().enumerate() {
            worst = worst.max((found - dense.at(places[i], places[j])).abs());
        }
    }
    worst / dense.largest()
}

#[test]
fn assembled_matrices_match_pytorch_for_every_layer_and_pair() {
    let r = reference();
    for (matrix, name) in [(Matrix::Hessian, "hessian"), (Matrix::GaussNewton, "gauss_newton")] {
        let dense = Dense::of(&r, name);
        let model_layers = layers::layers(&r.network, Granularity::Block);
        assert_eq!(model_layers.len(), 5);
        let mut worst = 0f64;
        for (a, layer) in model_layers.iter().enumerate() {
            worst = worst.max(check(&r, &dense, layer, matrix));
            for other in &model_layers[a + 1..] {
                let pair = layers::join(&[layer.clone(), other.clone()]);
                worst = worst.max(check(&r, &dense, &pair, matrix));
            }
        }
        worst = worst.max(check(&r, &dense, &layers::join(&model_layers), matrix));
        println!("{name}: largest error {worst:.1e} of the largest entry");
        assert!(worst < 1e-13, "{name}: {worst:e}");
    }
}

fn draws(n: usize, count: usize) -> Vec<Vec<f64>> {
    let mut rng = planish::random::stream(5, "curvature tests");
    let mut draw = || planish::random::unit(&mut rng) - 0.5;
    (0..count).map(|_| (0..n).map(|_| draw()).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn whole(r: &Reference) -> Layer {
    layers::join(&layers::layers(&r.network, Granularity::Block))
}

#[test]
fn blocks_of_vectors_match_single_calls_bit_for_bit() {
    let r = reference();
    for dtype in [DType::F32, DType::F64] {
        let objective = r.objective(dtype, 3);
        let (examples, layer) = (r.examples(), whole(&r));
        for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
            let operator = LayerOperator::new(&objective, &examples, &layer, matrix);
            let vectors = draws(operator.dimension(), 11);
            let together = operator.apply(&vectors).unwrap();
            // For any block size.
            let tight = LayerOperator::new(&objective, &examples, &layer, matrix).within(0.0);
            assert_eq!((operator.block(), tight.block()), (8, 1));
            assert!(tight.mib(8) > tight.mib(1) && tight.mib(1) > 0.0);
            assert_eq!(tight.apply(&vectors).unwrap(), together);
            for (v, found) in vectors.iter().zip(&together) {
                let single = operator.apply(std::slice::from_ref(v)).unwrap().remove(0);
                assert!(single.iter().zip(found).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }
}

#[test]
fn matrices_are_symmetric_and_gauss_newton_is_semidefinite() {
    let r = reference();
    let objective = r.objective(DType::F64, 2);
    let (examples, layer) = (r.examples(), whole(&r));
    let mut negative = 0;
    for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
        let operator = LayerOperator::new(&objective, &examples, &layer, matrix);
        let vectors = draws(operator.dimension(), 40);
        let products = operator.apply(&vectors).unwrap();
        for (i, u) in vectors.iter().enumerate() {
            let j = (i + 1) % vectors.len();
            let (a, b) = (dot(u, &products[j]), dot(&vectors[j], &products[i]));
            let scale = (dot(u, u) * dot(&products[j], &products[j])).sqrt();
            assert!((a - b).abs() < 1e-14 * scale, "{matrix:?}: {a} and {b}");
            let curvature = dot(u, &products[i]);
            match matrix {
                Matrix::GaussNewton => assert!(curvature > -1e-14 * scale, "{curvature}"),
                Matrix::Hessian => negative += usize::from(curvature < 0.0),
            }
        }
    }
    // Otherwise the sign test would be trivial.
    assert!(negative > 0);
}

#[test]
fn head_operator_matches_softmax_regression() {
    let r = reference();
    let objective = r.objective(DType::F64, 3);
    let head = layers::select(&r.network, "head").unwrap().remove(0);
    let at = objective.activations(&r.examples(), head.first_stage).unwrap();
    let logits = objective.predict(&at).unwrap();
    let (classes, dim) = (r.network.classes(), r.network.activation_len(head.first_stage));
    let features = numbers(&at.values);
    let n = at.labels.len();
    for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
        let operator = LayerOperator::new(&objective, &at, &head, matrix);
        let v = draws(operator.dimension(), 1).remove(0);
        let found = operator.apply(std::slice::from_ref(&v)).unwrap().remove(0);
        // (1/n) Σ (diag(p) − ppᵀ) ⊗ x̃x̃ᵀ, x̃ = (x, 1). The weight comes before the bias.
        let mut expected = vec![0.0; v.len()];
        for (x, z) in features.chunks(dim).zip(logits.values().chunks(classes)) {
            let top = z.iter().fold(f64::MIN, |a, &b| a.max(b));
            let total: f64 = z.iter().map(|z| (z - top).exp()).sum();
            let p: Vec<f64> = z.iter().map(|z| (z - top).exp() / total).collect();
            let slope: Vec<f64> =
                (0..classes).map(|c| dot(&v[c * dim..][..dim], x) + v[classes * dim + c]).collect();
            let mean = dot(&p, &slope);
            for c in 0..classes {
                let h = p[c] * (slope[c] - mean) / n as f64;
                (0..dim).for_each(|d| expected[c * dim + d] += h * x[d]);
                expected[classes * dim + c] += h;
            }
        }
        let scale = dot(&expected, &expected).sqrt();
        let error: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        assert!(dot(&error, &error).sqrt() < 1e-14 * scale, "{matrix:?}");
    }
}

/// Images that get brighter with every read.
struct Drifting(Activations, AtomicUsize);

impl Examples for Drifting {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn stage(&self) -> usize {
        self.0.stage()
    }
    fn inputs(&self, range: Range<usize>) -> planish::objective::Result<Tensor> {
        let times = self.1.fetch_add(1, Ordering::Relaxed);
        Ok((self.0.inputs(range)? + times as f64)?)
    }
    fn labels(&self) -> &[u32] {
        self.0.labels()
    }
}

#[test]
fn the_probe_detects_changing_data() {
    let r = reference();
    let objective = r.objective(DType::F64, 2);
    let layer = whole(&r);
    let examples = r.examples();
    let probe = |e: &dyn Examples| {
        LayerOperator::new(&objective, e, &layer, Matrix::Hessian).probe(1).unwrap()
    };
    let steady = probe(&examples);
    assert!(steady.identical && steady.examples > 0);
    assert!(!probe(&Drifting(examples, AtomicUsize::new(0))).identical);
}

#[test]
fn a_product_that_is_not_finite_names_the_operation() {
    let r = reference();
    let objective = r.objective(DType::F32, 2);
    let examples = r.examples();
    let layer = layers::select(&r.network, "block.1").unwrap().remove(0);
    let operator = LayerOperator::new(&objective, &examples, &layer, Matrix::Hessian);
    let huge = vec![2.8e38; operator.dimension()];
    let error = operator.apply(&[huge]).unwrap_err();
    let planish::curvature::Error::Objective(Error::NonFiniteProduct { op, place, way, .. }) =
        &error
    else {
        panic!("{error}")
    };
    // The tangent of the block's first norm is v (x̂ + 1), and some x̂ is at least 1.
    assert_eq!((*op, place.as_str(), *way), ("layer_norm", "block.1, attention", "forward"));
    let short = operator.apply(&[vec![0.0; 3]]).unwrap_err();
    assert!(short.to_string().contains("found 3"), "{short}");
}
