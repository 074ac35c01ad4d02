//! Fine-tuning and post-training: one loop, and one file per method.

pub mod average;
pub mod bandit;
mod error;
mod feed;
pub mod groups;
pub mod guard;
mod keeping;
pub mod l2_sp;
pub mod late;
pub mod method;
mod method_args;
#[cfg(feature = "cuda")]
mod on_gpu;
pub mod optimizer;
pub mod options;
pub mod perturbation;
pub mod pof;
pub mod pol;
pub mod prefix;
pub mod preset;
pub mod recipe;
pub mod run;
pub mod sam;
pub mod schedule;
pub mod sgd;
pub mod sl_sam;
pub mod source;
pub mod stepper;

pub use average::Average;
pub use error::{Error, Result};
pub use groups::{Grouping, Groups};
pub use guard::{Keep, StopRule};
pub use l2_sp::L2Sp;
pub use method::{Method, Step};
pub use method_args::{AscentArgs, MethodArgs};
pub use optimizer::{Optimizer, OptimizerRule};
pub use options::{MethodName, MethodOptions, TrainOptions};
pub use perturbation::{Perturbation, Perturber};
pub use prefix::Prefix;
pub use preset::{Preset, PresetOptions};
pub use run::{Epoch, Outcome, TrainEvent, TrainSettings, train};
pub use schedule::{Schedule, Shape};
pub use source::Source;
pub use stepper::Stepper;
