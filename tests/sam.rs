//! Compares SAM, its variants and SL-SAM with torch: weights after seven steps, in f64, with and without
//! clipping, warm-up, a decreasing rate and weight decay. See `tests/reference/make_sam.py`.

use candle_core::{DType, Device, Tensor};
use planish::engine::Engine;
use planish::models::layers::{join, select};
use planish::models::vit::{Activation, Config, FinalNorm, Pooling};
use planish::models::{Layer, Network, Weights};
use planish::objective::{Activations, Objective};
use planish::train::late::LateSam;
use planish::train::method::{Displacement, Method};
use planish::train::sam::{Sam, Variant};
use planish::train::sgd::Sgd;
use planish::train::sl_sam::SlSam;
use planish::train::{Error, Groups, OptimizerRule, Schedule, Shape, Source, Stepper};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

const STEPS: usize = 7;
const B: usize = 6;

/// Maximum error relative to the norm of the weight change. f64 differs from torch by the order of
/// sums, over seven steps.
const TOLERANCE: f64 = 1e-9;

struct Reference {
    tensors: HashMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/sam.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    Reference {
        tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap(),
        metadata: header.metadata().clone().unwrap(),
    }
}

impl Reference {
    fn json(&self, key: &str) -> Value {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }

    fn model(&self) -> Objective {
        let config = Config {
            image_size: [8, 8],
            patch_size: [4, 4],
            channels: 1,
            dim: 8,
            depth: 2,
            heads: 2,
            mlp_dim: 16,
            classes: 5,
            distillation: planish::models::vit::Distillation::None,
            class_token: true,
            registers: 0,
            position_covers_prefix: true,
            registers_without_position: false,
            position_resize: None,
            patch_bias: true,
            qkv_bias: true,
            layer_scale: false,
            post_norm: false,
            qk_norm: false,
            norm_pre: false,
            final_norm: FinalNorm::BeforePool,
            pooling: Pooling::Token,
            pool_prefix: false,
            activation: Activation::Gelu,
            eps: self.json("config")["eps"].as_f64().unwrap(),
        };
        let network = config.network().unwrap();
        let tensors = network.params().iter().map(|param| {
            self.tensors[&format!("model/{}", param.name)].to_dtype(DType::F64).unwrap()
        });
        let weights = Weights::new(&network, tensors.collect()).unwrap();
        Objective { micro_batch: 4, ..Objective::new(Arc::new(network), weights, &Engine::cpu()) }
    }

    fn batch(&self, step: usize) -> Activations {
        let labels: Vec<i64> = self.tensors["labels"].to_vec1().unwrap();
        let pixels = self.tensors["pixel_values"].narrow(0, step * B, B).unwrap();
        Activations {
            stage: 0,
            values: pixels.to_dtype(DType::F64).unwrap(),
            labels: labels[step * B..][..B].iter().map(|&l| l as u32).collect(),
        }
    }
}

/// SL-SAM that draws with the reference's random numbers.
fn sl_sam(case: &Value, draws: &Value, network: &Network, update: Layer) -> SlSam {
    let numbers = |draw: &Value| -> Vec<f64> {
        let of = |&i: &usize| draw[&network.params()[i].name].as_f64().unwrap();
        update.tensors.iter().map(of).collect()
    };
    let steps = draws.as_array().unwrap().iter().flat_map(|step| step.as_array().unwrap());
    let mut uniform = steps.flat_map(numbers).collect::<Vec<_>>().into_iter();
    let [rho, share] = ["rho", "share"].map(|key| case[key].as_f64().unwrap());
    SlSam::new(network, update, rho, share, move || uniform.next().unwrap())
}

fn method(case: &Value, network: &Network, update: Layer) -> Box<dyn Method> {
    let number = |key: &str| case[key].as_f64().unwrap();
    let variant = match case["method"].as_str().unwrap() {
        "sgd" => return Box::new(Sgd { update }),
        "sam" => Variant::Plain,
        "asam" => Variant::Adaptive { eta: number("eta") },
        "friendly-sam" => Variant::Friendly { sigma: number("sigma"), lambda: number("lmbda") },
        "looksam" => Variant::Look { every: number("every") as usize, alpha: number("alpha") },
        _ => Variant::Norms,
    };
    Box::new(Sam::new(network, update, variant, number("rho")).unwrap())
}

/// The steps of a case.
struct Steps<'a> {
    name: &'a str,
    losses: &'a Value,
    stepper: Stepper,
    reference: &'a Reference,
}

