//! The report of `selftest`.

use crate::checkpoint::CheckpointInfo;
use crate::data::DataInfo;
use crate::run::RunInfo;
use crate::selftest::{Check, SelftestResult};
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

impl Selftest {
    /// The report of a self-test.
    pub fn new(run: RunInfo, checkpoint: CheckpointInfo, found: SelftestResult) -> Self {
        let SelftestResult { checks, passed, images, data } = found;
        Self { schema: SELFTEST.into(), run, checkpoint, data, images, checks, passed }
    }
}
