//! From options and a diagnosis to a recipe: which layers, which method, which settings.

use crate::checkpoint::Checkpoint;
use crate::report::diagnosis;
use crate::train::perturbation::Rule;
use crate::train::post::Settings;
use crate::train::recipe::{Kind, Recipe, default_rule};
use crate::vit::Layer;
use crate::vit::layers::{features, join, select};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Which layers, and on whose word.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LayerArgs {
    /// Layer to perturb [default: the plan's]
    #[arg(long, value_name = "L")]
    pub perturb: Option<String>,
    /// Layer or layers to update [default: the plan's]
    #[arg(long, value_name = "L")]
    pub update: Option<String>,
    /// Take the plan from this report of `diagnose` [default: diagnose first]
    #[arg(long, value_name = "REPORT")]
    pub plan: Option<PathBuf>,
}

/// Settings of the training itself.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Training options")]
pub struct RecipeArgs {
    /// Passes over the training set
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub epochs: usize,
    /// Images in B
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub batch_size: usize,
    /// Learning rate; a cosine takes it to 0
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    pub lr: f64,
    /// Momentum
    #[arg(long, value_name = "M", default_value_t = 0.9)]
    pub momentum: f64,
    /// Weight decay
    #[arg(long, value_name = "D", default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Images in B′, on which the perturbation is found
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub perturb_batch: usize,
    /// Γ: the perturbation is γ times the step to the minimum, γ uniform in (0, Γ)
    #[arg(long, value_name = "G", default_value_t = 2.0)]
    pub gamma: f64,
    /// How that step is found [default: newton below the last block, else search]
    #[arg(long, value_enum)]
    pub step: Option<StepName>,
    /// Seed of B, B′ and γ [default: --seed]
    #[arg(long, value_name = "S")]
    pub train_seed: Option<u64>,
    /// Validation images on which ΔL and κ of the layers are measured again, before and after; 0
    /// for none [default: all, or --samples]
    #[arg(long, value_name = "N")]
    pub remeasure: Option<usize>,
    /// Memory that the frozen layers' activations may take, in MiB; 0 computes them each time
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub cache: usize,
}

/// Methods on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// perturb one layer, update another
    Pol,
    /// perturb the head, update all else
    Pof,
    /// update, perturb nothing: the control
    Sgd,
}

/// Rules on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum StepName {
    /// first minimum along the line
    Search,
    /// one Hessian-vector product
    Newton,
}

/// Refuses settings that make no sense.
///
/// # Errors
/// The first such setting.
pub fn check(args: &RecipeArgs) -> anyhow::Result<()> {
    let positive = |name: &str, value: f64| -> anyhow::Result<()> {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        bail!("{name}: expected a positive number, found {value}")
    };
    positive("--lr", args.lr)?;
    positive("--gamma", args.gamma)?;
    positive("--epochs", args.epochs as f64)?;
    positive("--batch-size", args.batch_size as f64)?;
    positive("--perturb-batch", args.perturb_batch as f64)?;
    if !(0.0..1.0).contains(&args.momentum) {
        bail!("--momentum: expected a number in [0, 1), found {}", args.momentum)
    }
    if !(args.weight_decay.is_finite() && args.weight_decay >= 0.0) {
        bail!("--weight-decay: expected a number from 0 up, found {}", args.weight_decay)
    }
    Ok(())
}

/// The settings that every method shares.
pub fn settings(args: &RecipeArgs, seed: u64) -> Settings {
    Settings {
        epochs: args.epochs,
        batch: args.batch_size,
        learning_rate: args.lr,
        momentum: args.momentum,
        weight_decay: args.weight_decay,
        seed,
    }
}

