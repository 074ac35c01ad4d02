//! What a search along `toward` and `decay` costs, in forward passes of the same images.
//!
//! `cargo bench --bench remedies [IMAGES]` uses ViT-B/16 with random weights and pixels. It verifies a move
//! against the loss of a model with the moved weights, and then times the moves of single layers, and all
//! moves, beside forward passes in the same run.

#[path = "../src/bin/planish/allocator.rs"]
mod allocator;

use candle_core::{Device, Tensor};
use planish::engine::Engine;
use planish::evaluate::losses;
use planish::models::{Network, Weights, arch};
use planish::objective::{Activations, Objective};
use planish::random::{stream, unit};
use planish::remedies::{Direction, Remedy, RemedySession, remedies_work};
use planish::session::Context;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs per measurement; the median is printed.
const RUNS: usize = 3;

/// Towards other weights, and towards 0.
fn directions(network: &Network, weights: &Weights) -> Outcome<Vec<Arc<Direction>>> {
    let params = network.params();
    let other = Weights::random(network, 2)?;
    let is_product = |&i: &usize| params[i].shape.len() > 1 && params[i].name.ends_with(".weight");
    let products: Vec<usize> = (0..params.len()).filter(is_product).collect();
    let zeros = products
        .iter()
        .map(|&i| Ok((i, weights.tensor(i).zeros_like()?)))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let direction = |remedy, target, tensors| {
        Arc::new(Direction { remedy, target, tensors, checkpoint: None, notes: Vec::new() })
    };
    let toward = Remedy::Toward(PathBuf::from("other"));
    Ok(vec![
        direction(toward, other, (0..params.len()).collect()),
        direction(Remedy::Decay, weights.with(&zeros), products),
    ])
}

fn session(network: &Network, directions: Vec<Arc<Direction>>, joint: bool) -> RemedySession {
    RemedySession {
        directions,
        epochs: Vec::new(),
        training: None,
        layers: network.blocks(),
        joint: if joint { network.blocks() } else { Vec::new() },
        notes: Vec::new(),
    }
}

fn mean_loss(model: &Objective, images: &Activations) -> Outcome<f64> {
    let losses = losses(&model.predict(images)?, 1.0);
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// The last block towards the other weights: every point of its curve is the loss of those weights.
fn verify(model: &Objective, images: &Activations, directions: &[Arc<Direction>]) -> Outcome<()> {
    let block = model.network.last_block();
    let only = RemedySession {
        layers: vec![block.clone()],
        ..session(&model.network, vec![directions[0].clone()], false)
    };
    let found = only.measure(model, images, &Context::silent(0))?.moves.remove(0);
    for point in &found.curve {
        let moved = |&i: &usize| -> candle_core::Result<(usize, Tensor)> {
            let (own, target) = (model.weights.tensor(i), directions[0].target.tensor(i));
            Ok((i, (own + ((target - own)? * point.alpha)?)?))
        };
        let moved: Vec<(usize, Tensor)> =
            block.tensors.iter().map(moved).collect::<candle_core::Result<_>>()?;
        let loss = mean_loss(&model.at(model.weights.with(&moved)), images)?;
        if (loss - point.figures.nll).abs() > 1e-4 * loss {
            let found = point.figures.nll;
            return Err(format!("α = {}: a loss of {found}, not {loss}", point.alpha).into());
        }
    }
    Ok(())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() -> Outcome<()> {
    allocator::keep_pages();
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let count: usize = words.first().map_or(Ok(16), |word| word.parse())?;
    let network = arch::named("vit_base_patch16_224", 10, 3)?.network()?;
    let mut rng = stream(1, "pixels");
    let pixels: Vec<f32> =
        (0..count * 3 * 224 * 224).map(|_| (2.0 * unit(&mut rng) - 1.0) as f32).collect();
    let images = Activations {
        stage: 0,
        values: Tensor::from_vec(pixels, (count, 3, 224, 224), &Device::Cpu)?,
        labels: (0..count as u32).map(|i| i % 10).collect(),
    };
    let weights = Weights::random(&network, 1)?;
    let directions = directions(&network, &weights)?;
    let model = Objective::new(Arc::new(network), weights, &Engine::cpu());
    verify(&model, &images, &directions)?;
    let whole = planish::models::cost::forward(&model.network, 0..model.network.stages());
    for (name, joint) in [("single layers", false), ("all moves", true)] {
        let session = session(&model.network, directions.clone(), joint);
        let (mut seconds, mut passes) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let clock = Instant::now();
            mean_loss(&model, &images)?;
            let forward = clock.elapsed().as_secs_f64();
            let clock = Instant::now();
            session.measure(&model, &images, &Context::silent(0))?;
            seconds.push(clock.elapsed().as_secs_f64());
            passes.push(seconds[seconds.len() - 1] / forward);
        }
        println!(
            "{name}: {:.1} s for {count} images, {:.1} forward passes; by operations at most {:.1}",
            median(seconds),
            median(passes),
            remedies_work(&model.network, &session).forward / whole
        );
    }
    Ok(())
}
