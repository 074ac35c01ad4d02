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
    let chosen = options.of_methods.update.as_deref();
    for row in &options.methods {
        let (perturb, update, label) = match row.method {
            MethodName::Pof => (Some("head"), features.as_str(), "all else"),
            MethodName::Pol => {
                let Some(plan) = planned else { continue };
                let perturb = match row.perturbs_head {
                    false => options.of_methods.perturb.as_deref().unwrap_or(&plan.perturb),
                    true => "head",
                };
                let update = chosen.unwrap_or(&plan.update);
                (Some(perturb), update, update)
            }
            _ => {
                let update = chosen.unwrap_or("*");
                (None, update, if update == "*" { "all" } else { update })
            }
        };
        let from = perturb.map_or(String::new(), |p| format!(" {p}"));
        let sgd = MethodName::Sgd.title();
        let control = add(format!("{sgd} → {label}"), MethodOptions::sgd(update), None);
        let named = MethodArgs {
            perturb: perturb.map(Into::into),
            update: Some(update.into()),
            ..options.preset.fill(&options.of_methods, row.method)
        };
        let method = named.of(row.method).method(row.method)?;
        add(format!("{}{from} → {label}", row.method.title()), method, Some(control));
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
