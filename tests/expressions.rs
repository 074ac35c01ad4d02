//! Parameters as expressions of others: a low-rank update W + s·BA (LoRA, Hu et al. 2021) on a layer of
//! a small ViT, against the merged weight, the chain rule and central differences.

use candle_core::{DType, Device, Tensor};
use planish::engine::Engine;
use planish::models::{Init, Layer, Network, ParamId, Weights, arch};
use planish::objective::{Activations, Objective};
use planish::random::{stream, unit};
use planish_kernels::{Add, MatMul, Scale};
use std::sync::Arc;

const RANK: usize = 2;
const SCALE: f64 = 0.7;

fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let (found, expected) = (numbers(found), numbers(expected));
    let difference: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
    let error = norm(&difference) / norm(&expected);
    assert!(found.len() == expected.len() && error < tolerance, "{what}: {error}");
}

/// The plain network, and the one whose `target` is W + s·BA; the indices of W, A and B.
fn networks(target: &str) -> (Network, Network, [usize; 3]) {
    let mut config = arch::vit("vit_nano_patch7_14", 3, 1).unwrap();
    (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
    let plain = config.network().unwrap();
    let w = ParamId(plain.param(target).unwrap());
    let [rows, columns] = plain.params()[w.0].shape[..] else { panic!("expected a matrix") };
    let mut builder = config.declare();
    let normal = Init::Normal(0.5);
    let a = builder.param_beside(w, format!("{target}.lora_A"), &[RANK, columns], normal);
    let b = builder.param_beside(w, format!("{target}.lora_B"), &[rows, RANK], normal);
    builder.express(w, move |run, own| {
        let (b, a) = (run.param(b)?, run.param(a)?);
        let product = run.op(MatMul { products: run.products() }, &[&b, &a])?;
        let update = run.op(Scale { factor: SCALE }, &[&product])?;
        run.op(Add, &[&own, &update])
    });
    let adapted = Network::new(config.into(), builder, plain.input(), 3).unwrap();
    (plain, adapted, [w.0, a.0, b.0])
}

/// A seeded tensor of numbers in (−0.6, 0.6).
fn seeded(name: &str, shape: &[usize]) -> Tensor {
    let mut rng = stream(4, name);
    let values: Vec<f64> =
        (0..shape.iter().product()).map(|_| 1.2 * (unit(&mut rng) - 0.5)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn images() -> Activations {
    let labels: Vec<u32> = (0..6).map(|i| i % 3).collect();
    Activations { stage: 0, values: seeded("images", &[6, 1, 14, 14]), labels: labels.into() }
}

fn objective(network: Network, weights: Weights) -> Objective {
    Objective::new(Arc::new(network), weights, &Engine::cpu())
}

/// Both models at the same function: the adapted one, and the plain one with the merged weight.
fn models(target: &str) -> (Objective, Objective, [usize; 3]) {
    let (plain, adapted, ids @ [w, a, b]) = networks(target);
    let draw = |network: &Network| {
        network.params().iter().map(|p| seeded(&p.name, &p.shape)).collect::<Vec<_>>()
    };
    let weights = Weights::new(&adapted, draw(&adapted)).unwrap();
    let mut merged = draw(&plain);
    let update = weights.tensor(b).matmul(weights.tensor(a)).unwrap();
    merged[w] = (weights.tensor(w) + (update * SCALE).unwrap()).unwrap();
    let merged = Weights::new(&plain, merged).unwrap();
    (objective(adapted, weights), objective(plain, merged), ids)
}

fn layer(model: &Objective, tensors: &[usize]) -> Layer {
    let stage = model.network.params()[tensors[0]].stage;
    let (first_stage, last_stage) = (stage, stage);
    Layer { name: "adapter".into(), tensors: tensors.to_vec(), first_stage, last_stage }
}

#[test]
fn gradients_follow_the_chain_rule() {
    for target in ["blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight", "head.weight"] {
        let (adapted, merged, [w, a, b]) = models(target);
        let x = images();
        let logits = |model: &Objective| {
            Tensor::new(model.predict(&x).unwrap().values(), &Device::Cpu).unwrap()
        };
        assert_close("logits", &logits(&adapted), &logits(&merged), 1e-13);
        let found = adapted.gradient(&x, &layer(&adapted, &[w, a, b])).unwrap().gradient;
        let of_w = merged.gradient(&x, &layer(&merged, &[w])).unwrap().gradient.remove(0);
        assert_close("W", &found[0], &of_w, 1e-12);
        let [at, bt] = [a, b].map(|i| adapted.weights.tensor(i).t().unwrap());
        assert_close("A", &found[1], &(bt.matmul(&of_w).unwrap() * SCALE).unwrap(), 1e-12);
        assert_close("B", &found[2], &(of_w.matmul(&at).unwrap() * SCALE).unwrap(), 1e-12);
    }
}

#[test]
fn hessian_vector_products_match_central_differences() {
    let (model, _, [_, a, b]) = models("blocks.1.mlp.fc1.weight");
    let (x, own) = (images(), layer(&model, &[a, b]));
    let vector: Vec<Tensor> =
        own.tensors.iter().map(|&i| seeded("v", model.weights.tensor(i).dims())).collect();
    let found = model.hvp(&x, &own, &vector).unwrap().hvp;
    // Truncation h² and rounding ε/h are both about 1e-10.
    let step = 1e-5;
    let at = |sign: f64| {
        let moved: Vec<(usize, Tensor)> = own
            .tensors
            .iter()
            .zip(&vector)
            .map(|(&i, v)| (i, (model.weights.tensor(i) + (v * (sign * step)).unwrap()).unwrap()))
            .collect();
        model.at(model.weights.with(&moved)).gradient(&x, &own).unwrap().gradient
    };
    for ((found, up), down) in found.iter().zip(at(1.0)).zip(at(-1.0)) {
        let expected = ((up - down).unwrap() / (2.0 * step)).unwrap();
        assert_close("H v", found, &expected, 1e-7);
    }
}

#[test]
fn logits_are_linear_in_one_factor_of_the_head() {
    let (_, network, [w, a, b]) = networks("head.weight");
    let stage = network.params()[w].stage;
    let linear = |tensors: &[usize]| {
        let (first_stage, last_stage) = (stage, stage);
        let tensors = tensors.to_vec();
        network.is_linear_in(&Layer { name: "x".into(), tensors, first_stage, last_stage })
    };
    assert!(linear(&[w]) && linear(&[a]) && linear(&[b]) && linear(&[w, a]));
    assert!(!linear(&[a, b]));
    let objective = models("head.weight").0;
    assert_eq!(objective.dtype(), DType::F64);
}
