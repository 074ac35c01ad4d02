//! `planish selftest`: checks the numerical accuracy of planish on the user's model.

use super::demo;
use crate::args::Common;
use crate::render::print;
use crate::render::table::{Align, Style, Table};
use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use planish::checkpoint::{Checkpoint, Load};
use planish::data::{ClassOrder, DataInfo, DataOptions};
use planish::models::layers::layers;
use planish::models::{Granularity, cost};
use planish::objective::{Activations, Examples};
use planish::options::Error as OptionError;
use planish::random::{below, stream, unit};
use planish::report::{SELFTEST, Selftest};
use planish::selftest::{Check, Subject, few};
use planish::session::{Data, checkpoint_info, data_info, objective, pixels, sample};
use std::path::PathBuf;

/// Upper limit of `--samples`.
const MOST: usize = 1024;

/// Options of `selftest`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without --data, the inputs are noise. Without CKPT, the embedded model is \
                  tested.\n\nExamples:\n  planish selftest\n  planish selftest \
                  vit/ --data cifar-100/"
)]
pub struct Args {
    /// Checkpoint: a file or a folder [default: the embedded model]
    #[arg(value_name = "CKPT")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    model: Load,
    /// Images, as in the other commands [default: noise]
    #[arg(long, value_name = "D", help_heading = "Data options")]
    data: Option<String>,
    /// Order of class folders: the checkpoint's class names, or sorted
    #[arg(
        long,
        value_enum,
        default_value = "name",
        hide_possible_values = true,
        value_name = "name|sorted",
        help_heading = "Data options"
    )]
    class_order: ClassOrder,
    /// Split to take images from [default: test, or the only split]
    #[arg(long, value_name = "S", requires = "data", help_heading = "Data options")]
    split: Option<String>,
    /// Number of images [default: 4, or 1 if an image costs over 5 GFLOP]
    #[arg(long, value_name = "N", help_heading = "Data options")]
    samples: Option<usize>,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
///
/// # Errors
/// The model cannot be run, or a check fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    let carried;
    let path = match &args.checkpoint {
        Some(path) => path,
        None => {
            carried = demo::carried_model()?;
            &carried.path().join("model")
        }
    };
    let checkpoint = Checkpoint::open(path, &args.model)?;
    let model = |dtype| objective(&checkpoint, dtype, clock.engine());
    let (single, double) = (model(DType::F32)?, model(DType::F64)?);
    let heavy = cost::forward(&checkpoint.network, 0..checkpoint.network.stages()) > 5e9;
    let n = args.samples.unwrap_or(if heavy { 1 } else { 4 });
    if !(1..=MOST).contains(&n) {
        return Err(OptionError::value("samples", format!("1 to {MOST}"), n).into());
    }
    let (images, data) = images(args, &checkpoint, n)?;
    let all = layers(&checkpoint.network, Granularity::Block);
    // With two or more images, use two micro-batches, to test the accumulation.
    let cut = |model: planish::objective::Objective| planish::objective::Objective {
        micro_batch: n.div_ceil(2),
        ..model
    };
    let subject = Subject {
        single: cut(single),
        double: cut(double),
        images: &*images,
        few: few(&all, heavy),
        layers: all,
        seed: args.common.seed,
    };
    let terminal = args.common.terminal();
    let progress = args.common.context(&clock, &terminal).task("selftest", 8, "checks");
    let mut checks = vec![round_trip(&checkpoint)?];
    progress.advance(1);
    checks.extend(subject.run(&mut |check| {
        progress.status(&check.name);
        progress.advance(1);
    })?);
    drop(progress);
    let passed = checks.iter().all(|check| check.passed);
    let report = Selftest {
        schema: SELFTEST.into(),
        run: clock.finish(),
        checkpoint: checkpoint_info(&checkpoint),
        data,
        images: n,
        checks,
        passed,
    };
    args.common.save(&report)?;
    print(&show(&report))?;
    match passed {
        true => Ok(()),
        false => bail!(
            "{} of {} checks failed: results of planish on this model are not reliable; please \
             report this table",
            report.checks.iter().filter(|check| !check.passed).count(),
            report.checks.len()
        ),
    }
}

/// Loads and stores every tensor, and compares the bytes.
fn round_trip(checkpoint: &Checkpoint) -> anyhow::Result<Check> {
    let differing = checkpoint.round_trip()?;
    let mut check = Check::single(
        "tensors keep their bytes when loaded and stored",
        &checkpoint.dtype,
        differing.len() as f64,
        0.0,
    );
    check.layer = differing.into_iter().next().unwrap_or_default();
    Ok(check)
}

/// A seeded sample of the split, or noise.
fn images(
    args: &Args,
    checkpoint: &Checkpoint,
    n: usize,
) -> anyhow::Result<(Box<dyn Examples>, Option<DataInfo>)> {
    let Some(data) = &args.data else {
        return Ok((Box::new(noise(checkpoint, n, args.common.seed)?), None));
    };
    let options =
        DataOptions { data: data.clone(), class_order: args.class_order, ..DataOptions::default() };
    let sources = Data::open(&options, checkpoint)?;
    let whole = sources.split(args.split.as_deref())?;
    let split = sample(whole, Some(n), args.common.seed)
        .with_context(|| format!("--samples {n}: the split has {} images", whole.len()))?;
    let origin = format!("{n} images of split {}, seed {}", split.name(), args.common.seed);
    let info = data_info(sources.of(whole), &split, &origin);
    Ok((Box::new(pixels(checkpoint, &split)?), Some(info)))
}

/// Pixels with mean 0 and variance 1, as normalised images have, and random labels.
fn noise(checkpoint: &Checkpoint, n: usize, seed: u64) -> anyhow::Result<Activations> {
    let network = &checkpoint.network;
    let [channels, height, width] = network.input();
    let mut rng = stream(seed, "selftest images");
    let half_width = 3f64.sqrt();
    let values: Vec<f32> = (0..n * channels * height * width)
        .map(|_| ((2.0 * unit(&mut rng) - 1.0) * half_width) as f32)
        .collect();
    let labels: Vec<u32> =
        (0..n).map(|_| below(&mut rng, network.classes() as u64) as u32).collect();
    let values = Tensor::from_vec(values, (n, channels, height, width), &Device::Cpu)?;
    Ok(Activations { stage: 0, values, labels: labels.into() })
}

fn show(report: &Selftest) -> String {
    let images = match &report.data {
        Some(data) => format!("{} images of {}", report.images, data.path),
        None => format!("{} images of noise", report.images),
    };
    let mut table = Table::new(&[
        ("check", Align::Left),
        ("in", Align::Left),
        ("largest error", Align::Right),
        ("allowed", Align::Right),
        ("where", Align::Left),
        ("", Align::Left),
    ]);
    for check in &report.checks {
        let place = match (check.layer.as_str(), check.layers) {
            ("", _) => String::new(),
            (layer, 1) => layer.to_string(),
            (layer, n) => format!("{layer}, of {n} layers"),
        };
        table.row([
            check.name.clone(),
            check.precision.clone(),
            format!("{:.1e}", check.error),
            format!("{:.0e}", check.tolerance),
            place,
            if check.passed { "passed" } else { "FAILED" }.to_string(),
        ]);
    }
    let verdict = if report.passed { "all checks passed" } else { "some checks FAILED" };
    format!(
        "{} ({}, {} parameters), {images}\n\n{}\n{verdict} in {}",
        report.checkpoint.path,
        report.checkpoint.architecture,
        planish::format::count(report.checkpoint.parameters as u64),
        table.render(Style::of_stdout()),
        planish::format::duration(report.run.seconds),
    )
}
