//! Expected time and memory of a run, by part.

use super::Need;
use serde::{Deserialize, Serialize};

/// Expected time and memory of a part of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Name: `so far`, `diagnosis`, `frozen layers`, `training`, `figures`, `layers measured
    /// again`.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
    /// Peak memory of the process during it, MiB.
    pub peak_mib: f64,
}

/// Expected time and memory of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Total seconds.
    pub seconds: f64,
    /// Peak memory of the process, MiB.
    pub peak_mib: f64,
    /// Peak memory of the GPU, MiB, if one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_peak_mib: Option<u64>,
    /// By part, in order.
    pub parts: Vec<Part>,
}

impl Part {
    /// A part with this name.
    pub fn new(name: &str, need: Need) -> Self {
        Self { name: name.into(), seconds: need.seconds, peak_mib: need.mib }
    }
}

impl Expected {
    /// The sum of the parts' times, and the maximum of their peaks.
    pub fn of(parts: Vec<Part>) -> Self {
        Self {
            seconds: parts.iter().map(|part| part.seconds).sum(),
            peak_mib: parts.iter().map(|part| part.peak_mib).fold(0.0, f64::max),
            device_peak_mib: None,
            parts,
        }
    }

    /// The same with a part added before the others.
    pub fn preceded(mut self, part: Part) -> Self {
        self.seconds += part.seconds;
        self.peak_mib = self.peak_mib.max(part.peak_mib);
        self.parts.insert(0, part);
        self
    }

    /// Seconds of the part with this name.
    pub fn seconds_of(&self, name: &str) -> f64 {
        self.parts.iter().filter(|part| part.name == name).map(|part| part.seconds).sum()
    }
}
