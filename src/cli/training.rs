//! Options of the training itself, which every method shares.

use super::caching::CacheArgs;
use super::numbers::{count, not_negative, positive, share};
use super::precision::PrecisionArg;
use crate::objective::Objective;
use crate::train::post::Settings;
use crate::train::{Keep, Shape};
use anyhow::bail;

/// Settings of the training itself.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Training options")]
pub struct RecipeArgs {
    /// Passes over the training set
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = count,
        allow_negative_numbers = true,
    )]
    pub epochs: usize,
    /// Images in B, the batch of a step
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        value_parser = count,
        allow_negative_numbers = true,
    )]
    pub batch_size: usize,
    /// Images a thread takes at a time: B is summed over them before the step, which they leave as
    /// it is; fewer take less memory [default: by memory]
    #[arg(
        long,
        value_name = "N",
        value_parser = count,
        allow_negative_numbers = true,
        conflicts_with = "accumulate",
    )]
    pub micro_batch: Option<usize>,
    /// The same, told as the number of parts that B is summed over
    #[arg(long, value_name = "K", value_parser = count, allow_negative_numbers = true)]
    pub accumulate: Option<usize>,
    /// In what products are taken.
    #[command(flatten)]
    pub precision: PrecisionArg,
    /// Highest learning rate
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0.01,
        value_parser = positive,
        allow_negative_numbers = true,
    )]
    pub lr: f64,
    /// Learning rate after the warm-up: to 0 on a cosine or on a line, or constant
    #[arg(long, value_enum, value_name = "cosine|linear|constant", default_value = "cosine")]
    pub schedule: Curve,
    /// Epochs over which the learning rate first rises; 0.5 is half of one
    #[arg(
        long,
        value_name = "EPOCHS",
        default_value_t = 0.0,
        value_parser = not_negative,
        allow_negative_numbers = true,
    )]
    pub warmup: f64,
    /// Clip the gradient of the updated layers to this norm
    #[arg(long, value_name = "NORM", value_parser = positive, allow_negative_numbers = true)]
    pub clip: Option<f64>,
    /// Momentum
    #[arg(
        long,
        value_name = "M",
        default_value_t = 0.9,
        value_parser = share,
        allow_negative_numbers = true,
    )]
    pub momentum: f64,
    /// Weight decay
    #[arg(
        long,
        value_name = "D",
        default_value_t = 0.0,
        value_parser = not_negative,
        allow_negative_numbers = true,
    )]
    pub weight_decay: f64,
    /// Options of PoL and PoF.
    #[command(flatten)]
    pub line: LineArgs,
    /// Options of SAM and its variants.
    #[command(flatten)]
    pub sam: SamArgs,
    /// Seed of B, B′ and γ [default: --seed]
    #[arg(long, value_name = "S")]
    pub train_seed: Option<u64>,
    /// Validation images on which ΔL and κ of the layers are measured again, before and after; 0
    /// for none [default: all, or --samples]
    #[arg(long, value_name = "N")]
    pub remeasure: Option<usize>,
    /// Where the frozen layers' activations are kept, and of which views.
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Options of PoL and PoF.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LineArgs {
    /// Images in B′, on which PoL and PoF find the perturbation [default: 256]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub perturb_batch: Option<usize>,
    /// Γ: their perturbation is γ times the step to the minimum, γ uniform in (0, Γ) [default: 2]
    #[arg(long, value_name = "G", value_parser = positive, allow_negative_numbers = true)]
    pub gamma: Option<f64>,
    /// How that step is found [default: newton below the last block, else search]
    #[arg(long, value_enum)]
    pub step: Option<StepName>,
}

/// Options of SAM and its variants.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SamArgs {
    /// ρ: length of SAM's climb [default: 0.05 for sam and looksam, 0.5 for asam and sam-norm]
    #[arg(long, value_name = "RHO", value_parser = positive, allow_negative_numbers = true)]
    pub rho: Option<f64>,
    /// η of asam, added to |w| [default: 0.01]
    #[arg(long, value_name = "ETA", value_parser = positive, allow_negative_numbers = true)]
    pub asam_eta: Option<f64>,
    /// Steps of looksam from one climb to the next [default: 5]
    #[arg(long, value_name = "K", value_parser = count, allow_negative_numbers = true)]
    pub look_every: Option<usize>,
    /// Weight of looksam's stored part in the steps between [default: 0.7]
    #[arg(long, value_name = "ALPHA", value_parser = not_negative, allow_negative_numbers = true)]
    pub look_alpha: Option<f64>,
}

/// Rules on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum StepName {
    /// first minimum along the line
    Search,
    /// one Hessian-vector product
    Newton,
}

/// Learning rates after the warm-up, on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// down to 0 on a cosine
    Cosine,
    /// down to 0 on a line
    Linear,
    /// one rate
    Constant,
}

impl Curve {
    /// What the library calls it.
    pub fn shape(self) -> Shape {
        match self {
            Curve::Cosine => Shape::Cosine,
            Curve::Linear => Shape::Linear,
            Curve::Constant => Shape::Constant,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Curve::Cosine => "cosine",
            Curve::Linear => "linear",
            Curve::Constant => "constant",
        }
    }
}

/// Which weights to keep, on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// of the epoch with the least validation loss
    Best,
    /// of the last epoch
    Last,
}

impl Kept {
    /// What the library calls it.
    pub fn keep(self) -> Keep {
        match self {
            Kept::Best => Keep::Best,
            Kept::Last => Keep::Last,
        }
    }
}

/// Refuses settings that make no sense together.
///
/// # Errors
/// The first such setting.
pub fn check(args: &RecipeArgs) -> anyhow::Result<()> {
    args.cache.check()?;
    let parts = args.accumulate.unwrap_or(1);
    if !(1..=args.batch_size).contains(&parts) {
        bail!("--accumulate: expected 1 to {}, the images in B, found {parts}", args.batch_size)
    }
    if args.warmup > args.epochs as f64 {
        bail!("--warmup: expected at most --epochs, {}, found {}", args.epochs, args.warmup)
    }
    Ok(())
}

/// The settings that every method shares.
pub fn settings(args: &RecipeArgs, keep: Keep, seed: u64) -> Settings {
    Settings {
        epochs: args.epochs,
        batch: args.batch_size,
        learning_rate: args.lr,
        schedule: args.schedule.shape(),
        warmup: args.warmup,
        clip: args.clip,
        momentum: args.momentum,
        weight_decay: args.weight_decay,
        keep,
        seed,
    }
}

/// The model as steps take it whose batches enter at `stage`: in larger micro-batches, unless the user
/// says of how many images, or bounds memory.
pub fn stepping(model: &Objective, args: &RecipeArgs, bounded: bool, stage: usize) -> Objective {
    match micro_batch(args) {
        None if !bounded => model.for_stage(stage, args.batch_size),
        _ => model.clone(),
    }
}

/// Images in a micro-batch, if the user says.
pub fn micro_batch(args: &RecipeArgs) -> Option<usize> {
    args.micro_batch.or(args.accumulate.map(|parts| args.batch_size.div_ceil(parts)))
}
