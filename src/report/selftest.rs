//! What `selftest` reports.

use crate::checkpoint::CheckpointInfo;
use crate::data::DataInfo;
use crate::run::Run;
use crate::selftest::Check;
use serde::{Deserialize, Serialize};

/// Schema of [`Selftest`].
pub const SELFTEST: &str = "planish/selftest/1";

/// Checks on one model, with a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selftest {
    /// [`SELFTEST`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: Run,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The images; none if noise stood in for them.
    pub data: Option<DataInfo>,
    /// How many images.
    pub images: usize,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// Whether all passed.
    pub passed: bool,
}
