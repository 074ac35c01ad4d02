//! The rows of a bench: each method follows its control.

use super::{BenchOptions, PlannedLayers};
use crate::models::Network;
use crate::options::Error;
use crate::train::{MethodArgs, MethodName, MethodOptions};

/// A row to train: a method on its layers, and the position of its control.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchRow {
    /// Method and layers, as shown in tables.
    pub name: String,
    /// The method, with all layers named.
    pub method: MethodOptions,
    /// Position of its control, unless it is a control.
    pub control: Option<usize>,
}

/// The rows to train. Each method follows its control, plain SGD on the same layers.
///
/// # Errors
/// An option out of range.
pub(super) fn rows(
    options: &BenchOptions,
    planned: Option<&PlannedLayers>,
    network: &Network,
) -> Result<Vec<BenchRow>, Error> {
    let features = all_but_head(network);
    let mut rows: Vec<BenchRow> = Vec::new();
    let mut add = |name: String, method: MethodOptions, control: Option<usize>| match rows
        .iter()
        .position(|row| row.name == name)
    {
        Some(known) => known,
        None => {
            rows.push(BenchRow { name, method, control });
            rows.len() - 1
        }
    };
    let MethodArgs { perturb: chosen_p, update: chosen, .. } = &options.of_methods;
    let chosen = chosen.as_deref();
    let planned_u = || chosen.or(planned.map(|plan| plan.update.as_str()));
    for row in options.methods() {
        let (perturb, update, label) = match row.method {
            MethodName::Pof => (Some("head"), features.as_str(), "all else"),
            MethodName::Pol => {
                let planned_p = planned.map(|plan| plan.perturb.as_str());
                let perturb = match row.perturbs_head {
                    false => chosen_p.as_deref().or(planned_p),
                    true => Some("head"),
                };
                let (Some(perturb), Some(update)) = (perturb, planned_u()) else { continue };
                (Some(perturb), update, update)
            }
            MethodName::Sgd => {
                let Some(update) = planned_u() else { continue };
                (None, update, update)
            }
            _ => {
                let update = chosen.unwrap_or("*");
                (None, update, if update == "*" { "all" } else { update })
            }
        };
        let sgd = MethodName::Sgd.title();
        let control = add(format!("{sgd} → {label}"), MethodOptions::sgd(update), None);
        let named = MethodArgs {
            perturb: perturb.map(Into::into),
            update: Some(update.into()),
            ..options.preset.fill(&options.of_methods, row.method)
        };
        let method = named.of(row.method).method(row.method)?;
        let title = method.lora().title().unwrap_or_else(|| row.method.title().into());
        let from = perturb.map_or(String::new(), |p| format!(" {p}"));
        add(format!("{title}{from} → {label}"), method, Some(control));
    }
    Ok(rows)
}

/// All layers but the head, with globs: `embed,block.*,norm`.
fn all_but_head(network: &Network) -> String {
    let mut names: Vec<String> = Vec::new();
    let blocks = network.blocks();
    for layer in blocks.split_last().map_or(&[][..], |(_, rest)| rest) {
        let name = match layer.name.split_once('.') {
            Some((first, _)) => format!("{first}.*"),
            None => layer.name.clone(),
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names.join(",")
}
