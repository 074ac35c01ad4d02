//! Arguments that several commands share. The library declares the options of the work itself.

mod common;
mod model;
mod place;

pub use common::Common;
pub use model::ModelArgs;
pub use place::PlaceArgs;
pub use planish::options::Limit;

use planish::device::DeviceChoice;
use planish::engine::Precision;
use planish_kernels::bf16::Unit;

/// Prints a note if bf16 is not faster on this machine.
pub fn note_precision(precision: Precision, common: &Common) {
    if precision == Precision::Bf16
        && common.engine.device == DeviceChoice::Cpu
        && !Unit::beats_f32()
    {
        common.say(
            "note: bf16 is not faster than f32 here: the processor has no AMX, or the system does \
             not permit its use. Operands are rounded to bf16 anyway",
        );
    }
}
