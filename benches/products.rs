//! Products with K vectors in one pass, compared with K single calls: `cargo bench --bench
//! products`.
//!
//! Results are checked to be bit-identical before timing. Both variants are timed alternately. The
//! output is the median of five runs.

#[path = "../src/bin/planish/allocator.rs"]
mod allocator;

use candle_core::Tensor;
use planish::curvature::{LayerOperator, LinearOperator};
use planish::engine::Engine;
use planish::models::layers::select;
use planish::models::{Network, Weights, arch};
use planish::objective::{Activations, Matrix, Objective};
use planish::random::{stream, unit};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const RUNS: usize = 5;

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

fn numbers(n: usize, name: &str) -> Vec<f64> {
    let mut rng = stream(1, name);
    (0..n).map(|_| 2.0 * unit(&mut rng) - 1.0).collect()
}

fn examples(network: &Network, n: usize) -> Result<Activations, Box<dyn Error>> {
    let [channels, h, w] = network.input();
    let shape = [n, channels, h, w];
    let pixels: Vec<f32> =
        numbers(shape.iter().product(), "pixels").into_iter().map(|x| x as f32).collect();
    Ok(Activations {
        stage: 0,
        values: Tensor::from_vec(pixels, &shape, &candle_core::Device::Cpu)?,
        labels: (0..n).map(|i| (i % network.classes()) as u32).collect::<Vec<_>>().into(),
    })
}

fn model(name: &str, classes: usize, channels: usize, images: usize) -> Result<(), Box<dyn Error>> {
    let network = Arc::new(arch::named(name, classes, channels)?.network()?);
    let weights = Weights::random(&network, 1)?;
    let examples = examples(&network, images)?;
    let objective = Objective::new(network.clone(), weights, &Engine::cpu());
    println!("{name}, {images} images");
    let (first, last) = ("block.0".to_string(), network.last_block().name);
    for layer in [first, last, "head".into()] {
        let layer = select(&network, &layer)?.remove(0);
        let at = objective.activations(&examples, layer.first_stage)?;
        for matrix in [Matrix::Hessian, Matrix::GaussNewton] {
            let operator = LayerOperator::new(&objective, &at, &layer, matrix);
            let mut line = format!("  {:<9} {matrix:?}:", layer.name);
            for k in [2, 4, 8] {
                let draw = |i| numbers(operator.dimension(), &format!("vector {i}"));
                let vectors: Vec<Vec<f64>> = (0..k).map(draw).collect();
                let single = || -> planish::curvature::Result<Vec<Vec<f64>>> {
                    vectors
                        .iter()
                        .map(|v| Ok(operator.apply(std::slice::from_ref(v))?.remove(0)))
                        .collect()
                };
                if single()? != operator.apply(&vectors)? {
                    return Err(format!("{}: products differ", layer.name).into());
                }
                let (mut separate, mut together) = (Vec::new(), Vec::new());
                for _ in 0..RUNS {
                    let clock = Instant::now();
                    operator.apply(&vectors)?;
                    together.push(clock.elapsed().as_secs_f64());
                    let clock = Instant::now();
                    single()?;
                    separate.push(clock.elapsed().as_secs_f64());
                }
                let (separate, together) = (median(separate), median(together));
                line += &format!("  K = {k}: {:.3} s, {:.2}×", together, separate / together);
            }
            println!("{line}");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    allocator::keep_pages();
    println!("K vectors at once: seconds, and how many times faster than K calls");
    model("vit_nano_patch7_28", 10, 1, 64)?;
    model("vit_tiny_patch16_224", 100, 3, 2)
}