/// p and u from the command line, from a report, or from a diagnosis made now.
///
/// # Errors
/// Layers that do not exist or do not go with the method; no plan where one is needed.
pub fn recipe(
    method: Name,
    args: &LayerArgs,
    training: &RecipeArgs,
    checkpoint: &Checkpoint,
    val_origin: &str,
    diagnose: &dyn Fn() -> anyhow::Result<Option<diagnosis::Plan>>,
) -> anyhow::Result<(Recipe, String)> {
    let config = &checkpoint.config;
    let named = |name: &Option<String>| -> anyhow::Result<Option<Layer>> {
        Ok(match name {
            Some(name) => Some(join(&select(config, name)?)),
            None => None,
        })
    };
    let (mut perturb, mut update) = (named(&args.perturb)?, named(&args.update)?);
    let mut chosen_by = "named by the user".to_owned();
    let kind = match method {
        Name::Pol => Kind::Pol,
        Name::Pof => Kind::Pof,
        Name::Sgd => Kind::Sgd,
    };
    match kind {
        Kind::Pof => {
            if args.perturb.is_some() || args.update.is_some() || args.plan.is_some() {
                bail!(
                    "PoF perturbs the head and updates all else: leave out --perturb, --update \
                     and --plan, or use --method pol"
                )
            }
            chosen_by = "by the method".into();
            perturb = named(&Some("head".into()))?;
            update = Some(features(config));
        }
        Kind::Sgd if args.perturb.is_some() => {
            bail!("SGD perturbs nothing: leave out --perturb, or use --method pol")
        }
        _ => {}
    }
    let wants_perturb = kind != Kind::Sgd;
    if update.is_none() || (wants_perturb && perturb.is_none()) {
        let (plan, from) = plan(args.plan.as_deref(), checkpoint, val_origin, diagnose)?;
        chosen_by = if args.perturb.is_some() || args.update.is_some() {
            format!("named by the user and {from}")
        } else {
            from
        };
        update = update.or(named(&Some(plan.update))?);
        if wants_perturb {
            perturb = perturb.or(named(&Some(plan.perturb))?);
        }
    }
    let update = update.context("no layer to update: pass --update")?;
    let rule = match (training.step, &perturb) {
        (Some(StepName::Search), _) => Rule::Search,
        (Some(StepName::Newton), _) => Rule::Newton,
        (None, Some(p)) => default_rule(config, p),
        (None, None) => Rule::Search,
    };
    let recipe = Recipe {
        kind,
        update,
        perturb,
        gamma_max: training.gamma,
        perturbation_batch: training.perturb_batch,
        rule,
    };
    Ok((recipe, chosen_by))
}

/// The plan of a report, or of a diagnosis made now.
fn plan(
    report: Option<&Path>,
    checkpoint: &Checkpoint,
    val_origin: &str,
    diagnose: &dyn Fn() -> anyhow::Result<Option<diagnosis::Plan>>,
) -> anyhow::Result<(diagnosis::Plan, String)> {
    let remedy = "name the layers with --perturb and --update, or give more validation images";
    let (plan, from) = match report {
        Some(path) => {
            (read_plan(path, checkpoint, val_origin)?, format!("by the plan of {}", path.display()))
        }
        None => (diagnose()?, "by the plan of a diagnosis made now".into()),
    };
    let plan = plan.with_context(|| {
        format!("there is no plan, as no layer's gap exceeds 1.96 standard errors; {remedy}")
    })?;
    Ok((plan, from))
}

/// The plan in a report of this very checkpoint.
///
/// # Errors
/// A file that is no such report, a report on another checkpoint, or one whose V would now be
/// test.
pub fn read_plan(
    path: &Path,
    checkpoint: &Checkpoint,
    val_origin: &str,
) -> anyhow::Result<Option<diagnosis::Plan>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the plan {}: give a report of `planish diagnose --json`",
            path.display()
        )
    })?;
    let report: diagnosis::Report = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of `planish diagnose --json`", path.display()))?;
    if report.schema != diagnosis::SCHEMA {
        bail!("{}: expected {}, found {}", path.display(), diagnosis::SCHEMA, report.schema)
    }
    if report.checkpoint.digest != checkpoint.digest {
        bail!(
            "{}: the plan was made for checkpoint {}, this one is {}; diagnose this one",
            path.display(),
            report.checkpoint.digest,
            checkpoint.digest
        )
    }
    let origin = &report.data.origin;
    if origin.starts_with("half of test") && origin != val_origin {
        bail!(
            "{}: the plan was made on {origin}, and V is now {val_origin}: some of its images \
             would be scored as test; pass that report's --seed, or diagnose again",
            path.display()
        )
    }
    Ok(report.findings.plan)
}
