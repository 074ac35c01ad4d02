//! `--precision`.

use super::common::Common;
use crate::device::Choice;
use planish_kernels::Precision;
use planish_kernels::bf16::Unit;

/// In what products of frozen forwards and of training are taken.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct PrecisionArg {
    /// Operands of matrix products in training and in frozen layers: f32, or rounded to bf16 and
    /// added up in f32; on a GPU activations between embedding and head are stored in bf16, too.
    /// Weights stay f32, and so do diagnosis and line search
    #[arg(long, value_enum, value_name = "f32|bf16", default_value = "f32")]
    pub precision: Name,
}

/// Values of `--precision`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// as the weights are
    F32,
    /// operands rounded to bf16
    Bf16,
}

impl PrecisionArg {
    /// The precision; says so if this machine gains nothing by it.
    pub fn choose(self, common: &Common) -> Precision {
        let slow = common.device == Choice::Cpu && !Unit::beats_f32();
        if self.precision == Name::Bf16 && slow {
            common.say(
                "note: this processor multiplies bf16 no faster than f32, or the system does not \
                 grant AMX: operands are rounded to bf16 all the same, and no time is gained",
            );
        }
        self.get()
    }

    /// The precision.
    pub fn get(self) -> Precision {
        match self.precision {
            Name::F32 => Precision::F32,
            Name::Bf16 => Precision::Bf16,
        }
    }
}
