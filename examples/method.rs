//! A custom post-training method: SGD with normalized gradients.
//!
//! A method defines the layer it updates and how it computes the gradient. The training loop draws
//! batches, clips, schedules the learning rate, updates the weights and guards the run.
//!
//! cargo run --release --example method

use planish::models::Layer;
use planish::objective::{Activations, Objective};
use planish::prelude::*;
use planish::train::run::{self, TrainSettings};
use planish::train::{Method, Source, Step};
use planish::vector::norm;

/// g / ‖g‖: the length of each step is the learning rate.
struct NormalizedSgd {
    update: Layer,
}

impl Method for NormalizedSgd {
    fn name(&self) -> &'static str {
        "normalized-sgd"
    }

    fn updated(&self) -> &Layer {
        &self.update
    }

    fn step(
        &mut self,
        model: &Objective,
        _: &Source,
        batch: &Activations,
    ) -> planish::objective::Result<Step> {
        let found = model.gradient(batch, &self.update)?;
        let length = norm(&found.gradient)?.max(f64::MIN_POSITIVE);
        let scaled = found.gradient.iter().map(|g| g / length);
        let gradient = scaled.collect::<candle_core::Result<_>>()?;
        Ok(Step { loss: found.loss, gradient, perturbation: None, part: None })
    }
}

fn main() -> Result<()> {
    let checkpoint = Checkpoint::open("assets/model".as_ref(), &Load::default())?;
    let options = DataOptions { data: vec!["assets/data".into()], ..DataOptions::default() };
    let roles = Data::open(&options, &checkpoint)?.roles(&checkpoint, 0)?;
    let train = require(Role::Train, roles.train.as_ref())?;
    let model = objective(&checkpoint, DType::F32, &Engine::cpu())?;
    let mut method = NormalizedSgd { update: select(&checkpoint.network, "norm")?.remove(0) };

    // The frozen layers run once. Training starts from their outputs.
    let images = pixels(&checkpoint, train)?;
    let below = model.activations(&images, method.update.first_stage)?;
    let settings = TrainSettings { epochs: 3, lr: 0.05, ..TrainSettings::default() };
    let outcome =
        run::train(&model, &mut method, &Source::held(&below), None, &settings, &mut |_| {})?;
    for epoch in outcome.epochs {
        println!("epoch {}: training loss {:.4}", epoch.epoch, epoch.training_loss);
    }
    Ok(())
}
