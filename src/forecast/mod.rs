//! Forecasts of time and memory. Time is operations divided by rates measured on this machine.
//! Memory is measured with a micro-batch on every thread.

mod calibrate;
mod expected;
mod operations;

pub use calibrate::{Calibration, calibrate, calibrate_passes, lower, start_within};
pub use expected::{Expected, Part};
pub use operations::{Operations, Perturbing, diagnose_work, step_work};

use serde::{Deserialize, Serialize};

/// Forecast of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The command or method.
    pub method: String,
    /// Seconds per epoch (for `diagnose`: total).
    pub seconds_per_epoch: f64,
    /// Peak memory of the process.
    pub peak_mib: f64,
}

/// Operations of one method in one epoch, independent of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The method.
    pub method: String,
    /// Operations per image of B, in units of 10⁹.
    pub gflop_per_image: f64,
}

/// Time and memory of a whole command.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Need {
    /// Seconds.
    pub seconds: f64,
    /// Peak memory of the process, MiB.
    pub mib: f64,
}

impl Need {
    /// With the seconds that have already passed.
    pub fn after(self, seconds: f64) -> Need {
        Need { seconds: self.seconds + seconds, ..self }
    }

    /// Sequential work: the sum of times and the higher peak.
    pub fn then(self, next: Need) -> Need {
        Need { seconds: self.seconds + next.seconds, mib: self.mib.max(next.mib) }
    }
}
