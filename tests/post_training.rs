//! Post-training step by step: the perturbation, and which weights a step changes.

mod small;

use candle_core::{DType, Tensor};
use planish::data::order::Batches;
use planish::models::layers::features;
use planish::models::{Layer, Weights};
use planish::objective::{Activations, Objective};
use planish::train::method::{Method, Step};
use planish::train::perturbation::{NoMinimum, Perturbation, Perturber, StepRule};
use planish::train::pof::Pof;
use planish::train::pol::Pol;
use planish::train::run::{self, TrainEvent, TrainSettings};
use planish::train::sgd::Sgd;
use planish::train::source::Source;
use small::{
    cross_entropies, dot, images, layer, mean, model, numbers, plus, weights_of, with_weights,
};

const SEED: u64 = 5;

fn perturber(layer: &Layer, gamma_max: f64, rule: StepRule, n: usize, batch: usize) -> Perturber {
    Perturber::new(layer.clone(), gamma_max, rule, n, batch, SEED).unwrap()
}

/// A perturber with a cap instead of rejections.
fn capping(layer: &Layer, gamma_max: f64, rule: StepRule, n: usize, batch: usize) -> Perturber {
    let mut perturber = perturber(layer, gamma_max, rule, n, batch);
    perturber.no_minimum = NoMinimum::Cap;
    perturber
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// The result of a perturbation: its record, Δw, and B′ with its gradient, recomputed
/// independently.
struct Observed {
    record: Perturbation,
    change: Vec<f64>,
    batch: Activations,
    gradient: Vec<f64>,
}

/// Perturbations with a cap.
fn perturbations(
    model: &Objective,
    layer: &Layer,
    gamma_max: f64,
    rule: StepRule,
    times: usize,
) -> Vec<Observed> {
    observe(model, &mut capping(layer, gamma_max, rule, 48, 16), 16, times)
}

fn observe(
    model: &Objective,
    perturber: &mut Perturber,
    batch: usize,
    times: usize,
) -> Vec<Observed> {
    let all = images(model, 48);
    let layer = perturber.layer.clone();
    let source = Source::held(&all);
    let batches = Batches::new(48, batch, SEED, "B'").unwrap().take(times);
    batches
        .map(|indices| {
            let (moved, record) = perturber.perturb(model, &source).unwrap();
            let batch = all.select(&indices).unwrap();
            let gradient = numbers(&model.gradient(&batch, &layer).unwrap().gradient);
            let change = plus(&weights_of(&moved, &layer), -1.0, &weights_of(model, &layer));
            Observed { record, change, batch, gradient }
        })
        .collect()
}

#[test]
fn a_perturbation_descends_the_batch_gradient_past_the_minimum() {
    let model = model(DType::F64);
    for name in ["head", "norm", "block.1"] {
        let layer = layer(&model, name);
        let start = weights_of(&model, &layer);
        let mut inside = 0;
        for observed in perturbations(&model, &layer, 2.0, StepRule::Search, 6) {
            let (length, slope) = (norm(&observed.change), norm(&observed.gradient));
            let cosine = dot(&observed.change, &observed.gradient) / (length * slope);
            assert!((cosine + 1.0).abs() < 1e-9, "{name}: {cosine}");
            assert!((length - observed.record.length).abs() < 1e-9 * length);
            assert!((length / norm(&start) - observed.record.relative.unwrap()).abs() < 1e-9);
            if observed.record.limited {
                continue;
            }
            inside += 1;
            let eta = observed.record.eta;
            assert!((length / (observed.record.gamma * eta * slope) - 1.0).abs() < 1e-9, "{name}");
            let loss = |eta: f64| {
                let w = plus(&start, -eta, &observed.gradient);
                mean(&cross_entropies(&with_weights(&model, &layer, &w), &observed.batch))
            };
            let cap = 0.5 * norm(&start) / slope;
            // Only the basin of w*; there may be others further along the line.
            let grid: Vec<f64> = (0..=600).map(|k| loss(cap * f64::from(k) / 600.0)).collect();
            let rising = grid.windows(2).position(|w| w[1] > w[0]);
            let least = grid[rising.unwrap_or(600)];
            assert!(loss(eta) < loss(0.0), "{name}");
            assert!(loss(eta) <= least * (1.0 + 1e-3), "{name}: {} {least}", loss(eta));
        }
        assert!(inside > 0, "{name}: every search was capped");
    }
}

#[test]
fn a_layer_of_zeros_is_perturbed_past_its_minimum() {
    let model = model(DType::F64);
    for name in ["head", "head.bias"] {
        let layer = layer(&model, name);
        let zeros = vec![0.0; weights_of(&model, &layer).len()];
        let zeroed = with_weights(&model, &layer, &zeros);
        for rule in [StepRule::Search, StepRule::Newton] {
            let mut inside = 0;
            for observed in perturbations(&zeroed, &layer, 2.0, rule, 6) {
                let Perturbation { eta, gamma, length, relative, limited, .. } = observed.record;
                assert_eq!(relative, None);
                let slope = norm(&observed.gradient);
                assert!(
                    (norm(&observed.change) / (gamma * eta * slope) - 1.0).abs() < 1e-9,
                    "{name}"
                );
                assert!((length / norm(&observed.change) - 1.0).abs() < 1e-9, "{name}");
                let loss = |eta: f64| {
                    let w = plus(&zeros, -eta, &observed.gradient);
                    mean(&cross_entropies(&with_weights(&zeroed, &layer, &w), &observed.batch))
                };
                // A head of zeros gives logits of 0.
                let start = loss(0.0);
                assert!(name != "head" || (start - 3f64.ln()).abs() < 1e-12, "{start}");
                let widest = 2.0 * start / (slope * slope);
                assert!(eta <= widest * (1.0 + 1e-9), "{name}: {eta} {widest}");
                if !limited && rule == StepRule::Search {
                    inside += 1;
                    let grid = (0..=1000).map(|k| loss(widest * f64::from(k) / 1000.0));
                    let least = grid.fold(f64::INFINITY, f64::min);
                    assert!(loss(eta) < start && loss(eta) <= least * (1.0 + 1e-3), "{name}");
                }
            }
            assert!(rule == StepRule::Newton || inside > 0, "{name}: every search was capped");
        }
    }
}

#[test]
fn a_layer_initialised_to_zeros_keeps_its_limit() {
    let model = model(DType::F64);
    let bias = layer(&model, "head.bias");
    let zeroed = with_weights(&model, &bias, &[0.0; 3]);
    let all = images(&model, 48);
    let source = Source::held(&all);
    let mut method = pol(&bias, &bias, 48);
    let (mut lengths, mut shares) = (Vec::new(), Vec::new());
    let on_event = &mut |event: TrainEvent| {
        if let TrainEvent::Epoch(epoch) = event {
            lengths.push(epoch.perturbation_length.unwrap());
            shares.push(epoch.perturbation);
        }
    };
    run::train(&zeroed, &mut method, &source, None, &settings(3, 16), on_event).unwrap();
    assert_eq!(shares, [None; 3]);
    // Half of the bias change over three steps would be far less than the first perturbation.
    assert!(lengths.iter().all(|l| *l > 0.2 * lengths[0]), "{lengths:?}");
}

#[test]
fn the_newton_rule_minimises_the_quadratic() {
    let model = model(DType::F64);
    let layer = layer(&model, "norm");
    let observed = perturbations(&model, &layer, 1e-3, StepRule::Newton, 4);
    assert!(observed.iter().any(|s| !s.record.limited));
    for s in observed.iter().filter(|s| !s.record.limited) {
        // H g by central differences of the gradient.
        let slope = |h: f64| {
            let w = plus(&weights_of(&model, &layer), h, &s.gradient);
            let shifted = with_weights(&model, &layer, &w);
            numbers(&shifted.gradient(&s.batch, &layer).unwrap().gradient)
        };
        let curvature = dot(&s.gradient, &plus(&slope(1e-4), -1.0, &slope(-1e-4))) / 2e-4;
        let eta = dot(&s.gradient, &s.gradient) / curvature;
        assert!((s.record.eta / eta - 1.0).abs() < 1e-5, "{:?} {eta}", s.record);
    }
}

#[test]
fn a_perturbation_never_exceeds_half_the_weights() {
    let model = model(DType::F64);
    let layer = layer(&model, "head");
    let start = norm(&weights_of(&model, &layer));
    for (gamma_max, least_capped) in [(2.0, 0), (200.0, 20)] {
        let observed = perturbations(&model, &layer, gamma_max, StepRule::Newton, 30);
        for s in &observed {
            let requested = s.record.gamma * s.record.eta * norm(&s.gradient);
            assert!(norm(&s.change) <= 0.5 * start * (1.0 + 1e-12));
            assert!(!s.record.limited || requested >= norm(&s.change) * (1.0 - 1e-12));
            assert_eq!(s.record.limited, requested > 0.5 * start, "{:?}", s.record);
        }
        assert!(observed.iter().filter(|s| s.record.limited).count() >= least_capped);
    }
}

/// Along the gradient of one image, the loss of a linear layer falls for good. With more images it has a
/// minimum, since their labels are drawn at random.
#[test]
fn without_a_minimum_within_reach_nothing_is_perturbed() {
    let model = model(DType::F64);
    let head = layer(&model, "head");
    let w = weights_of(&model, &head);
    for (rule, batch) in [
        (StepRule::Search, 1),
        (StepRule::Search, 16),
        (StepRule::Newton, 1),
        (StepRule::Newton, 16),
    ] {
        let mut rejections = 0;
        for s in observe(&model, &mut perturber(&head, 2.0, rule, 48, batch), batch, 3) {
            assert_eq!(s.record.capped(), None);
            let slope = norm(&s.gradient);
            let loss = |eta: f64| {
                let w = plus(&w, -eta, &s.gradient);
                mean(&cross_entropies(&with_weights(&model, &head, &w), &s.batch))
            };
            let reach = norm(&w) / slope;
            let rejected = s.record.rejected().unwrap();
            rejections += usize::from(rejected);
            // The loss is convex: it has a minimum within reach if it rises there.
            let rises = loss(reach) > loss(0.999 * reach);
            assert!(rule == StepRule::Newton || rejected != rises, "{:?}", s.record);
            if rejected {
                assert_eq!((norm(&s.change), s.record.eta, s.record.length), (0.0, 0.0, 0.0));
            } else {
                let expected = s.record.gamma * s.record.eta * slope;
                assert!((norm(&s.change) / expected - 1.0).abs() < 1e-9);
                assert!(s.record.eta <= reach * (1.0 + 1e-12));
            }
        }
        let expected = if batch == 1 { 3 } else { 0 };
        assert!(rule == StepRule::Newton || rejections == expected, "{batch}: {rejections}");
    }
}

/// A rejected step is the control's.
#[test]
fn a_rejected_step_is_taken_without_a_perturbation() {
    let model = model(DType::F64);
    let source = Source::held(&images(&model, 48));
    let [head, block] = ["head", "block.1"].map(|name| layer(&model, name));
    let s = settings(1, 16);
    let control = train(&model, &mut Sgd { update: block.clone() }, &source, &s);
    let mut shares = Vec::new();
    let mut tell = |event: TrainEvent| {
        if let TrainEvent::Epoch(epoch) = event {
            shares.push((epoch.rejected, epoch.capped, epoch.perturbation, epoch.eta));
        }
    };
    // Batches B′ of one image, so that no search finds a minimum.
    let perturber = perturber(&head, 2.0, StepRule::Search, 48, 1);
    let mut method = Pol { update: block, perturber };
    let after = run::train(&model, &mut method, &source, None, &s, &mut tell).unwrap().weights;
    assert_eq!(shares, [(Some(1.0), None, None, None)]);
    assert_eq!(distance(&after, &control), 0.0);
}

#[test]
fn gamma_is_uniform() {
    let model = model(DType::F64);
    let head = layer(&model, "head");
    let all = images(&model, 8);
    let source = Source::held(&model.activations(&all, head.first_stage).unwrap());
    let mut perturber = perturber(&head, 2.0, StepRule::Newton, 8, 2);
    let gammas: Vec<f64> =
        (0..2000).map(|_| perturber.perturb(&model, &source).unwrap().1.gamma).collect();
    assert!(gammas.iter().all(|g| (0.0..2.0).contains(g)));
    // A uniform variable on (0, 2) has mean 1, variance 1/3, and a squared deviation from 1 with
    // variance 1/5 − 1/9.
    let error = |variance: f64| 4.0 * (variance / 2000.0).sqrt();
    let square = mean(&gammas.iter().map(|g| (g - 1.0).powi(2)).collect::<Vec<_>>());
    assert!((mean(&gammas) - 1.0).abs() < error(1.0 / 3.0));
    assert!((square - 1.0 / 3.0).abs() < error(1.0 / 5.0 - 1.0 / 9.0));
}

fn settings(epochs: usize, batch_size: usize) -> TrainSettings {
    TrainSettings { epochs, batch_size, lr: 0.1, seed: SEED, ..TrainSettings::default() }
}

fn train(
    model: &Objective,
    method: &mut dyn Method,
    source: &Source,
    s: &TrainSettings,
) -> Weights {
    run::train(model, method, source, None, s, &mut |_| ()).unwrap().weights
}

fn pol(perturb: &Layer, update: &Layer, n: usize) -> Pol {
    let perturber = perturber(perturb, 2.0, StepRule::Search, n, 16);
    Pol { update: update.clone(), perturber }
}

/// Largest difference between two sets of weights.
fn distance(a: &Weights, b: &Weights) -> f64 {
    let of = |w: &Weights| numbers(w.iter().map(|(_, t)| t));
    plus(&of(a), -1.0, &of(b)).into_iter().fold(0.0, |m, x| m.max(x.abs()))
}

#[test]
fn a_step_is_rate_times_gradient() {
    let (model, exact) = (model(DType::F32), model(DType::F64));
    let all = images(&model, 24);
    let source = Source::held(&all);
    let layer = layer(&model, "block.1");
    let (start, s) = (weights_of(&model, &layer), settings(1, 24));
    // One batch of all examples, so one step at the full rate; f32 rounds weights near 1 by 6e-8.
    let plain = train(&model, &mut Sgd { update: layer.clone() }, &source, &s);
    let gradient = numbers(&exact.gradient(&all, &layer).unwrap().gradient);
    let step = plus(&weights_of(&model.at(plain), &layer), -1.0, &start);
    let error = norm(&plus(&step, 0.1, &gradient));
    assert!(norm(&gradient) > 1e-2 && error < 1e-5 * norm(&gradient), "{error}");

    // p = u: the gradient of the perturbed point, applied to the unperturbed weights.
    let found = train(&model, &mut pol(&layer, &layer, 24), &source, &s);
    let mut repeated = perturber(&layer, 2.0, StepRule::Search, 24, 16);
    let moved = repeated.perturb(&model, &source).unwrap().0;
    let shifted = with_weights(&exact, &layer, &weights_of(&moved, &layer));
    let perturbed = numbers(&shifted.gradient(&all, &layer).unwrap().gradient);
    let step = plus(&weights_of(&model.at(found), &layer), -1.0, &start);
    let error = norm(&plus(&step, 0.1, &perturbed));
    assert!(error < 1e-5 * norm(&perturbed), "{error}");
    assert!(norm(&plus(&perturbed, -1.0, &gradient)) > 1e-3 * norm(&gradient));
}

#[test]
fn methods_only_change_their_layer() {
    let model = model(DType::F32);
    let source = Source::held(&images(&model, 48));
    let [head, block] = ["head", "block.1"].map(|name| layer(&model, name));
    let features = features(&model.network);
    let pof = Pof { features: features.clone(), perturber: pol(&head, &block, 48).perturber };
    let methods: [(Box<dyn Method>, &Layer); 3] = [
        (Box::new(pof), &features),
        (Box::new(pol(&head, &block, 48)), &block),
        (Box::new(Sgd { update: head.clone() }), &head),
    ];
    for (mut method, updated) in methods {
        let after = train(&model, &mut *method, &source, &settings(2, 8));
        for (i, (name, tensor)) in after.iter().enumerate() {
            let bits = |t: &Tensor| -> Vec<u32> {
                let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
                values.iter().map(|x| x.to_bits()).collect()
            };
            let same = bits(tensor) == bits(model.weights.tensor(i));
            assert_eq!(same, !updated.tensors.contains(&i), "{}: {name}", method.name());
        }
    }
}

/// A method that records its batches.
struct Recorder<M>(M, Vec<Vec<f64>>);

impl<M: Method> Method for Recorder<M> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn updated(&self) -> &Layer {
        self.0.updated()
    }
    fn step(
        &mut self,
        model: &Objective,
        source: &Source,
        batch: &Activations,
    ) -> planish::objective::Result<Step> {
        self.1.push(numbers([&batch.values]));
        self.0.step(model, source, batch)
    }
}

