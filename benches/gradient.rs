//! Forward pass, gradient and Hessian-vector products of whole models: images/s, GFLOP/s and the
//! share of what one large product reaches in the same run.
//!
//! `cargo bench --bench gradient`. Random weights and pixels; every multiply-add of a linear layer
//! or of attention that the mathematics needs is counted as two operations, all else as none.

use candle_core::{Device, Tensor};
use planish::objective::{Activations, Objective};
use planish::vit::layers::select;
use planish::vit::{Config, Layer, Weights, arch};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

#[path = "../kernels/benches/ceilings/mod.rs"]
mod ceilings;
use ceilings::{Ceilings, median};

/// The binary's allocator, since page faults are part of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each measurement; the median is printed.
const RUNS: usize = 5;

/// What a run computes.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    Forward,
    Gradient,
    Hvp,
}

/// Multiply-adds of one image, product by product.
struct Work {
    task: Task,
    first: usize,
    last: usize,
}

impl Work {
    fn hvp(&self) -> usize {
        usize::from(self.task == Task::Hvp)
    }

    /// Products of a linear layer: value and JVP, then the VJP and its tangent. `input` says
    /// whether a gradient, and with it a tangent, can come from below.
    fn linear(&self, stage: usize, input: bool) -> usize {
        let (t, watched) = (self.hvp(), (self.first..=self.last).contains(&stage));
        let (x, w) = (usize::from(input), usize::from(watched));
        match self.task {
            Task::Forward => 1,
            _ if stage < self.first => 1,
            _ => 1 + t * (x + w) + x * (1 + t * (1 + w)) + w * (1 + t * (1 + x)),
        }
    }

    /// Products of one of attention's two, both of whose operands are activations.
    fn attention(&self, stage: usize) -> usize {
        match self.task {
            Task::Forward => 1,
            _ if stage < self.first => 1,
            _ => 1 + 2 * self.hvp() + 2 * (1 + 2 * self.hvp()),
        }
    }

    fn flops(&self, c: &Config) -> f64 {
        let (t, d) = (c.tokens(), c.dim);
        let patch = c.channels * c.patch_size[0] * c.patch_size[1];
        let patches = t - c.prefix_tokens();
        let mut sum = patches * patch * d * self.linear(0, false);
        for block in 0..c.depth {
            let (attention, mlp) = (1 + 2 * block, 2 + 2 * block);
            sum += 4 * t * d * d * self.linear(attention, true);
            sum += 2 * t * t * d * self.attention(attention);
            sum += 2 * t * d * c.mlp_dim * self.linear(mlp, true);
        }
        let head = 2 * c.depth + 2;
        2.0 * (sum + d * c.classes * self.linear(head, self.first < head)) as f64
    }
}

/// Pages that this process has had mapped since it began.
fn page_faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().nth(7).and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
}

fn numbers(dims: &[usize], seed: u64) -> Result<Tensor, Box<dyn Error>> {
    Ok(Tensor::from_vec(ceilings::numbers(dims.iter().product(), seed), dims, &Device::Cpu)?)
}

fn layer(config: &Config, name: &str) -> Result<Layer, Box<dyn Error>> {
    let found = select(config, name)?;
    found.into_iter().next().ok_or_else(|| format!("no layer {name}").into())
}

fn model(
    name: &str,
    classes: usize,
    channels: usize,
    batch: usize,
    machine: &mut Ceilings,
) -> Result<(), Box<dyn Error>> {
    let config = arch::named(name, classes, channels)?;
    let weights = Weights::random(&config, 1)?;
    let mut objective = Objective::new(Arc::new(config.clone()), weights);
    objective.micro_batch = batch;
    let [h, w] = config.image_size;
    let examples = Activations {
        stage: 0,
        values: numbers(&[batch, channels, h, w], 1)?,
        labels: (0..batch).map(|i| (i % classes) as u32).collect::<Vec<_>>().into(),
    };
    println!("{name}, batch {batch}");
    let last = format!("block.{}", config.depth - 1);
    let tasks = [
        (Task::Forward, "*"),
        (Task::Gradient, "*"),
        (Task::Hvp, "block.0"),
        (Task::Hvp, &last),
        (Task::Hvp, "head"),
    ];
    for (task, name) in tasks {
        let layer = layer(&config, name)?;
        let tensors = layer.tensors.iter().map(|&i| objective.weights.tensor(i).dims());
        let direction = tensors.map(|d| numbers(d, 2)).collect::<Result<Vec<_>, _>>()?;
        let run = || -> Result<(), Box<dyn Error>> {
            match task {
                Task::Forward => drop(objective.predict(&examples)?),
                Task::Gradient => drop(objective.gradient(&examples, &layer)?),
                Task::Hvp => drop(objective.hvp(&examples, &layer, &direction)?),
            }
            Ok(())
        };
        run()?;
        let (mut seconds, mut faults, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        let work = Work { task, first: layer.first_stage, last: layer.last_stage };
        let flops = work.flops(&config) * batch as f64;
        for _ in 0..RUNS {
            let before = (machine.product(), page_faults(), Instant::now());
            run()?;
            let time = before.2.elapsed().as_secs_f64();
            seconds.push(time);
            faults.push(page_faults() - before.1);
            shares.push(flops / time / before.0.max(machine.product()));
        }
        let time = median(seconds);
        println!(
            "  {:<16} {:>9.1} images/s {:>7.1} GFLOP/s {:>4.0} % of a large product {:>7} faults",
            match task {
                Task::Forward => "forward".to_string(),
                Task::Gradient => "gradient".to_string(),
                Task::Hvp => format!("HVP {name}"),
            },
            batch as f64 / time,
            flops / time / 1e9,
            100.0 * median(shares),
            median(faults),
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut machine = Ceilings::new();
    println!(
        "{} threads, product {:.0} GFLOP/s, copy {:.1} GB/s",
        rayon::current_num_threads(),
        machine.product().max(machine.product()) / 1e9,
        machine.copy() / 1e9
    );
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, classes, channels, batch) in
        [("vit_nano_patch7_28", 10, 1, 128), ("vit_base_patch16_224", 100, 3, 4)]
    {
        if wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())) {
            model(name, classes, channels, batch, &mut machine)?;
        }
    }
    Ok(())
}
