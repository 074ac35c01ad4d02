//! Losses, gradients and training with bf16 products, against PyTorch in f64 and planish in f32.

// Other test files use the rest.
#[allow(dead_code)]
#[path = "common/reference.rs"]
mod reference;
#[allow(dead_code)]
mod small;

use candle_core::DType;
use planish::diagnose::{Request, diagnose};
use planish::engine::Precision;
use planish::models::Granularity;
use planish::models::layers::{join, layers};
use planish::objective::{Activations, Objective};
use planish::train::Shape;
use planish::train::perturbation::{Perturber, StepRule};
use planish::train::pol::Pol;
use planish::train::run::{TrainSettings, train};
use planish::train::source::Source;
use reference::Reference;
use serde_json::Value;
use small::{dot, images, layer, numbers, plus};

fn in_bf16(model: &Objective) -> Objective {
    Objective { precision: Precision::Bf16, ..model.clone() }
}

/// ‖found − expected‖ / ‖expected‖.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    let difference = plus(found, -1.0, expected);
    (dot(&difference, &difference) / dot(expected, expected)).sqrt()
}

/// The models of tests/reference/parity/ with PyTorch's own bf16 results.
fn references() -> Vec<(Reference, Value)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let text = std::fs::read(folder.join("autocast.json")).unwrap();
    let autocast: Value = serde_json::from_slice(&text).unwrap();
    let files = autocast.as_object().unwrap().iter();
    let open = |name: &str| Reference::open(&folder.join(format!("parity/{name}.safetensors")));
    files.map(|(name, found)| (open(name), found.clone())).collect()
}

/// Rounding an operand has an error of at most 2⁻⁸, and a product rounds two. The forward pass has
/// 14 products in sequence (patches, six in each of two blocks, head), forward and backward have
/// 28. The squares of independent errors add up.
fn bound(products: f64) -> f64 {
    (2.0 * products).sqrt() * 2f64.powi(-8)
}

#[test]
fn values_and_gradients_match_pytorch_within_operand_rounding() {
    let mut sums = [0.0; 2];
    for (reference, autocast) in references() {
        let name = &reference.name;
        let model = in_bf16(&reference.objective(DType::F32, 16));
        let examples = reference.examples();
        let all = join(&layers(&model.network, Granularity::Block));
        let names = model.network.params();
        let found = model.gradient(&examples, &all).unwrap();
        let gradient = all.tensors.iter().flat_map(|&i| {
            reference::numbers(reference.get(&format!("gradient/{}", names[i].name)))
        });
        let logits = model.predict(&examples).unwrap().values().to_vec();
        let logits = error(&logits, &reference::numbers(reference.get("logits")));
        let loss = error(&[found.loss], &reference::numbers(reference.get("loss")));
        let gradient = error(&numbers(&found.gradient), &gradient.collect::<Vec<_>>());
        println!("{name:<12} logits {logits:.1e} loss {loss:.1e} gradient {gradient:.1e}");
        assert!(logits < bound(14.0) && loss < bound(14.0) / 2.0, "{name}");
        assert!(gradient < bound(28.0), "{name}: {gradient:e}");
        // f32 would not give differences this large.
        assert!(logits > 1e-4 && gradient > 1e-4, "{name}");
        sums[0] += gradient;
        sums[1] += autocast["gradient"].as_f64().unwrap();
    }
    // PyTorch also rounds the results of products.
    assert!(sums[0] < sums[1], "planish and PyTorch: {sums:?}");
}

#[test]
fn curvature_and_diagnosis_use_f32() {
    let model = small::model(DType::F32);
    let v = images(&model, 24);
    let all = layers(&model.network, Granularity::Block);
    let head = layer(&model, "head");
    let bf16 = in_bf16(&model);
    let direction = [model.weights.tensor(head.tensors[0]), model.weights.tensor(head.tensors[1])];
    let direction = direction.map(Clone::clone);
    let products = [&model, &bf16].map(|m| numbers(&m.hvp(&v, &head, &direction).unwrap().hvp));
    assert!(products[0] == products[1] && dot(&products[0], &products[0]) > 0.0);
    let found = [&model, &bf16].map(|m| {
        let request = Request::new(m, &v, &all, 7);
        serde_json::to_string(&diagnose(&request, &mut |_| ()).unwrap()).unwrap()
    });
    assert_eq!(found[0], found[1]);
}

/// Three epochs of PoL: perturbs the head with a line search and updates the last block.
fn trained(model: &Objective, images: &Activations) -> (f64, Vec<f64>) {
    let [head, block] = ["head", "block.1"].map(|name| layer(model, name));
    let perturber =
        Perturber::new(head.clone(), 0.2, StepRule::Search, images.labels.len(), 16, 5).unwrap();
    let mut method = Pol { update: block.clone(), perturber };
    let source = Source::held(&model.activations(images, 3).unwrap());
    let settings = TrainSettings { epochs: 3, batch_size: 8, lr: 0.02, ..TrainSettings::default() };
    let settings = TrainSettings { schedule: Shape::Constant, seed: 5, ..settings };
    let outcome = train(model, &mut method, &source, None, &settings, &mut |_| ()).unwrap();
    let after = model.exact().at(outcome.weights);
    let loss = after.gradient(images, &head).unwrap().loss;
    (loss, plus(&small::weights_of(&after, &block), -1.0, &small::weights_of(model, &block)))
}

#[test]
fn training_matches_f32_within_rounding() {
    let model = small::model(DType::F32);
    // Labels other than the model's own predictions, so that training changes the weights.
    let images = images(&model, 48);
    let labels = images.labels.iter().map(|y| (y + 1) % 3).collect();
    let images = Activations { labels, ..images };
    let start = model.gradient(&images, &layer(&model, "head")).unwrap().loss;
    let (f32, bf16) = (trained(&model, &images), trained(&in_bf16(&model), &images));
    println!("loss {start} before, {} in f32, {} in bf16", f32.0, bf16.0);
    println!("update: relative difference {:.1e}", error(&bf16.1, &f32.1));
    // The update is a sum of 18 gradients, each within the bound of one.
    assert!(f32.0 < start - 0.1);
    assert!((bf16.0 - f32.0).abs() < bound(28.0) * (start - f32.0));
    let distance = error(&bf16.1, &f32.1);
    assert!(distance > 1e-5 && distance < 2.0 * bound(28.0), "{distance}");
}