impl Steps<'_> {
    fn take(&mut self, method: &mut dyn Method, model: &mut Objective) {
        for step in 0..STEPS {
            let batch = self.reference.batch(step);
            let found = method.step(model, &Source::held(&batch), &batch).unwrap();
            let loss = self.losses[step].as_f64().unwrap();
            assert!((found.loss - loss).abs() < 1e-9 * loss, "{}, step {step}", self.name);
            let (layer, part) = (method.updated(), found.part.as_deref());
            self.stepper.step_part(model, layer, part, found.gradient).unwrap();
        }
    }
}

fn stepper(case: &Value, update: &Layer) -> Stepper {
    let number = |key: &str| case[key].as_f64().unwrap();
    let shape = match case["schedule"].as_str().unwrap() {
        "cosine" => Shape::Cosine,
        _ => Shape::Constant,
    };
    let warmup = number("warmup") as usize;
    let schedule = Schedule { shape, rate: number("rate"), warmup, steps: STEPS };
    let rule = OptimizerRule::Sgd { momentum: number("momentum"), nesterov: false };
    let groups = Groups::whole(update, rule, number("decay"));
    let groups = if case["method"] == "sl-sam" { groups.apart() } else { groups };
    Stepper::new(groups, schedule, case["clip"].as_f64(), STEPS)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn square(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum()
}

#[test]
fn every_variant_agrees_with_torch() {
    let reference = reference();
    let (cases, losses) = (reference.json("cases"), reference.json("losses"));
    let cases = cases.as_object().unwrap();
    assert_eq!(cases.len(), 14);
    let of_bandit = |case: &Value| case["method"] == "sl-sam";
    assert_eq!(cases.values().filter(|case| of_bandit(case)).count(), 2);
    for (name, case) in cases {
        let mut model = reference.model();
        let start = model.weights.clone();
        let parts = select(&model.network, case["update"].as_str().unwrap()).unwrap();
        let update = join(&parts);
        let mut steps = Steps {
            losses: &losses[name],
            stepper: stepper(case, &update),
            reference: &reference,
            name,
        };
        if of_bandit(case) {
            let draws = &reference.json("draws")[name];
            let mut method = sl_sam(case, draws, &model.network, update.clone());
            steps.take(&mut method, &mut model);
            let expected = &reference.json("probabilities")[name];
            for (&i, p) in update.tensors.iter().zip(method.probabilities()) {
                let expected = expected[&model.network.params()[i].name].as_f64().unwrap();
                assert!((p - expected).abs() < 1e-9, "{name}: {p} {expected}");
            }
        } else {
            steps.take(&mut *method(case, &model.network, update.clone()), &mut model);
        }
        let (mut error, mut moved) = (0.0, 0.0);
        for (i, (tensor, found)) in model.weights.iter().enumerate() {
            let before = numbers(start.tensor(i));
            let found = numbers(found);
            let Some(expected) = reference.tensors.get(&format!("{name}/{tensor}")) else {
                assert!(!update.tensors.contains(&i) && found == before, "{name}: {tensor}");
                continue;
            };
            assert!(update.tensors.contains(&i), "{name}: {tensor}");
            let expected = numbers(expected);
            error += square(found.iter().zip(&expected).map(|(a, b)| a - b));
            moved += square(expected.iter().zip(&before).map(|(a, b)| a - b));
        }
        let relative = (error / moved).sqrt();
        println!("{name:13} {relative:.1e} of a move of {:.2}", moved.sqrt());
        assert!(moved.sqrt() > 0.4 && relative < TOLERANCE, "{name}: {relative:e}");
    }
}

/// SAM's ε has length ρ: compares the gradients before and after the ascent step.
#[test]
fn the_ascent_step_has_length_rho_and_increases_the_loss() {
    let reference = reference();
    let model = reference.model();
    let batch = reference.batch(0);
    let source = Source::held(&batch);
    let all = join(&select(&model.network, "*").unwrap());
    let norm = square(model.weights.iter().flat_map(|(_, t)| numbers(t))).sqrt();
    let plain = model.gradient(&batch, &all).unwrap().loss;
    let mut last = plain;
    for rho in [0.01, 0.05, 0.1] {
        let mut sam = Sam::new(&model.network, all.clone(), Variant::Plain, rho).unwrap();
        let step = sam.step(&model, &source, &batch).unwrap();
        let Some(Displacement::Ascent { length, relative: Some(relative) }) = step.perturbation
        else {
            panic!("SAM reports its ascent step")
        };
        assert!((length / rho - 1.0).abs() < 1e-12, "{length}");
        assert!((relative * norm / rho - 1.0).abs() < 1e-12, "{relative}");
        assert!(step.loss > last, "{rho}: {} after {last}", step.loss);
        last = step.loss;
    }
}

#[test]
fn a_layer_of_zeros_is_perturbed() {
    let mut model = reference().model();
    let batch = reference().batch(0);
    let head = select(&model.network, "head").unwrap().remove(0);
    for &i in &head.tensors {
        let zeros = model.weights.tensor(i).zeros_like().unwrap();
        model.weights.set(i, zeros);
    }
    let source = Source::held(&batch);
    let plain = model.gradient(&batch, &head).unwrap().loss;
    // ε = ρ g/‖g‖, and for ASAM, whose T is η where w is 0, ε = ρ η g/‖g‖.
    for (variant, length) in [(Variant::Plain, 0.1), (Variant::Adaptive { eta: 0.01 }, 0.001)] {
        let mut sam = Sam::new(&model.network, head.clone(), variant, 0.1).unwrap();
        let step = sam.step(&model, &source, &batch).unwrap();
        let Some(Displacement::Ascent { length: found, relative: None }) = step.perturbation else {
            panic!("{:?}", step.perturbation)
        };
        assert!((found / length - 1.0).abs() < 1e-6, "{variant:?}: {found}");
        assert!(step.loss > plain);
    }
}

/// With σ = 0 nothing is removed from g, and with s = 1 all tensors are drawn.
#[test]
fn friendly_sam_and_sl_sam_contain_sam() {
    let reference = reference();
    let model = reference.model();
    let all = join(&select(&model.network, "*").unwrap());
    let make = |variant| Sam::new(&model.network, all.clone(), variant, 0.1).unwrap();
    let mut sam = make(Variant::Plain);
    let mut friendly = make(Variant::Friendly { sigma: 0.0, lambda: 0.9 });
    let mut sparse = SlSam::new(&model.network, all.clone(), 0.1, 1.0, || 0.999);
    for step in 0..3 {
        let batch = reference.batch(step);
        let source = Source::held(&batch);
        let methods: [&mut dyn Method; 3] = [&mut sam, &mut friendly, &mut sparse];
        let [a, b, c] = methods.map(|m| m.step(&model, &source, &batch).unwrap());
        assert_eq!(c.part, Some((0..all.tensors.len()).collect()));
        for other in [b, c] {
            let same = |(a, b)| numbers(a) == numbers(b);
            assert!(a.gradient.iter().zip(&other.gradient).all(same), "step {step}");
        }
    }
}

#[test]
fn a_late_phase_takes_plain_steps_first() {
    let reference = reference();
    let model = reference.model();
    let all = join(&select(&model.network, "*").unwrap());
    let sgd = || Sgd { update: all.clone() };
    let sam = || Sam::new(&model.network, all.clone(), Variant::Plain, 0.1).unwrap();
    let mut late = LateSam { first: sgd(), last: sam(), remaining: 2 };
    for step in 0..4 {
        let batch = reference.batch(step);
        let source = Source::held(&batch);
        let take = |method: &mut dyn Method| method.step(&model, &source, &batch).unwrap();
        let expected = if step < 2 { take(&mut sgd()) } else { take(&mut sam()) };
        let found = take(&mut late);
        assert_eq!(found.perturbation, expected.perturbation);
        let same = |(a, b)| numbers(a) == numbers(b);
        assert!(found.gradient.iter().zip(&expected.gradient).all(same), "step {step}");
    }
}

#[test]
fn looksam_with_k_1_is_sam() {
    let reference = reference();
    let model = reference.model();
    let all = join(&select(&model.network, "*").unwrap());
    let make = |variant| Sam::new(&model.network, all.clone(), variant, 0.1).unwrap();
    let mut sam = make(Variant::Plain);
    let mut look = make(Variant::Look { every: 1, alpha: 0.7 });
    for step in 0..3 {
        let batch = reference.batch(step);
        let source = Source::held(&batch);
        let [a, b] = [&mut sam, &mut look].map(|m| m.step(&model, &source, &batch).unwrap());
        assert!(a.gradient.iter().zip(&b.gradient).all(|(a, b)| numbers(a) == numbers(b)));
    }
}

#[test]
fn sam_norm_needs_a_normalisation_layer() {
    let model = reference().model();
    let head = select(&model.network, "head").unwrap().remove(0);
    let refused = Sam::new(&model.network, head, Variant::Norms, 0.5);
    assert!(matches!(refused, Err(Error::NoNorms { layer }) if layer == "head"));
}
