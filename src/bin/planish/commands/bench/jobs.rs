//! The rows of a bench: each method follows its control.

use super::{Args, Name, read};
use crate::args::Common;
use crate::commands::diagnose;
use crate::exec::ChildCommand;
use planish::checkpoint::Checkpoint;
use planish::data::ValOrigin;
use planish::diagnose::read_plan;
use planish::forecast::Part;
use planish::format::duration;
use planish::models::Network;
use planish::options::Error as OptionError;
use planish::report::dry_run::DryRun;
use planish::train::{MethodArgs, MethodName};
use std::path::Path;

/// One trained row: its name, its options, and the position of its control.
pub struct Job {
    /// Method and layers, as shown in the table.
    pub name: String,
    /// The method.
    pub method: MethodName,
    /// Its options.
    pub options: MethodArgs,
    /// Position of its control, unless it is a control.
    pub control: Option<usize>,
}

/// The layers p (perturbed) and u (updated) of PoL, and their origin.
pub struct Planned {
    /// p.
    pub perturb: String,
    /// u.
    pub update: String,
    /// Their origin.
    pub from: String,
    /// In a dry run, the forecast of the diagnosis.
    pub ahead: Option<Part>,
}

/// p and u of PoL: from a report, or from a diagnosis made now. If neither finds a layer, the head
/// and the last block.
///
/// # Errors
/// The diagnosis fails, or the report belongs to another checkpoint.
pub fn plan(
    args: &Args,
    folder: &Path,
    checkpoint: &Checkpoint,
    val_origin: &ValOrigin,
) -> anyhow::Result<Planned> {
    let MethodArgs { perturb, update, .. } = &args.of_methods;
    if let (Some(perturb), Some(update)) = (perturb, update) {
        return Ok(Planned {
            perturb: perturb.clone(),
            update: update.clone(),
            from: "named by --perturb and --update".into(),
            ahead: None,
        });
    }
    let path = match &args.plan {
        Some(path) => path.clone(),
        None => {
            let path = folder.join("diagnosis.json");
            let common = Common { json: Some(path.clone()), ..args.common.clone() };
            let mut child = diagnose::Args::new(args.model.clone(), args.data.clone(), common);
            (child.options.samples, child.limit) = (args.samples, args.limit);
            if args.dry_run || !args.common.quiet {
                let dry = diagnose::Args { dry_run: true, ..child.clone() };
                ChildCommand::Diagnose(Box::new(dry)).spawn(&args.common)?;
                let mut found: DryRun = read(&path)?;
                let line = format!("diagnosis: about {}", duration(found.expected.seconds));
                args.common.say(&line);
                if args.dry_run {
                    return Ok(Planned {
                        from: "unknown, because a dry run does not diagnose".into(),
                        ahead: found.expected.parts.pop(),
                        ..stand_in(checkpoint)
                    });
                }
            }
            ChildCommand::Diagnose(Box::new(child)).spawn(&args.common)?;
            path
        }
    };
    let planned = match read_plan(&path, checkpoint, val_origin)? {
        Some(plan) => Planned {
            perturb: plan.perturb,
            update: plan.update,
            from: "from the cross-fitted diagnosis".into(),
            ahead: None,
        },
        None => stand_in(checkpoint),
    };
    let named = match (perturb, update) {
        (Some(_), _) => "p from --perturb, otherwise ",
        (_, Some(_)) => "u from --update, otherwise ",
        _ => "",
    };
    Ok(Planned { from: format!("{named}{}", planned.from), ..planned })
}

/// Head and last block, used without a plan.
fn stand_in(checkpoint: &Checkpoint) -> Planned {
    Planned {
        perturb: "head".into(),
        update: checkpoint.network.last_block().name,
        from: "the head and the last block, because no layer was eligible".into(),
        ahead: None,
    }
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

/// The rows to train. Each method follows its control, plain SGD on the same layers.
///
/// # Errors
/// An option out of range.
pub fn jobs(args: &Args, planned: Option<&Planned>, network: &Network) -> anyhow::Result<Vec<Job>> {
    let features = all_but_head(network);
    let mut jobs: Vec<Job> = Vec::new();
    let mut add = |name: String,
                   method: MethodName,
                   options: MethodArgs,
                   control: Option<usize>|
     -> Result<usize, OptionError> {
        if let Some(known) = jobs.iter().position(|j| j.name == name) {
            return Ok(known);
        }
        options.method(method)?;
        jobs.push(Job { name, method, options, control });
        Ok(jobs.len() - 1)
    };
    let chosen = args.of_methods.update.as_deref();
    for name in &args.methods {
        let method = name.method();
        let (perturb, update, label) = match name {
            Name::Pof => (Some("head"), features.as_str(), "all else"),
            Name::Pol | Name::PolHead => {
                let Some(plan) = planned else { continue };
                let perturb = match name {
                    Name::Pol => args.of_methods.perturb.as_deref().unwrap_or(&plan.perturb),
                    _ => "head",
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
        let control = MethodArgs { update: Some(update.into()), ..MethodArgs::default() };
        let control = add(format!("SGD → {label}"), MethodName::Sgd, control, None)?;
        let own = args.of_methods.of(method);
        let options = match name {
            Name::Pof => MethodArgs { perturb: None, update: None, ..own },
            _ => {
                MethodArgs { perturb: perturb.map(Into::into), update: Some(update.into()), ..own }
            }
        };
        add(format!("{}{from} → {label}", name.title()), method, options, Some(control))?;
    }
    Ok(jobs)
}
