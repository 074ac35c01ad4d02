//! The diagnosis cell of a model.

use super::CellFigures;
use super::setup::Opened;
use crate::diagnose::MeasureOptions;
use crate::diagnose::Measurer;
use crate::error::Result;
use crate::models::Granularity;
use crate::models::layers::layers;
use crate::session::Context;

/// ΔL and κ of every layer on V, and the losses.
///
/// # Errors
/// Those of diagnosing.
pub fn diagnosis(opened: &Opened, context: &Context) -> Result<CellFigures> {
    let quiet = context.silenced();
    let session = Measurer::new(&opened.checkpoint, &opened.roles, None, &quiet)?;
    let all = layers(&opened.checkpoint.network, Granularity::Block);
    Ok(session.measure(&all, &MeasureOptions::default(), &quiet)?.into())
}
