//! Gradient accumulation for every method: the micro-batch size and the number of threads do not
//! change a step. Clipping, warm-up, momentum and weight decay are on.

// Other test files use the rest.
#[allow(dead_code)]
mod small;

use candle_core::{DType, Tensor};
use planish::models::layers::{features, join, select};
use planish::models::{Layer, Weights};
use planish::objective::Objective;
use planish::train::perturbation::{NoMinimum, StepRule};
use planish::train::recipe::{Recipe, ResolvedMethod};
use planish::train::run::{TrainEvent, TrainSettings, train};
use planish::train::sam::Variant;
use planish::train::source::Source;
use planish::train::{LoraOptions, Shape};
use small::{images, model, numbers, plus};

const B: usize = 10;

fn recipes(model: &Objective) -> Vec<(&'static str, Recipe)> {
    let layer = |names: &str| join(&select(&model.network, names).unwrap());
    let recipe = |method, perturb: Option<&str>, update: Layer, rule| Recipe {
        method,
        update,
        perturb: perturb.map(layer),
        gamma: 2.0,
        perturb_batch: 16,
        rule,
        no_minimum: NoMinimum::Reject,
        perturb_replacement: false,
        rho: 0.1,
        lora: LoraOptions::default(),
    };
    let newton = StepRule::Newton;
    let look = Variant::Look { every: 3, alpha: 0.7 };
    let sam = |variant, update| recipe(ResolvedMethod::Sam(variant), None, layer(update), newton);
    vec![
        ("sgd", recipe(ResolvedMethod::Sgd, None, layer("*"), newton)),
        (
            "pof",
            recipe(ResolvedMethod::Pof, Some("head"), features(&model.network), StepRule::Search),
        ),
        ("pol newton", recipe(ResolvedMethod::Pol, Some("block.0"), layer("block.1"), newton)),
        (
            "pol search",
            recipe(ResolvedMethod::Pol, Some("head"), layer("block.1"), StepRule::Search),
        ),
        ("pol p = u", recipe(ResolvedMethod::Pol, Some("norm"), layer("norm"), newton)),
        ("sam", sam(Variant::Plain, "*")),
        ("sam block", sam(Variant::Plain, "block.1,head")),
        ("asam", sam(Variant::Adaptive { eta: 0.01 }, "*")),
        ("looksam", sam(look, "*")),
        ("friendly-sam", sam(Variant::Friendly { sigma: 1.0, lambda: 0.9 }, "*")),
        (
            "sl-sam",
            recipe(ResolvedMethod::SlSam { share: 0.5 }, None, layer("*"), StepRule::Newton),
        ),
        ("sam-norm", sam(Variant::Norms, "*")),
    ]
}

/// Weights after `steps` steps on batches of ten, in micro-batches of `micro`.
fn run(model: &Objective, recipe: &Recipe, steps: usize, micro: usize) -> Weights {
    let model = Objective { micro_batch: micro, ..model.clone() };
    let all = images(&model, 2 * B);
    let settings = TrainSettings {
        // Two steps per epoch; one step if the batch is the whole set.
        epochs: steps.div_ceil(2),
        batch_size: B,
        lr: 0.1,
        schedule: Shape::Linear,
        warmup: 1.5,
        clip: Some(0.5),
        weight_decay: 0.01,
        seed: 7,
        ..TrainSettings::default()
    };
    let used: Vec<usize> = (0..if steps == 1 { B } else { 2 * B }).collect();
    let source = Source::held(&all.select(&used).unwrap());
    let mut method = recipe.build(&model.network, source.len(), settings.seed).unwrap();
    let mut step_count = 0;
    let outcome = train(&model, &mut *method, &source, None, &settings, &mut |event| {
        step_count +=
            usize::from(matches!(event, TrainEvent::Step { examples, .. } if examples > 0));
    });
    assert_eq!(step_count, steps);
    outcome.unwrap().weights
}

fn all(weights: &Weights) -> Vec<f64> {
    numbers(weights.iter().map(|(_, t)| t))
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn steps_do_not_depend_on_the_micro_batch_size() {
    let model = model(DType::F64);
    let start = all(&model.weights);
    for (name, recipe) in recipes(&model) {
        for steps in [1, 10] {
            let whole = all(&run(&model, &recipe, steps, B));
            let moved = norm(&plus(&whole, -1.0, &start));
            assert!(moved > 1e-3, "{name}: {moved}");
            for micro in [1, 3] {
                let found = all(&run(&model, &recipe, steps, micro));
                let error = norm(&plus(&found, -1.0, &whole)) / norm(&whole);
                println!("{name:10} {steps:2} steps, micro-batches of {micro}: {error:.1e}");
                assert!(error <= 1e-12, "{name}, {steps} steps, {micro}: {error:e}");
            }
        }
    }
}

#[test]
fn steps_are_bit_identical_for_any_number_of_threads() {
    let model = model(DType::F32);
    for (name, recipe) in recipes(&model) {
        let bits = |threads: usize| -> Vec<u32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let weights = pool.install(|| run(&model, &recipe, 4, 3));
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            weights.iter().flat_map(|(_, t)| flat(t)).map(f32::to_bits).collect()
        };
        let one = bits(1);
        assert!(bits(2) == one && bits(5) == one, "{name}");
    }
}

/// Clipping acts on the gradient of the step: a first step cannot be longer than the learning rate
/// allows.
#[test]
fn clipping_bounds_the_first_step() {
    let model = model(DType::F64);
    let start = all(&model.weights);
    for (name, recipe) in recipes(&model).into_iter().filter(|(n, _)| *n != "pol p = u") {
        let source = Source::held(&images(&model, B));
        let settings = TrainSettings {
            epochs: 1,
            batch_size: B,
            lr: 0.1,
            clip: Some(1e-3),
            ..TrainSettings::default()
        };
        let mut method = recipe.build(&model.network, B, 0).unwrap();
        let done = train(&model, &mut *method, &source, None, &settings, &mut |_| ());
        let outcome = done.unwrap();
        let length = norm(&plus(&all(&outcome.weights), -1.0, &start));
        // PyTorch's rule: the norm becomes max/(‖g‖ + 10⁻⁶)·‖g‖.
        let g = outcome.epochs[0].gradient_norm;
        assert!(g > 0.1, "{name}: {g}");
        assert!((length / (0.1 * 1e-3 * g / (g + 1e-6)) - 1.0).abs() < 1e-9, "{name}: {length}");
    }
}
