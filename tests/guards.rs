//! When training stops, and which weights it keeps.

// Other test files use the rest.
#[allow(dead_code)]
mod small;

use candle_core::{DType, Device, Tensor};
use planish::models::Layer;
use planish::objective::{Activations, Examples, Objective};
use planish::train::run::{Outcome, TrainSettings, train};
use planish::train::sam::{Sam, Variant};
use planish::train::sgd::Sgd;
use planish::train::source::Source;
use planish::train::{Error, Keep, Method, Step};
use small::{cross_entropies, images, layer, mean, model, weights_of};

const B: usize = 8;

fn settings(epochs: usize, lr: f64) -> TrainSettings {
    TrainSettings { epochs, batch_size: B, lr, ..TrainSettings::default() }
}

fn run(
    model: &Objective,
    method: &mut dyn Method,
    settings: &TrainSettings,
    watched: Option<&dyn Examples>,
) -> planish::train::Result<Outcome> {
    let source = Source::held(&images(model, 24));
    train(model, method, &source, watched, settings, &mut |_| ())
}

/// A method with prescribed losses and the scaled gradient of SGD.
struct Script {
    inner: Sgd,
    losses: Vec<f64>,
    factor: f64,
    taken: usize,
}

impl Script {
    fn new(update: Layer, losses: &[f64], factor: f64) -> Self {
        Self { inner: Sgd { update }, losses: losses.to_vec(), factor, taken: 0 }
    }
}

impl Method for Script {
    fn name(&self) -> &'static str {
        "script"
    }
    fn updated(&self) -> &Layer {
        self.inner.updated()
    }
    fn step(
        &mut self,
        model: &Objective,
        source: &Source,
        batch: &Activations,
    ) -> planish::objective::Result<Step> {
        let mut step = self.inner.step(model, source, batch)?;
        for g in &mut step.gradient {
            *g = g.affine(self.factor, 0.0)?;
        }
        step.loss = self.losses[self.taken.min(self.losses.len() - 1)];
        self.taken += 1;
        Ok(step)
    }
}

#[test]
fn the_best_or_the_last_epoch_is_kept() {
    let model = model(DType::F32);
    let v = images(&model, 24);
    let head = layer(&model, "head");
    // An ascent direction: every epoch is worse than the previous one.
    for (keep, epoch) in [(Keep::Best, 1), (Keep::Last, 4)] {
        let mut worse = Script::new(head.clone(), &[1.0], -1.0);
        let settings = TrainSettings { keep, ..settings(4, 0.01) };
        let outcome = run(&model, &mut worse, &settings, Some(&v)).unwrap();
        let losses: Vec<f64> = outcome.epochs.iter().filter_map(|e| e.validation_loss).collect();
        assert_eq!(losses.len(), 4);
        assert!(losses.windows(2).all(|w| w[0] < w[1]), "{losses:?}");
        assert_eq!((outcome.epoch, outcome.stopped), (epoch, None));
        let kept = mean(&cross_entropies(&model.at(outcome.weights), &v));
        assert!((kept - losses[epoch - 1]).abs() < 1e-6);
    }
}

#[test]
fn nan_weights_stop_the_first_step() {
    let model = model(DType::F32);
    let head = layer(&model, "head");
    let mut weights = model.weights.clone();
    let nan = Tensor::full(f32::NAN, 3, &Device::Cpu).unwrap();
    weights.set(weights.index("head.bias").unwrap(), nan);
    let broken = model.at(weights);
    let all = images(&model, 24);
    let source = Source::held(&all);
    let sam = || Sam::new(&model.network, head.clone(), Variant::Plain, 0.05).unwrap();
    let methods: [Box<dyn Method>; 2] = [Box::new(Sgd { update: head.clone() }), Box::new(sam())];
    for mut method in methods {
        let train = |v: Option<&dyn Examples>, method: &mut dyn Method| {
            train(&broken, method, &source, v, &settings(2, 0.01), &mut |_| ())
        };
        let stopped = train(None, &mut *method).unwrap().stopped.unwrap();
        assert_eq!((stopped.epoch, stopped.step, stopped.reason.found), (1, 1, None));
        assert_eq!(stopped.reason.what, "training loss");
        // A validation loss of NaN before any step is an error of the checkpoint.
        assert!(matches!(train(Some(&all), &mut *method), Err(Error::Objective(_))));
    }
}

