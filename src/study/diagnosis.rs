//! The diagnosis cell of a model.

use super::setup::Opened;
use crate::diagnose::MeasureOptions;
use crate::diagnose::findings::LayerResult;
use crate::diagnose::session::DiagnoseSession;
use crate::error::Result;
use crate::models::Granularity;
use crate::models::layers::layers;
use crate::session::Context;
use serde_json::{Map, Value, json};

/// ΔL and κ of every layer on V, and the losses.
///
/// # Errors
/// Those of diagnosing.
pub fn diagnosis(opened: &Opened, context: &Context) -> Result<Map<String, Value>> {
    let quiet = context.silenced();
    let session = DiagnoseSession::new(&opened.checkpoint, &opened.roles, None, &quiet)?;
    let all = layers(&opened.checkpoint.network, Granularity::Block);
    let found = session.measure(&all, &MeasureOptions::default(), &quiet)?;
    let measured: Map<String, Value> =
        found.layers.iter().map(|l| (l.name.clone(), columns(l))).collect();
    let mut figures = Map::new();
    figures.insert("layers".into(), measured.into());
    figures.insert("loss".into(), json!(found.loss_nats));
    figures.insert("plan".into(), json!(found.plan));
    figures.insert("plan_in_sample".into(), json!(found.plan_in_sample));
    Ok(figures)
}

fn columns(l: &LayerResult) -> Value {
    let (gap, beyond, sharp) = (&l.delta_l_nats, &l.delta_l_calibrated_nats, &l.kappa);
    json!({
        "delta_l_cross_fit": gap.cross_fit,
        "delta_l_stderr": gap.stderr,
        "delta_l_in_sample": gap.in_sample,
        "delta_l_calibrated_cross_fit": beyond.cross_fit,
        "delta_l_calibrated_stderr": beyond.stderr,
        "delta_l_calibrated_in_sample": beyond.in_sample,
        "kappa_cross_fit": sharp.cross_fit,
        "kappa_stderr": sharp.stderr,
        "kappa_in_sample": sharp.in_sample,
        "eligible": l.eligible,
        "displacement": l.displacement,
        "gradient_norm": l.gradient_norm,
        "weight_norm": l.weight_norm,
        "layer_parameters": l.parameters,
    })
}
