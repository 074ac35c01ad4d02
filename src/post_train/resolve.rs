//! Resolves options and a plan to a recipe: the method and its layers.

use crate::checkpoint::Checkpoint;
use crate::data::ValOrigin;
use crate::diagnose::findings::Plan;
use crate::diagnose::read_plan;
use crate::error::{Error, Result};
use crate::models::layers::{features, join, select};
use crate::models::{Layer, Network};
use crate::options;
use crate::train::options::LineOptions;
use crate::train::perturbation::StepRule;
use crate::train::recipe::{Recipe, ResolvedMethod, default_rule};
use crate::train::{MethodOptions, Preset};
use std::path::Path;

/// A recipe and the origin of its layers.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The recipe.
    pub recipe: Recipe,
    /// `named by the user`, `by the method`, `by the preset …`, `by the plan of …`.
    pub chosen_by: String,
}

/// Returns a plan for p and u, usually from a diagnosis; `None` if there is none.
pub type Planner<'a> = dyn Fn() -> Result<Option<Plan>> + 'a;

/// Takes p and u from the options, else from the report `plan`, else from the preset, else from a
/// diagnosis.
///
/// # Errors
/// Layers that do not exist or do not fit the method; no plan although one is needed.
pub fn resolve(
    method: &MethodOptions,
    preset: Option<Preset>,
    plan: Option<&Path>,
    checkpoint: &Checkpoint,
    val_origin: &ValOrigin,
    diagnose: &Planner,
) -> Result<Resolved> {
    let network = &checkpoint.network;
    let named = |name: Option<&str>| name.map(|name| layer(network, name)).transpose();
    let (mut perturb, mut update) = (named(method.perturb())?, named(method.update())?);
    let mut chosen_by = "named by the user".to_owned();
    match method {
        MethodOptions::Pof { .. } => {
            if plan.is_some() {
                let applies_to = "methods that use a plan (pof always perturbs the head and updates \
                                  all other layers)";
                let (option, applies_to) = ("plan".into(), applies_to.into());
                return Err(options::Error::NoEffect { option, applies_to }.into());
            }
            chosen_by = "by the method".into();
            perturb = Some(layer(network, "head")?);
            update = Some(features(network));
        }
        MethodOptions::Pol { .. } | MethodOptions::Sgd { .. } => {}
        // SAM and its variants.
        _ if update.is_none() && plan.is_none() => {
            chosen_by = "by the method".into();
            update = Some(layer(network, "*")?);
        }
        _ => {}
    }
    let wants_perturb = matches!(method, MethodOptions::Pol { .. });
    if update.is_none() || (wants_perturb && perturb.is_none()) {
        let of_preset = preset.and_then(|preset| Some((preset, preset.layers(network)?)));
        let ([p, u], from) = match (plan, of_preset) {
            (None, Some((preset, layers))) => (layers, format!("by the preset {}", preset.name())),
            _ => {
                let (found, from) = planned(plan, checkpoint, val_origin, diagnose)?;
                ([found.perturb, found.update], from)
            }
        };
        chosen_by = match perturb.is_some() || update.is_some() {
            true => format!("named by the user and {from}"),
            false => from,
        };
        update = match update {
            None => Some(layer(network, &u)?),
            named => named,
        };
        if wants_perturb && perturb.is_none() {
            perturb = Some(layer(network, &p)?);
        }
    } else if plan.is_some() && !matches!(method, MethodOptions::Pof { .. }) {
        let text = "`plan` has no effect, because the layers are already named: omit it, or omit `perturb` and \
                    `update`";
        return Err(options::Error::Conflict(text.into()).into());
    }
    let update = update.ok_or_else(|| Error::Missing("no layer to update: set `update`".into()))?;
    let recipe = recipe(method, network, update, perturb)?;
    Ok(Resolved { recipe, chosen_by })
}

/// The single layer that a name, list or glob stands for.
fn layer(network: &Network, name: &str) -> Result<Layer> {
    Ok(join(&select(network, name)?))
}

/// The recipe of the method on these layers.
fn recipe(
    method: &MethodOptions,
    network: &Network,
    update: Layer,
    perturb: Option<Layer>,
) -> Result<Recipe> {
    let none = LineOptions::default();
    let (line, resolved) = match method {
        MethodOptions::Pol { line, .. } => (line, ResolvedMethod::Pol),
        MethodOptions::Pof { line } => (line, ResolvedMethod::Pof),
        MethodOptions::SlSam { active_share, .. } => {
            (&none, ResolvedMethod::SlSam { share: *active_share })
        }
        other => {
            let sam = other.ascent().map(|(variant, _)| ResolvedMethod::Sam(variant));
            (&none, sam.unwrap_or(ResolvedMethod::Sgd))
        }
    };
    let rho = match method {
        MethodOptions::SlSam { rho, .. } => *rho,
        other => other.ascent().map_or(0.0, |(_, rho)| rho),
    };
    if let ResolvedMethod::Sam(variant) = resolved {
        // Fail before the frozen layers run.
        variant.perturbed(network, &update)?;
    }
    let usual = perturb.as_ref().map_or(StepRule::Search, |p| default_rule(network, p));
    Ok(Recipe {
        method: resolved,
        update,
        perturb,
        gamma: line.gamma,
        perturb_batch: line.perturb_batch,
        rule: line.step.unwrap_or(usual),
        no_minimum: line.no_minimum,
        perturb_replacement: line.perturb_replacement,
        rho,
        lora: method.lora(),
    })
}

/// The plan from a report, or from a diagnosis made now.
fn planned(
    report: Option<&Path>,
    checkpoint: &Checkpoint,
    val_origin: &ValOrigin,
    diagnose: &Planner,
) -> Result<(Plan, String)> {
    let (plan, from) = match report {
        Some(path) => {
            let plan = read_plan(path, checkpoint, val_origin)?;
            (plan, format!("by the plan of {}", path.display()))
        }
        None => (diagnose()?, "by the plan of a diagnosis made now".into()),
    };
    let none = "there is no plan: no layer's cross-fitted ΔL is significantly above 0; set `perturb` and \
                `update`, or use more validation images";
    Ok((plan.ok_or_else(|| Error::Missing(none.into()))?, from))
}
