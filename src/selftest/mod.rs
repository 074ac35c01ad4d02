//! Checks of the engine on a user's own model: identities that hold for any weights.
//!
//! No expected values are needed. A gradient must agree with differences of the loss, and a
//! Hessian-vector product with differences of the gradient. Forward and backward pass must be
//! adjoint, the Hessian symmetric, and repeated sums bit-identical.

mod checks;
mod images;

pub use checks::{Check, Subject, few};

use crate::checkpoint::Checkpoint;
use crate::data::{ClassOrder, DataInfo};
use crate::error::Result;
use crate::models::layers::layers;
use crate::models::{Granularity, cost};
use crate::objective::Objective;
use crate::options::Error as OptionError;
use crate::session::{Context, objective};
use candle_core::DType;
use images::images;
use serde::{Deserialize, Serialize};

/// Upper limit of `samples`.
const MOST: usize = 1024;

/// Floating-point operations of an image from which a test takes few images and layers.
const HEAVY: f64 = 5e9;

/// Images of a self-test. These are also the flags of `selftest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Data options"))]
pub struct SelftestOptions {
    /// Images, as in the other commands [default: noise]
    #[cfg_attr(feature = "cli", arg(long, value_name = "D"))]
    pub data: Option<String>,
    /// Order of class folders: the checkpoint's class names, or sorted
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_enum,
            default_value = "name",
            hide_possible_values = true,
            value_name = "name|sorted"
        )
    )]
    pub class_order: ClassOrder,
    /// Split to take images from [default: test, or the only split]
    #[cfg_attr(feature = "cli", arg(long, value_name = "S", requires = "data"))]
    pub split: Option<String>,
    /// Number of images [default: 4, or 1 if an image costs over 5 GFLOP]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub samples: Option<usize>,
}

/// The result of a self-test.
#[derive(Clone, Debug, PartialEq)]
pub struct SelftestResult {
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// Whether all checks passed.
    pub passed: bool,
    /// Number of images.
    pub images: usize,
    /// The images; `None` for noise.
    pub data: Option<DataInfo>,
}

/// Checks the numerical accuracy on a model. A check that fails is not an error.
///
/// # Errors
/// Options out of range, or a model that cannot be run.
pub fn selftest(
    options: &SelftestOptions,
    checkpoint: &Checkpoint,
    context: &Context,
) -> Result<SelftestResult> {
    let network = &checkpoint.network;
    let heavy = cost::forward(network, 0..network.stages()) > HEAVY;
    let n = options.samples.unwrap_or(if heavy { 1 } else { 4 });
    if !(1..=MOST).contains(&n) {
        return Err(OptionError::value("samples", format!("1 to {MOST}"), n).into());
    }
    // With two or more images, use two micro-batches, to test the accumulation.
    let model = |dtype| -> Result<Objective> {
        let whole = objective(checkpoint, dtype, context.engine)?;
        Ok(Objective { micro_batch: n.div_ceil(2), ..whole })
    };
    let (single, double) = (model(DType::F32)?, model(DType::F64)?);
    let (images, data) = images(options, checkpoint, n, context.seed)?;
    let all = layers(network, Granularity::Block);
    let (few, seed) = (few(&all, heavy), context.seed);
    let subject = Subject { single, double, images: &*images, few, layers: all, seed };
    let progress = context.task("selftest", 8, "checks");
    let mut checks = vec![round_trip(checkpoint)?];
    progress.advance(1);
    checks.extend(subject.run(&mut |check| {
        progress.status(&check.name);
        progress.advance(1);
    })?);
    let passed = checks.iter().all(|check| check.passed);
    Ok(SelftestResult { checks, passed, images: n, data })
}

/// Loads and stores every tensor, and compares the bytes.
fn round_trip(checkpoint: &Checkpoint) -> Result<Check> {
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
