//! Products of all layers in one sweep against separate products.

#[path = "common/reference.rs"]
#[allow(dead_code)]
mod reference;

use candle_core::{DType, Device, Tensor};
use planish::models::{Granularity, layers};
use planish::objective::{LayerVectors, Matrix};
use reference::{Reference, numbers};
use std::path::Path;

/// Bit-identical products for two vectors at once; vᵀA v up to rounding.
#[test]
fn one_sweep_matches_separate_products() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/hessian.safetensors");
    let r = Reference::open(Path::new(file));
    for dtype in [DType::F64, DType::F32] {
        let objective = r.objective(dtype, 3);
        let mut selected = layers::layers(&r.network, Granularity::Block);
        selected.extend(layers::select(&r.network, "block.*").unwrap());
        selected.extend(layers::layers(&r.network, Granularity::Sublayer));
        let vectors: Vec<Vec<Tensor>> = (0..selected.len())
            .map(|l| {
                let tensor = |(k, &i): (usize, &usize)| {
                    let dims = objective.weights.tensor(i).dims();
                    let n = 2 * dims.iter().product::<usize>();
                    let draw = |j: usize| ((j * 37 + 11 * k + 5 * l) as f64 * 0.61).sin();
                    let shape: Vec<usize> = [2].iter().chain(dims).copied().collect();
                    let all: Vec<f64> = (0..n).map(draw).collect();
                    Tensor::from_vec(all, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
                };
                selected[l].tensors.iter().enumerate().map(tensor).collect()
            })
            .collect();
        let requests: Vec<LayerVectors> = selected
            .iter()
            .zip(&vectors)
            .map(|(layer, vectors)| LayerVectors { layer, vectors })
            .collect();
        let all = |t: &[Tensor]| t.iter().flat_map(numbers).collect::<Vec<f64>>();
        for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
            // Starting at the pixels, so that both use the same micro-batches.
            let together = objective.products_of_layers(&r.examples(), &requests, matrix).unwrap();
            let forms = objective.quadratic_forms(&r.examples(), &requests, matrix).unwrap();
            for ((a, found), curvature) in requests.iter().zip(&together).zip(forms) {
                let separate =
                    objective.products(&r.examples(), a.layer, matrix, a.vectors).unwrap().products;
                assert_eq!(all(found), all(&separate), "{} {dtype:?} {matrix:?}", a.layer.name);
                let first = |t: &[Tensor]| -> Vec<f64> {
                    t.iter().flat_map(|t| numbers(&t.get(0).unwrap())).collect()
                };
                let (v, product) = (first(a.vectors), first(found));
                let size: f64 = v.iter().zip(&product).map(|(v, p)| (v * p).abs()).sum();
                let sum: f64 = v.iter().zip(&product).map(|(v, p)| v * p).sum();
                let rounding = if dtype == DType::F64 { 1e-13 } else { 1e-5 };
                assert!((curvature - sum).abs() <= rounding * size, "{curvature} {sum}");
            }
        }
    }
}
