//! The report of `selftest`.

use crate::checkpoint::CheckpointInfo;
use crate::data::DataInfo;
use crate::run::RunInfo;
use crate::selftest::Check;
use serde::{Deserialize, Serialize};

/// Schema of [`Selftest`].
pub const SELFTEST: &str = "planish/selftest/1";

/// Checks on one model, and the verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selftest {
    /// [`SELFTEST`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The images; `None` for noise.
    pub data: Option<DataInfo>,
    /// Number of images.
    pub images: usize,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// Whether all checks passed.
    pub passed: bool,
}