#[test]
fn methods_share_their_batches() {
    let model = model(DType::F32);
    let all = images(&model, 20);
    let source = Source::held(&all);
    let [head, block] = ["head", "block.1"].map(|name| layer(&model, name));
    let mut plain = Recorder(Sgd { update: block.clone() }, Vec::new());
    let mut perturbed = Recorder(pol(&head, &block, 20), Vec::new());
    train(&model, &mut plain, &source, &settings(3, 8));
    train(&model, &mut perturbed, &source, &settings(3, 8));
    // Two full batches per epoch; the last four images of each order are dropped.
    let expected: Vec<Vec<f64>> = Batches::new(20, 8, SEED, "B")
        .unwrap()
        .take(6)
        .map(|indices| numbers([&all.select(&indices).unwrap().values]))
        .collect();
    assert!(plain.1 == expected && perturbed.1 == expected);
}

#[test]
fn weights_only_depend_on_the_seed() {
    let model = model(DType::F32);
    let all = images(&model, 48);
    let [head, block] = ["head", "block.1"].map(|name| layer(&model, name));
    let run = |micro_batch: usize, seed: u64| {
        let model = Objective { micro_batch, ..model.clone() };
        let source = Source::held(&model.activations(&all, 3).unwrap());
        let s = TrainSettings { seed, ..settings(2, 8) };
        train(&model, &mut pol(&head, &block, 48), &source, &s)
    };
    let first = run(16, SEED);
    assert!(distance(&first, &model.weights) > 1e-2);
    assert_eq!(distance(&first, &run(16, SEED)), 0.0);
    // Twelve steps, each with a few f32 roundings near 1.
    assert!(distance(&first, &run(3, SEED)) < 1e-5, "micro-batches");
    assert!(distance(&first, &run(16, SEED + 1)) > 1e-4, "seed");
}
