//! Arguments that several commands share. Options of the work itself are declared in the library.

mod common;
mod method;
mod model;

pub use common::{Common, Limit};
pub use method::MethodArgs;
pub use model::ModelArgs;

use planish::checkpoint::Checkpoint;
use planish::data::{DataOptions, Error as DataError, Roles};
use planish::device::Choice;
use planish::session::{Context, Data};
use planish_kernels::Precision;
use planish_kernels::bf16::Unit;

/// Reads the data and chooses its splits for this checkpoint.
///
/// # Errors
/// Those of [`Data::open`] and [`Data::roles`].
pub fn roles(
    data: &DataOptions,
    checkpoint: &Checkpoint,
    context: &Context,
) -> Result<Roles, DataError> {
    Data::open(data, checkpoint)?.roles(checkpoint, context.seed)
}

/// Says so if this machine gains nothing by bf16.
pub fn note_precision(precision: Precision, common: &Common) {
    if precision == Precision::Bf16 && common.device == Choice::Cpu && !Unit::beats_f32() {
        common.say(
            "note: this processor multiplies bf16 no faster than f32, or the system withholds AMX: \
             operands are rounded to bf16, and no time is gained",
        );
    }
}
