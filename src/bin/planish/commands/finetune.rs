//! `planish finetune`: train all weights of a new or given model.

use super::finetune_error::Error;
use super::finetune_plan::{Images, Start, fitted, images, start};
use crate::args::{Common, note_precision};
use crate::render::epochs::EpochArgs;
use crate::render::finetune::{about, plan, summary, teller, text};
use crate::render::print;
use crate::render::progress::Progress;
use planish::checkpoint::{self, Checkpoint, Load, Provenance};
use planish::data::{Augment, OnBadSample, Sample, Split};
use planish::objective::Objective;
use planish::options::check;
use planish::options::text::range;
use planish::pixels::Pixels;
use planish::report::{FINETUNING, Finetuning};
use planish::session::bad_samples::open_for_training;
use planish::train::finetune::{Settings, finetune};
use planish::train::{Keep, Rule, Shape};
use planish_kernels::Precision;
use serde_json::json;
use std::{ops::Range, path::PathBuf, sync::Arc};

/// Arguments of `planish finetune`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    group = clap::ArgGroup::new("model").required(true),
    after_help = "Example:\n  planish finetune --arch vit_nano_patch7_28 --data \
                  /usr/share/datasets/fashion-mnist --epochs 12 --augment flip,shift=2 --out vit/"
)]
pub struct Args {
    /// Architecture of a new model, such as vit_nano_patch7_28
    #[arg(long, value_name = "NAME", group = "model")]
    pub arch: Option<String>,
    /// Checkpoint to start from
    #[arg(long, value_name = "CKPT", group = "model")]
    pub from: Option<PathBuf>,
    /// Start with a fresh head, even if the checkpoint's fits
    #[arg(long, requires = "from")]
    pub reset_head: bool,
    /// Its missing settings, or a new model's normalisation.
    #[command(flatten)]
    pub load: Load,
    /// Images: class folders (JPEG, PNG, WebP), IDX, CIFAR binary, or tensors:FILE or FOLDER
    #[arg(long, value_name = "D")]
    pub data: String,
    /// An image file that cannot be decoded: stop at it, or decode all files once first and go on
    /// without the bad ones, each named. A JPEG file that decodes with a warning about damaged data is
    /// bad for `skip`; under `fail` it is used as it decodes, and a note names it
    #[arg(
        long,
        value_enum,
        value_name = "fail|skip",
        default_value = "fail",
        hide_possible_values = true
    )]
    pub on_bad_sample: OnBadSample,
    /// Train on images A to B - 1 of the training split, in stored order
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub train_range: Option<Range<usize>>,
    /// Train on so many images, in proportion to the classes
    #[arg(long, value_name = "N")]
    pub train_samples: Option<usize>,
    /// Share of the training split held out to judge epochs [default: 0.1, or 0 with a split `val`]
    #[arg(long, value_name = "F")]
    pub val_fraction: Option<f64>,
    /// Weights to keep: of the epoch with the least validation loss, or the last [default: best
    /// with validation images, else last]
    #[arg(long, value_name = "best|last")]
    pub keep: Option<Keep>,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub epochs: usize,
    /// Images in a step
    #[arg(long, visible_alias = "batch", value_name = "N", default_value_t = 128)]
    pub batch_size: usize,
    /// Optimizer
    #[arg(long, value_name = "sgd|adamw", default_value = "sgd")]
    pub optimizer: Kind,
    /// Operands of matrix products: f32, or rounded to bf16 and added up in f32
    #[arg(long, value_name = "f32|bf16", default_value_t)]
    pub precision: Precision,
    /// Highest learning rate [default: 0.05 for sgd, 0.001 for adamw]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Momentum of sgd, with Nesterov's look-ahead
    #[arg(long, value_name = "M", default_value_t = 0.9, allow_negative_numbers = true)]
    pub momentum: f64,
    /// Weight decay, on every tensor
    #[arg(long, value_name = "W", default_value_t = 0.0, allow_negative_numbers = true)]
    pub weight_decay: f64,
    /// Learning rate after the warm-up: to 0 on a cosine or on a line, or constant
    #[arg(long, value_name = "cosine|linear|constant", default_value = "cosine")]
    pub schedule: Shape,
    /// Epochs of linear warm-up
    #[arg(long, value_name = "E", default_value_t = 0.0, allow_negative_numbers = true)]
    pub warmup: f64,
    /// Clip the gradient to this norm
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    pub clip: Option<f64>,
    /// Label smoothing
    #[arg(long, value_name = "E", default_value_t = 0.0, allow_negative_numbers = true)]
    pub label_smoothing: f64,
    /// Augmentation: `flip`, `shift=PIXELS`, `crop=LEAST_AREA`, separated by commas
    #[arg(long, value_name = "LIST", default_value = "none")]
    pub augment: Augment,
    /// Where the checkpoint goes: a folder, or a .safetensors file
    #[arg(long, value_name = "NEW")]
    pub out: PathBuf,
    /// Replace a checkpoint that stands there
    #[arg(long)]
    pub force: bool,
    /// Files that tell of each epoch.
    #[command(flatten)]
    pub epoch_files: EpochArgs,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Values of `--optimizer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam with decoupled weight decay.
    Adamw,
}

/// Trains, saves and tells what came of it.
///
/// # Errors
/// Anything wrong with flags, model, data or output; a loss that is no longer finite.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    check_numbers(args)?;
    note_precision(args.precision, &args.common);
    let parent = args.from.as_deref().map(|from| Checkpoint::open(from, &args.load)).transpose()?;
    let named = parent.as_ref().filter(|_| !args.reset_head);
    let (data, notes) = open_for_training(args.on_bad_sample, &args.data, named)?;
    let images = images(args, &data)?;
    let start = start(args, parent, notes, &data, &images)?;
    let settings = settings(args, &images)?;
    let pixels = |split: &Split| Pixels::new(split, start.preprocess.as_ref(), &start.config);
    let train = pixels(&images.train)?;
    let val = images.val.as_ref().map(pixels).transpose()?;
    let test = images.test.as_ref().map(pixels).transpose()?;
    if !args.common.quiet {
        print(&plan(args, &start, &images, &settings))?;
    }
    let config = Arc::new(start.config.clone());
    let trained = {
        let per_epoch = (train.split().len() / settings.batch.max(1)) * settings.batch;
        let total = (per_epoch as u64).saturating_mul(settings.epochs as u64);
        let progress = Progress::new("finetune", total, "images", args.common.quiet);
        let mut files = args.epoch_files.open()?;
        let mut tell = teller(&progress, args, per_epoch, &mut files);
        let weights = start.weights.clone();
        let trained = finetune(&config, weights, &train, val.as_ref(), &settings, &mut tell)?;
        drop(tell);
        files.finish()?;
        trained
    };
    let provenance = provenance(args, &start, &images, &settings, trained.epoch);
    let names = images.whole.class_names();
    let (out, weights) = (&args.out, &trained.weights);
    let path = match &start.parent {
        // A head that is kept for data without class names still tells the parent's classes apart.
        Some(parent) if names.is_none() && !start.fresh_head => {
            parent.save(out, weights, &provenance)?.path
        }
        Some(parent) => parent.save_with_classes(out, weights, names, &provenance)?.path,
        None => {
            let preprocess = start.preprocess.as_ref();
            checkpoint::create(out, &config, preprocess, weights, names, &provenance)?
        }
    };
    let objective = Objective::new(config, trained.weights);
    let predictions = |pixels: &Pixels| objective.predict(pixels);
    let judged = val.as_ref().map(predictions).transpose()?;
    let mut figures = vec![("train", summary(&predictions(&train)?, judged.as_ref(), args)?)];
    if let Some(val) = &judged {
        figures.push(("val", summary(val, None, args)?));
    }
    if let Some(test) = &test {
        figures.push(("test", summary(&predictions(test)?, judged.as_ref(), args)?));
    }
    let report = Finetuning {
        schema: FINETUNING.into(),
        run: running.finish(),
        checkpoint: path.display().to_string(),
        data: about(&data, &images),
        damaged: data.damaged(),
        settings: provenance.settings,
        kept_epoch: trained.epoch,
        epochs: trained.epochs,
        notes: start.notes.clone(),
        figures: figures.into_iter().map(|(name, figures)| (name.into(), figures)).collect(),
    };
    args.common.save(&report)?;
    let mut text = text(&report);
    if args.common.quiet {
        // No plan was printed that has them.
        start.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    }
    Ok(print(&text)?)
}

/// Refuses values out of range.
fn check_numbers(args: &Args) -> Result<(), planish::options::Error> {
    args.lr.map_or(Ok(()), |lr| check::positive("lr", lr))?;
    check::share("momentum", args.momentum)?;
    check::not_negative("weight_decay", args.weight_decay)?;
    check::not_negative("warmup", args.warmup)?;
    check::share("label_smoothing", args.label_smoothing)?;
    args.clip.map_or(Ok(()), |norm| check::positive("clip", norm))
}

fn settings(args: &Args, images: &Images) -> Result<Settings, Error> {
    let judged = images.val.is_some();
    let keep = match args.keep {
        Some(Keep::Best) if !judged => return Err(Error::NothingToJudgeBy),
        Some(Keep::Best) => Keep::Best,
        Some(Keep::Last) => Keep::Last,
        None if judged => Keep::Best,
        None => Keep::Last,
    };
    let (rule, usual) = match args.optimizer {
        Kind::Sgd => (Rule::Sgd { momentum: args.momentum, nesterov: args.momentum > 0.0 }, 0.05),
        Kind::Adamw => (Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, 0.001),
    };
    Ok(Settings {
        epochs: args.epochs,
        batch: args.batch_size,
        rule,
        weight_decay: args.weight_decay,
        shape: args.schedule,
        rate: args.lr.unwrap_or(usual),
        warmup: args.warmup,
        clip: args.clip,
        smoothing: args.label_smoothing,
        augment: args.augment,
        keep,
        precision: args.precision,
        seed: args.common.seed,
    })
}

fn provenance(
    args: &Args,
    start: &Start,
    images: &Images,
    settings: &Settings,
    epoch: usize,
) -> Provenance {
    let split = checkpoint::Split { seed: args.common.seed, fraction: images.fraction };
    let how = fitted(args, images.fraction);
    let sample = (how.range.is_some() || how.samples.is_some()).then(|| Sample {
        images: images.train.len(),
        digest: images.train.digest().into(),
        whole: images.whole.digest().into(),
        how: how.clone(),
    });
    Provenance {
        method: "finetune".into(),
        perturb: Vec::new(),
        update: vec!["*".into()],
        seed: args.common.seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: start.parent.as_ref().map(|parent| parent.digest.clone()),
        data_digest: Some(images.whole.digest().into()),
        split: (images.fraction > 0.0).then_some(split),
        sample,
        settings: json!({
            "trained_on": images.train.digest(),
            "train_range": how.range,
            "train_samples": how.samples,
            "epochs": args.epochs,
            "kept_epoch": epoch,
            "batch": args.batch_size,
            "precision": settings.precision.name(),
            "optimizer": format!("{:?}", args.optimizer).to_lowercase(),
            "lr": settings.rate,
            "momentum": args.momentum,
            "weight_decay": args.weight_decay,
            "schedule": args.schedule.name(),
            "warmup": args.warmup,
            "clip": args.clip,
            "label_smoothing": args.label_smoothing,
            "augment": {
                "flip": args.augment.flip,
                "shift": args.augment.shift,
                "crop": args.augment.crop,
            },
        }),
    }
}
