//! Time and memory before the work: operations over rates measured on this machine, and memory
//! measured on as many micro-batches as leave no thread idle.

mod calibrate;
mod expected;
mod operations;

pub use calibrate::{Calibration, calibrate, lower, start_within};
pub use expected::{Expected, Part};
pub use operations::{Operations, Perturbing, diagnose_work, step_work};

use serde::{Deserialize, Serialize};

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The command or method.
    pub method: String,
    /// Seconds for one epoch (for `diagnose`: in all).
    pub seconds_per_epoch: f64,
    /// Peak memory of the process.
    pub peak_mib: f64,
}

/// Work of one method and epoch, whatever the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The method.
    pub method: String,
    /// Operations an image of B, in units of 10⁹.
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
    /// With the seconds that have passed already.
    pub fn after(self, seconds: f64) -> Need {
        Need { seconds: self.seconds + seconds, ..self }
    }

    /// One after the other: times add, the higher peak counts.
    pub fn then(self, next: Need) -> Need {
        Need { seconds: self.seconds + next.seconds, mib: self.mib.max(next.mib) }
    }
}
