//! Activation checkpointing: derivatives with recomputed blocks equal those with saved activations.

#[path = "common/reference.rs"]
#[allow(dead_code)]
mod reference;

use candle_core::{DType, Device, Tensor};
use planish::models::{Granularity, Layer, cost, layers};
use planish::objective::{Examples, LayerVectors, Matrix, Objective};
use reference::{Reference, numbers};
use std::path::Path;

fn open() -> Reference {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/hessian.safetensors");
    Reference::open(Path::new(file))
}

/// Two vectors per parameter of a layer.
fn vectors(objective: &Objective, layer: &Layer) -> Vec<Tensor> {
    let one = |(k, &i): (usize, &usize)| {
        let dims = objective.weights.tensor(i).dims();
        let shape: Vec<usize> = [2].iter().chain(dims).copied().collect();
        let n: usize = shape.iter().product();
        let all: Vec<f64> = (0..n).map(|j| ((j * 29 + 13 * k) as f64 * 0.73).sin()).collect();
        let block = Tensor::from_vec(all, shape, &Device::Cpu).unwrap();
        block.to_dtype(objective.dtype()).unwrap()
    };
    layer.tensors.iter().enumerate().map(one).collect()
}

fn bits(tensors: &[Tensor]) -> Vec<u64> {
    tensors.iter().flat_map(numbers).map(f64::to_bits).collect()
}

#[test]
fn recomputed_blocks_are_bit_identical() {
    let r = open();
    for dtype in [DType::F64, DType::F32] {
        let saving = r.objective(dtype, 3);
        let recomputing = Objective { checkpointing: true, ..saving.clone() };
        let mut chosen = layers::layers(&r.network, Granularity::Sublayer);
        chosen.extend(layers::select(&r.network, "block.*").unwrap());
        // Starting at the pixels, and at the output of the first block's attention.
        let stage_input = saving.activations(&r.examples(), 2).unwrap();
        for layer in &chosen {
            let stage_inputs: [&dyn Examples; 2] = [&r.examples(), &stage_input];
            for examples in stage_inputs.into_iter().filter(|e| e.stage() <= layer.first_stage) {
                let [a, b] = [&saving, &recomputing].map(|o| o.gradient(examples, layer).unwrap());
                assert_eq!(a.loss.to_bits(), b.loss.to_bits());
                assert_eq!(bits(&a.gradient), bits(&b.gradient), "{} {dtype:?}", layer.name);
                let v = vectors(&saving, layer);
                for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
                    let [a, b] = [&saving, &recomputing]
                        .map(|o| o.products(examples, layer, matrix, &v).unwrap().products);
                    assert_eq!(bits(&a), bits(&b), "{} {dtype:?} {matrix:?}", layer.name);
                }
            }
        }
    }
}

#[test]
fn products_of_many_layers_are_bit_identical() {
    let r = open();
    let saving = r.objective(DType::F32, 2);
    let recomputing = Objective { checkpointing: true, ..saving.clone() };
    let chosen = layers::layers(&r.network, Granularity::Block);
    let blocks: Vec<Vec<Tensor>> = chosen.iter().map(|layer| vectors(&saving, layer)).collect();
    let requests: Vec<LayerVectors> = chosen
        .iter()
        .zip(&blocks)
        .map(|(layer, vectors)| LayerVectors { layer, vectors })
        .collect();
    let [a, b] = [&saving, &recomputing]
        .map(|o| o.products_of_layers(&r.examples(), &requests, Matrix::Hessian).unwrap().concat());
    assert_eq!(bits(&a), bits(&b));
}

/// Between two blocks only their inputs are saved.
#[test]
fn saved_memory_grows_with_depth() {
    let config = planish::models::arch::named("vit_base_patch16_224", 100, 3).unwrap();
    let network = config.network().unwrap();
    let (all, recomputed) = (cost::saved_per_image(&network), cost::saved_checkpointed(&network));
    assert_eq!(network.stages(), 27);
    // The image; 12 inputs of 197 × 768 numbers, and the class token after the last block; in one
    // block, 8 such buffers and two that are four times as wide.
    assert_eq!(recomputed, 3 * 224 * 224 + (12 + 8 + 2 * 4) * 197 * 768 + 768);
    assert!(recomputed * 6 < all, "{recomputed} {all}");
}
