//! The report of `hvp`: schema `planish/hvp/1`.

use crate::checkpoint::CheckpointInfo;
use crate::curvature::Probe;
use crate::data::{DamagedFile, DataInfo};
use crate::hvp::{HvpResult, LayerProducts};
use crate::objective::Matrix;
use crate::run::RunInfo;
use serde::Serialize;

/// Identifier and version of the schema.
pub const SCHEMA: &str = "planish/hvp/1";

/// Loss, norms and products of layers. The tensors are in a file of their own.
#[derive(Clone, Debug, Serialize)]
pub struct HvpReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Provenance of the report.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The images.
    pub data: DataInfo,
    /// Damaged image files that were decoded in part and used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// The matrix.
    pub operator: Matrix,
    /// Mean loss, nats.
    pub loss_nats: f64,
    /// Comparison of two evaluations; `None` if it was skipped.
    pub determinism: Option<Probe>,
    /// Products by layer.
    pub layers: Vec<LayerProducts>,
}

impl HvpReport {
    /// The report of a result.
    pub fn new(
        run: RunInfo,
        checkpoint: CheckpointInfo,
        operator: Matrix,
        found: HvpResult,
    ) -> Self {
        let HvpResult { loss_nats, determinism, layers, data, damaged, .. } = found;
        let schema = SCHEMA;
        Self { schema, run, checkpoint, data, damaged, operator, loss_nats, determinism, layers }
    }
}
