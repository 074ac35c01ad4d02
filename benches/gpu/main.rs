//! Times on a GPU relative to its measured peak rates: `cargo bench --features cuda --bench gpu [--
//! --tiny]`. Run by `scripts/gpu-check`. Prints Markdown.
//!
//! Results are verified before timing. Peak rates are measured in the same run: a copy within
//! device memory, and one large matrix product in f32 and in TF32. The share next to a time is the
//! lower bound on the time divided by the time. The bound is bytes over the copy rate for row
//! operations, and operations over the product rate otherwise. `--tiny` is for emulated devices.

#[path = "../../src/bin/planish/allocator.rs"]
mod allocator;
mod epochs;
mod machine;
mod rows;
#[path = "../tasks/mod.rs"]
mod tasks;

use candle_core::{Device, Tensor};
use machine::{Machine, median, numbers};
use planish::device::DeviceChoice;
use planish::engine::{Engine, EngineOptions, Precision};
use planish::models::layers::select;
use planish::models::{Weights, arch};
use planish::objective::{Activations, Objective};
use planish::train::{Optimizer, OptimizerRule};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use tasks::Tasks;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Problem sizes.
struct Size {
    arch: &'static str,
    shape: [usize; 2],
    batch: usize,
    runs: usize,
}

const LARGE: Size = Size { arch: "vit_base_patch16_224", shape: [100, 3], batch: 128, runs: 3 };
const TINY: Size = Size { arch: "vit_nano_patch7_14", shape: [4, 1], batch: 2, runs: 1 };

fn main() -> Outcome<()> {
    allocator::keep_pages();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let size = if words.iter().any(|word| word == "--tiny") { TINY } else { LARGE };
    for tf32 in [false, true] {
        let options =
            EngineOptions { device: DeviceChoice::Cuda(0), tf32, ..EngineOptions::default() };
        let engine = Engine::new(&options, |notice| println!("{notice}\n"))?;
        let gpu = engine.gpu().ok_or("no GPU was chosen")?;
        let large = size.arch == LARGE.arch;
        let mut machine = Machine::new(gpu.device(), engine.products(Precision::F32), large)?;
        if !tf32 {
            machine.tell(gpu)?;
            rows::tell(&mut machine, large)?;
        }
        models(&size, &mut machine, (&engine, tf32))?;
    }
    Ok(())
}

/// Benchmarks of whole models.
fn models(size: &Size, machine: &mut Machine, (engine, tf32): (&Engine, bool)) -> Outcome<()> {
    let [classes, channels] = size.shape;
    let mut config = arch::vit(size.arch, classes, channels)?;
    if size.arch == TINY.arch {
        (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 2, 2, 16);
    }
    let network = config.network()?;
    let weights = Weights::random(&network, 1)?;
    let [height, width] = config.image_size;
    let shape = [size.batch, channels, height, width];
    let examples = Activations {
        stage: 0,
        values: Tensor::from_vec(numbers(shape.iter().product(), 1), &shape, &Device::Cpu)?,
        labels: (0..size.batch).map(|i| (i % classes) as u32).collect::<Vec<_>>().into(),
    };
    let objective = Objective::new(Arc::new(network), weights, engine);
    let tasks = Tasks::new(objective, examples)?;
    if !tf32 {
        tasks.verify()?;
    }
    let product = machine.product()?;
    println!(
        "\n## {}, {} images, {} a micro-batch, {}\n\n\
         | work | ms | images/s | TFLOP/s | of one product | peak MiB |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |",
        size.arch,
        size.batch,
        tasks.objective.micro_batch,
        if tf32 { "TF32" } else { "f32" },
    );
    // Steps are timed as in the program, see `epochs`; bf16 only once.
    let left_out = |task: &str| task.contains("step") || tf32 && task.ends_with("bf16");
    let timed = |task: &&&str| !left_out(task);
    for task in tasks::NAMES.iter().filter(timed) {
        tasks.run(task)?;
        let seconds = (0..size.runs).map(|_| Ok(tasks.run(task)?.0));
        let seconds = median(seconds.collect::<Outcome<Vec<_>>>()?);
        let work = tasks.flops(task)? * size.batch as f64;
        let rate = size.batch as f64 / seconds;
        println!(
            "| {task} | {:.2} | {rate:.0} | {:.2} | {:.0} % | {} |",
            seconds * 1e3,
            work / seconds / 1e12,
            100.0 * work / seconds / product,
            engine.peak_mib().unwrap_or(0),
        );
    }
    epochs::tell(size, &tasks.objective, product)?;
    if !tf32 {
        let half = Objective { precision: Precision::Bf16, ..tasks.objective.clone() };
        epochs::tell(size, &half, product)?;
    }
    optimizer(size, &tasks.objective, machine)
}

/// An optimizer step over all weights.
fn optimizer(size: &Size, objective: &Objective, machine: &mut Machine) -> Outcome<()> {
    let all = select(&objective.network, "*")?.remove(0);
    let weights = objective.weights_of(&all)?;
    let rule = OptimizerRule::Sgd { momentum: 0.9, nesterov: false };
    let mut optimizer = Optimizer::new(rule, 0.0);
    optimizer.step(&weights, &weights, 0.1)?;
    let mut seconds = Vec::new();
    for _ in 0..size.runs {
        machine.wait()?;
        let clock = Instant::now();
        let next = optimizer.step(&weights, &weights, 0.1)?;
        machine.wait()?;
        seconds.push(clock.elapsed().as_secs_f64());
        drop(next);
    }
    let (seconds, copy) = (median(seconds), machine.copy()?);
    // Reads weights, gradient and momentum; writes weights and momentum.
    let bytes = 20.0 * objective.weights.parameters() as f64;
    println!(
        "\nSGD on all {} weights: {:.3} ms, {:.0} GB/s, {:.0} % of a copy.",
        objective.weights.parameters(),
        seconds * 1e3,
        bytes / seconds / 1e9,
        100.0 * bytes / seconds / copy
    );
    Ok(())
}
