//! Epochs of post-training as the program runs them: B′ has twice the size of B, optimizer steps
//! included, the activations of PoL's frozen layers are cached on the GPU, and PoF's images are
//! uploaded during computation.

use super::machine::{median, numbers};
use super::{Outcome, Size};
use candle_core::{Device, Tensor};
use planish::models::layers::{features, select};
use planish::objective::{Activations, Objective};
use planish::train::perturbation::{NoMinimum, StepRule};
use planish::train::recipe::{Recipe, ResolvedMethod};
use planish::train::run::{TrainSettings, train};
use planish::train::{Keep, LoraOptions, Source};

/// Size of the training set for which epoch times are printed.
const IMAGES: usize = 50_000;
/// Number of timed steps.
const STEPS: usize = 4;

/// Prints the times; `product` is the rate of one large matrix product.
pub fn tell(size: &Size, objective: &Objective, product: f64) -> Outcome<()> {
    let precision = objective.precision.name();
    let network = &objective.network;
    let ([_, height, width], [classes, channels]) = (network.input(), size.shape);
    let shape = [STEPS * size.batch, channels, height, width];
    let images = Activations {
        stage: 0,
        values: Tensor::from_vec(numbers(shape.iter().product(), 2), &shape, &Device::Cpu)?,
        labels: (0..shape[0]).map(|i| (i % classes) as u32).collect::<Vec<_>>().into(),
    };
    let head = select(network, "head")?.remove(0);
    let last = network.last_block();
    println!(
        "\n| epochs of post-training, {precision} | ms a step | images/s | TFLOP/s | of one product \
         | of {IMAGES} images | peak MiB |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (method, update) in [(ResolvedMethod::Pol, last), (ResolvedMethod::Pof, features(network))]
    {
        let recipe = Recipe {
            method,
            update,
            perturb: Some(head.clone()),
            gamma: 2.0,
            perturb_batch: 2 * size.batch,
            rule: StepRule::Search,
            no_minimum: NoMinimum::Reject,
            perturb_replacement: false,
            rho: 0.0,
            lora: LoraOptions::default(),
        };
        let inputs = match recipe.first_stage() {
            0 => images.clone(),
            stage => objective.activations_on_device(&images, stage)?,
        };
        let source = Source::held(&inputs);
        let settings = TrainSettings {
            // Warm-up run.
            epochs: size.runs + 1,
            batch_size: size.batch,
            keep: Keep::Last,
            ..TrainSettings::default()
        };
        let mut method = recipe.build(network, source.len(), settings.seed)?;
        let done = train(objective, &mut *method, &source, None, &settings, &mut |_| {})?;
        let seconds = done.epochs.iter().skip(1).map(|epoch| epoch.seconds / STEPS as f64);
        let seconds = median(seconds.collect());
        let work = recipe.work(network, size.batch) * size.batch as f64;
        println!(
            "| {}, from the {} memory | {:.2} | {:.0} | {:.2} | {:.0} % | {:.1} s | {} |",
            recipe.method.name(),
            if inputs.values.device().is_cuda() { "GPU's" } else { "CPU's" },
            seconds * 1e3,
            size.batch as f64 / seconds,
            work / seconds / 1e12,
            100.0 * work / seconds / product,
            seconds * (IMAGES / size.batch) as f64,
            objective.engine.peak_mib().unwrap_or(0),
        );
    }
    Ok(())
}
