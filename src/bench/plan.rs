//! Layers of PoL and of adapters: named by the user, or from a plan.

use super::{BenchOptions, BenchRunner};
use crate::checkpoint::Checkpoint;
use crate::data::ValOrigin;
use crate::diagnose::read_plan;
use crate::error::Error;
use crate::forecast::Part;
use crate::format::duration;
use crate::post_train::Preview;
use crate::session::Context;
use crate::train::MethodArgs;

/// The layers p (perturbed) and u (updated) of PoL, u of adapters, and their origin.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedLayers {
    /// p.
    pub perturb: String,
    /// u.
    pub update: String,
    /// Their origin.
    pub from: String,
    /// In a dry run, the forecast of the diagnosis.
    pub diagnosis_ahead: Option<Part>,
}

impl PlannedLayers {
    /// Head and last block, used without a plan.
    fn stand_in(checkpoint: &Checkpoint) -> Self {
        Self {
            perturb: "head".into(),
            update: checkpoint.network.last_block().name,
            from: "the head and the last block, because no layer was eligible".into(),
            diagnosis_ahead: None,
        }
    }
}

/// p and u: from the options, from a report, or from a diagnosis made now. If neither finds a
/// layer, the head and the last block.
///
/// # Errors
/// The diagnosis fails, or the report belongs to another checkpoint.
pub(super) fn plan<R: BenchRunner>(
    options: &BenchOptions,
    checkpoint: &Checkpoint,
    val_origin: &ValOrigin,
    runner: &R,
    preview: Preview,
    context: &Context,
) -> Result<PlannedLayers, R::Error> {
    let MethodArgs { perturb, update, .. } = &options.of_methods;
    if !options.needs_plan() {
        return Ok(PlannedLayers {
            perturb: perturb.clone().unwrap_or_else(|| "head".into()),
            update: update.clone().unwrap_or_default(),
            from: "named by the user".into(),
            diagnosis_ahead: None,
        });
    }
    if let (Some(preset), None) = (options.preset.preset, &options.plan)
        && let Some([p, u]) = preset.layers(&checkpoint.network)
    {
        return Ok(PlannedLayers {
            perturb: p,
            update: u,
            from: format!("from the preset {}", preset.name()),
            diagnosis_ahead: None,
        });
    }
    let plan = match &options.plan {
        Some(path) => read_plan(path, checkpoint, val_origin).map_err(Error::from)?,
        None => {
            if preview != Preview::None {
                let expected = runner.forecast_diagnosis(options.samples, context)?;
                context.info(&format!("diagnosis: about {}", duration(expected.seconds)));
                if preview == Preview::DryRun {
                    return Ok(PlannedLayers {
                        from: "unknown, because a dry run does not diagnose".into(),
                        diagnosis_ahead: Some(expected),
                        ..PlannedLayers::stand_in(checkpoint)
                    });
                }
            }
            runner.diagnose(options.samples, context)?
        }
    };
    let planned = match plan {
        Some(plan) => PlannedLayers {
            perturb: plan.perturb,
            update: plan.update,
            from: "from the cross-fitted diagnosis".into(),
            diagnosis_ahead: None,
        },
        None => PlannedLayers::stand_in(checkpoint),
    };
    let named = match (perturb, update) {
        (Some(_), _) => "p named by the user, otherwise ",
        (_, Some(_)) => "u named by the user, otherwise ",
        _ => "",
    };
    Ok(PlannedLayers { from: format!("{named}{}", planned.from), ..planned })
}
