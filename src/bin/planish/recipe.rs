//! From options and a diagnosis to a recipe: which layers, which method.

use super::training::{LineArgs, RecipeArgs, SamArgs, StepName};
use anyhow::{Context, bail};
use planish::checkpoint::Checkpoint;
use planish::diagnose::findings::Plan;
use planish::report::diagnosis;
use planish::train::perturbation::Rule;
use planish::train::recipe::{Kind, Recipe, default_rule};
use planish::train::sam::Variant;
use planish::vit::Layer;
use planish::vit::layers::{features, join, select};
use std::path::{Path, PathBuf};

/// Which layers, and on whose word.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LayerArgs {
    /// Layer to perturb [default: the plan's]
    #[arg(long, value_name = "L")]
    pub perturb: Option<String>,
    /// Layer or layers to update [default: the plan's; all of them for SAM and its variants]
    #[arg(long, value_name = "L")]
    pub update: Option<String>,
    /// Take the plan from this report of `diagnose` [default: diagnose first]
    #[arg(long, value_name = "REPORT")]
    pub plan: Option<PathBuf>,
}

/// Methods on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// perturb one layer, update another
    Pol,
    /// perturb the head, update all else
    Pof,
    /// climb, then update by the gradient found there: sharpness-aware minimisation
    Sam,
    /// SAM, its climb scaled by the weights
    Asam,
    /// SAM that climbs at every k-th step only
    Looksam,
    /// SAM that perturbs normalisation layers alone
    SamNorm,
    /// update, perturb nothing: the control
    Sgd,
}

impl Name {
    /// The method with its own settings.
    fn kind(self, args: &SamArgs) -> Kind {
        match self {
            Name::Pol => Kind::Pol,
            Name::Pof => Kind::Pof,
            Name::Sgd => Kind::Sgd,
            Name::Sam => Kind::Sam(Variant::Plain),
            Name::Asam => Kind::Sam(Variant::Adaptive { eta: args.asam_eta.unwrap_or(0.01) }),
            Name::Looksam => Kind::Sam(Variant::Look {
                every: args.look_every.unwrap_or(5),
                alpha: args.look_alpha.unwrap_or(0.7),
            }),
            Name::SamNorm => Kind::Sam(Variant::Norms),
        }
    }
}

/// Refuses options that none of the methods, as the command line calls them, would heed.
///
/// # Errors
/// The first such option.
pub fn check_heeded(methods: &[&str], line: &LineArgs, sam: &SamArgs) -> anyhow::Result<()> {
    let flags: [(&str, bool, &[&str]); 7] = [
        ("--perturb-batch", line.perturb_batch.is_some(), &["pol", "pof"]),
        ("--gamma", line.gamma.is_some(), &["pol", "pof"]),
        ("--step", line.step.is_some(), &["pol", "pof"]),
        ("--rho", sam.rho.is_some(), &["sam", "asam", "looksam", "sam-norm"]),
        ("--asam-eta", sam.asam_eta.is_some(), &["asam"]),
        ("--look-every", sam.look_every.is_some(), &["looksam"]),
        ("--look-alpha", sam.look_alpha.is_some(), &["looksam"]),
    ];
    let heeded = |by: &[&str]| by.iter().any(|name| methods.contains(name));
    match flags.iter().find(|(_, given, by)| *given && !heeded(by)) {
        Some((flag, _, by)) => bail!(
            "{flag} is of {} alone, found {}: leave it out, or choose such a method",
            by.join(", "),
            methods.join(", ")
        ),
        None => Ok(()),
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
    diagnose: &dyn Fn() -> anyhow::Result<Option<Plan>>,
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
    let kind = method.kind(&training.sam);
    check_heeded(&[kind.name()], &training.line, &training.sam)?;
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
        Kind::Sam(_) if args.perturb.is_some() => {
            bail!(
                "SAM climbs on the layers that it updates: leave out --perturb, or use --method pol"
            )
        }
        Kind::Sam(_) if args.update.is_none() && args.plan.is_none() => {
            chosen_by = "by the method".into();
            update = named(&Some("*".into()))?;
        }
        _ => {}
    }
    let wants_perturb = matches!(kind, Kind::Pol | Kind::Pof);
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
    } else if args.plan.is_some() {
        bail!(
            "--plan: the layers are named already: leave it out, or leave out --perturb and --update"
        )
    }
    let update = update.context("no layer to update: pass --update")?;
    let rule = match (training.line.step, &perturb) {
        (Some(StepName::Search), _) => Rule::Search,
        (Some(StepName::Newton), _) => Rule::Newton,
        (None, Some(p)) => default_rule(config, p),
        (None, None) => Rule::Search,
    };
    let recipe = Recipe {
        kind,
        update,
        perturb,
        gamma_max: training.line.gamma.unwrap_or(2.0),
        perturbation_batch: training.line.perturb_batch.unwrap_or(256),
        rule,
        rho: match kind {
            Kind::Sam(variant) => training.sam.rho.unwrap_or(variant.usual_rho()),
            _ => 0.0,
        },
    };
    if let Kind::Sam(variant) = kind {
        // Known now, before the frozen layers have taken their time.
        variant.perturbed(config, &recipe.update)?;
    }
    Ok((recipe, chosen_by))
}

/// The plan of a report, or of a diagnosis made now.
fn plan(
    report: Option<&Path>,
    checkpoint: &Checkpoint,
    val_origin: &str,
    diagnose: &dyn Fn() -> anyhow::Result<Option<Plan>>,
) -> anyhow::Result<(Plan, String)> {
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

/// A file of `--plan` that is no diagnosis.
#[derive(Debug, thiserror::Error)]
#[error(
    "--plan {}: expected a report of schema {}, found {found}; pass what `planish diagnose --json` wrote",
    .path.display(), diagnosis::SCHEMA
)]
pub struct Unplanned {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub found: String,
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
) -> anyhow::Result<Option<Plan>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the plan {}: give a report of `planish diagnose --json`",
            path.display()
        )
    })?;
    let other = |found: String| Unplanned { path: path.into(), found };
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| other(format!("no JSON ({e})")))?;
    let schema = value["schema"].as_str().unwrap_or("JSON without a schema").to_owned();
    if schema != diagnosis::SCHEMA {
        return Err(other(schema).into());
    }
    let report: diagnosis::Report = serde_json::from_value(value)
        .map_err(|e| other(format!("that schema with other contents ({e})")))?;
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