#[test]
fn divergence_in_the_first_epoch_keeps_the_initial_weights() {
    let model = model(DType::F32);
    let v = images(&model, 24);
    // After the final norm, nothing bounds the logits.
    let head = layer(&model, "head");
    let start = weights_of(&model, &head);
    for watched in [None, Some(&v as &dyn Examples)] {
        let mut sgd = Sgd { update: head.clone() };
        let outcome = run(&model, &mut sgd, &settings(5, 1e6), watched).unwrap();
        let stopped = outcome.stopped.unwrap();
        assert!(stopped.epoch == 1 && outcome.epoch == 0, "{stopped}");
        assert_eq!(weights_of(&model.at(outcome.weights), &head), start);
    }
}

#[test]
fn divergence_keeps_the_previous_epoch() {
    let model = model(DType::F32);
    let head = layer(&model, "head");
    let v = images(&model, 24);
    // Three steps per epoch. Three classes: ln 3 + 1 = 2.0986, more than three times 0.5.
    let good = [0.5; 6];
    for (bad, limit) in [(f64::NAN, None), (f64::INFINITY, None), (5.0, Some(2.0986))] {
        let losses = [&good[..], &[bad; 9]].concat();
        for keep in [Keep::Best, Keep::Last] {
            let mut method = Script::new(head.clone(), &losses, 1.0);
            let settings = TrainSettings { keep, ..settings(6, 0.05) };
            let outcome = run(&model, &mut method, &settings, Some(&v)).unwrap();
            let stopped = outcome.stopped.unwrap();
            // Nine steps, 6·0.5 and 3·5, have mean 2; one more epoch exceeds the limit.
            let expected = if limit.is_some() { (4, 3) } else { (3, 1) };
            assert_eq!((stopped.epoch, stopped.step), expected);
            assert_eq!(stopped.reason.limit.map(|l| (l * 1e4).round() / 1e4), limit);
            assert!(outcome.epoch > 0 && outcome.epoch < stopped.epoch);
            assert_eq!(outcome.epochs.len(), stopped.epoch - 1);
        }
    }
    // Gradients that are not finite, with a finite loss.
    let mut method = Script::new(head.clone(), &[0.5], f64::INFINITY);
    let outcome = run(&model, &mut method, &settings(2, 0.05), None).unwrap();
    assert_eq!(outcome.stopped.unwrap().reason.what, "gradient norm");
}

#[test]
fn a_last_step_that_overflows_is_not_kept() {
    let model = model(DType::F32);
    let head = layer(&model, "head");
    // A single step: its loss and gradient are finite, but the weights overflow.
    let mut method = Script::new(head.clone(), &[0.5], 1e30);
    let settings = TrainSettings { batch_size: 24, ..settings(1, 1e20) };
    let outcome = run(&model, &mut method, &settings, None).unwrap();
    assert_eq!(outcome.stopped.unwrap().reason.what, "weights' norm");
    assert_eq!(weights_of(&model.at(outcome.weights), &head), weights_of(&model, &head));
}

#[test]
fn a_diverging_validation_loss_stops_the_run() {
    let model = model(DType::F32);
    let head = layer(&model, "head");
    let v = images(&model, 24);
    // The reported training loss decreases, while the actual loss increases strongly.
    let mut method = Script::new(head, &[0.5], -1.0);
    let outcome = run(&model, &mut method, &settings(20, 1.0), Some(&v)).unwrap();
    let stopped = outcome.stopped.unwrap();
    assert_eq!(stopped.reason.what, "validation loss");
    let start = mean(&cross_entropies(&model, &v));
    let limit = (3.0 * start).max(3f64.ln() + 1.0);
    assert!((stopped.reason.limit.unwrap() / limit - 1.0).abs() < 1e-6);
    assert!(stopped.reason.found.is_none_or(|found| found > limit));
    assert_eq!(outcome.epochs.len(), stopped.epoch);
    assert!(outcome.epoch < stopped.epoch);
}

#[test]
fn too_many_steps_are_rejected() {
    let model = model(DType::F32);
    let mut sgd = Sgd { update: layer(&model, "head") };
    let refused = run(&model, &mut sgd, &settings(usize::MAX, 0.1), None);
    assert!(matches!(refused, Err(Error::TooLong { steps: 3, .. })));
}
