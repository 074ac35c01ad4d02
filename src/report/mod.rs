//! Reports: one versioned JSON schema for each command that measures.
//!
//! Report types contain results only: each command's `new` takes what its session returned.

mod answers;
pub mod bench;
mod calibration;
pub mod comparison;
pub mod diagnosis;
pub mod dry_run;
pub mod epochs;
mod evaluation;
mod finetuning;
mod fixing;
#[cfg(feature = "html")]
pub mod html;
pub mod hvp;
mod inspection;
mod merging;
pub mod post_training;
mod prediction;
mod remedies;
mod resume;
pub mod search;
mod selftest;
pub mod sentence;
pub mod tensorboard;

pub use answers::{
    AnswerTable, answer_tables, epoch_zero_note, intervals_sentence, unanswered_note,
};
pub use calibration::{CALIBRATION, CalibrationReport, Conformal, SET_HEADERS, laplace_sentence};
pub use evaluation::{EVALUATION, Evaluation};
pub use finetuning::{FINETUNING, Finetuning};
pub use fixing::{BASELINE_HEADERS, FIXING, Fixing, STEP_HEADERS};
pub use inspection::{INSPECTION, Inspection, LayerInfo, ModelInfo, VitInfo};
pub use merging::{MERGING, Merging};
pub use prediction::{PREDICTION, Prediction};
pub use remedies::{HeatCell, HeatMap, MOVE_HEADERS, NO_MOVE, heat_map, move_rows};
pub use resume::{EarlierEvaluation, Occupied};
pub use selftest::{SELFTEST, Selftest};
