//! Whole models: forward pass, gradient, Hessian-vector products, a step of PoL and of PoF.
//!
//! `cargo bench --bench vit [NAME…]` uses random weights and pixels. It prints seconds per image,
//! GFLOP/s of the necessary matrix products, and the rate relative to one large matrix product in
//! the same run. Results are verified before timing: the sweep over all blocks against separate
//! products, and a gradient against the change of the loss along it.
//!
//! `benches/pytorch/compare.py` compares this binary with PyTorch on one checkpoint and one batch.
//! With `--turns CHECKPOINT PIXELS`, the binary reads one task per line and prints the seconds and
//! a number to compare.

#[path = "../src/bin/planish/allocator.rs"]
mod allocator;
#[path = "../kernels/benches/ceilings/mod.rs"]
mod ceilings;
mod tasks;

use ceilings::{Ceilings, median};
use planish::checkpoint::{Checkpoint, Load};
use planish::engine::{Engine, EngineOptions};
use planish::models::{Weights, arch};
use planish::objective::{Activations, Objective};
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use tasks::Tasks;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs per measurement; the median is printed.
const RUNS: usize = 5;

/// Page faults of this process since its start.
fn page_faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().nth(7).and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
}

fn model(
    name: &str,
    [classes, channels, batch]: [usize; 3],
    selected: &[String],
    (engine, machine): (&Engine, &mut Ceilings),
) -> Outcome<()> {
    let network = arch::named(name, classes, channels)?.network()?;
    let weights = Weights::random(&network, 1)?;
    let [_, h, w] = network.input();
    let pixels = ceilings::numbers(batch * channels * h * w, 1);
    let examples = Activations {
        stage: 0,
        values: candle_core::Tensor::from_vec(
            pixels,
            &[batch, channels, h, w],
            &candle_core::Device::Cpu,
        )?,
        labels: (0..batch).map(|i| (i % classes) as u32).collect::<Vec<_>>().into(),
    };
    let tasks = Tasks::new(Objective::new(Arc::new(network), weights, engine), examples)?;
    tasks.verify()?;
    println!("{name}, {batch} images, {} a micro-batch", tasks.objective.micro_batch);
    for task in tasks::NAMES {
        if !selected.is_empty() && !selected.iter().any(|w| task.contains(w.as_str())) {
            continue;
        }
        let work = tasks.flops(task)?;
        tasks.run(task)?;
        let (mut seconds, mut faults, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let (ceiling, before) = (machine.product(), page_faults());
            let (time, _) = tasks.run(task)?;
            seconds.push(time / batch as f64);
            faults.push(page_faults() - before);
            shares.push(work / (time / batch as f64) / ceiling.max(machine.product()));
        }
        let time = median(seconds);
        println!(
            "  {task:<22} {time:>9.5} s an image {:>7.1} GFLOP/s {:>4.0} % of a large product {:>7} faults",
            work / time / 1e9,
            100.0 * median(shares),
            median(faults),
        );
    }
    Ok(())
}

/// Runs one task per line of standard input, for `compare.py`.
fn turns(checkpoint: &Path, pixels: &Path, engine: &Engine) -> Outcome<()> {
    let found = Checkpoint::open(checkpoint, &Load::default())?;
    let weights = found.weights_as(candle_core::DType::F32)?;
    let device = candle_core::Device::Cpu;
    let mut tensors = candle_core::safetensors::load(pixels, &device)?;
    let values = tensors.remove("pixels").ok_or("no tensor `pixels`")?;
    let labels = tensors.remove("labels").ok_or("no tensor `labels`")?;
    let labels: Vec<u32> = labels.to_dtype(candle_core::DType::U32)?.to_vec1()?;
    let examples = Activations { stage: 0, values, labels: labels.into() };
    let tasks = Tasks::new(Objective::new(found.network.clone(), weights, engine), examples)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let (seconds, check) = tasks.run(line?.trim())?;
        println!("{seconds:e} {check:e}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    allocator::keep_pages();
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (tiles, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|w| w == "--tiles");
    let options = EngineOptions { tiles: !tiles.is_empty(), ..EngineOptions::default() };
    let engine = &Engine::new(&options, |_| {})?;
    if let [flag, checkpoint, pixels] = &words[..]
        && flag == "--turns"
    {
        return turns(Path::new(checkpoint), Path::new(pixels), engine);
    }
    let mut machine = Ceilings::new();
    println!(
        "{} threads, product {:.0} GFLOP/s, copy {:.1} GB/s",
        rayon::current_num_threads(),
        machine.product().max(machine.product()) / 1e9,
        machine.copy() / 1e9
    );
    let models = [("vit_nano_patch7_28", [10, 1, 128]), ("vit_base_patch16_224", [100, 3, 8])];
    let (names, selected): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|w| models.iter().any(|m| m.0.contains(w.as_str())));
    for (name, sizes) in models {
        if names.is_empty() || names.iter().any(|n| name.contains(n.as_str())) {
            model(name, sizes, &selected, (engine, &mut machine))?;
        }
    }
    Ok(())
}
