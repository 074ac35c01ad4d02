//! The rows of a bench: methods, each after its control.

use super::{Args, Name, read};
use crate::children::{Words, spawn};
use crate::recipe::read_plan;
use planish::checkpoint::Checkpoint;
use planish::forecast::Part;
use planish::format::duration;
use planish::report::dry_run::DryRun;
use std::path::Path;

/// One trained row: its name, its options, and the position of its control.
pub struct Job {
    /// Method and layers, as the table has them.
    pub name: String,
    /// Its options.
    pub options: Words,
    /// Its control's position, if it is not one itself.
    pub control: Option<usize>,
}

/// p and u of PoL, and where they come from.
pub struct Planned {
    /// p.
    pub perturb: String,
    /// u.
    pub update: String,
    /// Where they come from.
    pub from: String,
    /// In a dry run, the diagnosis that would find them.
    pub ahead: Option<Part>,
}

/// p and u of PoL: of a report, of a diagnosis made now, or where neither finds a layer, the head
/// and the last block.
///
/// # Errors
/// A diagnosis that fails, or a report that is not of this checkpoint.
pub fn plan(
    args: &Args,
    folder: &Path,
    checkpoint: &Checkpoint,
    val_origin: &str,
) -> anyhow::Result<Planned> {
    if let (Some(perturb), Some(update)) = (&args.perturb, &args.update) {
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
            let mut words = Words::new("diagnose", &args.model, &args.data).limit(&args.limit);
            if let Some(n) = args.samples {
                words.option("--samples", n);
            }
            words.option("--seed", args.common.seed).option("--json", path.display());
            if args.dry_run || !args.common.quiet {
                let mut dry = words.clone();
                spawn(dry.flag("--dry-run"), &args.common)?;
                let mut found: DryRun = read(&path)?;
                let line = format!("a diagnosis first: about {}", duration(found.expected.seconds));
                args.common.say(&line);
                if args.dry_run {
                    return Ok(Planned {
                        from: "no plan: a dry run does not diagnose".into(),
                        ahead: found.expected.parts.pop(),
                        ..stand_in(checkpoint)
                    });
                }
            }
            spawn(&words, &args.common)?;
            path
        }
    };
    let planned = match read_plan(&path, checkpoint, val_origin)? {
        Some(plan) => Planned {
            perturb: plan.perturb,
            update: plan.update,
            from: "by the cross-fitted diagnosis".into(),
            ahead: None,
        },
        None => stand_in(checkpoint),
    };
    let named = match (&args.perturb, &args.update) {
        (Some(_), _) => "p by --perturb; else ",
        (_, Some(_)) => "u by --update; else ",
        _ => "",
    };
    Ok(Planned { from: format!("{named}{}", planned.from), ..planned })
}

/// Head and last block, where there is no plan.
fn stand_in(checkpoint: &Checkpoint) -> Planned {
    Planned {
        perturb: "head".into(),
        update: format!("block.{}", checkpoint.config.depth.saturating_sub(1)),
        from: "no layer was eligible: head and last block stand in for a plan".into(),
        ahead: None,
    }
}

/// The rows to train, every method after its control: plain SGD on the same layers.
pub fn jobs(args: &Args, planned: Option<&Planned>) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut add = |name: String, options: Words, control: Option<usize>| -> usize {
        if let Some(known) = jobs.iter().position(|j| j.name == name) {
            return known;
        }
        jobs.push(Job { name, options, control });
        jobs.len() - 1
    };
    let words = |method: &str, perturb: Option<&str>, update: Option<&str>| {
        let mut words = Words::default();
        words.option("--method", method);
        for (name, value) in [("--perturb", perturb), ("--update", update)] {
            if let Some(value) = value {
                words.option(name, value);
            }
        }
        words
    };
    let chosen = args.update.as_deref();
    for method in &args.methods {
        let (own, title) = method.names();
        let (perturb, updated, label) = match method {
            Name::Pof => (Some("head"), "embed,block.*,norm", "all else"),
            Name::Pol | Name::PolHead => {
                let Some(plan) = planned else { continue };
                let perturb = match method {
                    Name::Pol => args.perturb.as_deref().unwrap_or(&plan.perturb),
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
        let mut options = match method {
            Name::Pof => words(own, None, None),
            _ => words(own, perturb, Some(updated)),
        };
        match perturb {
            Some(_) => options.line(&args.recipe.line),
            None => options.sam(own, &args.recipe.sam),
        }
        let control = add(format!("SGD → {label}"), words("sgd", None, Some(updated)), None);
        add(format!("{title}{from} → {label}"), options, Some(control));
    }
    jobs
}
