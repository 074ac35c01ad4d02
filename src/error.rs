//! The crate's top-level error type, which wraps each module's errors.

use crate::{
    cache, checkpoint, compare, curvature, data, diagnose, engine, evaluate, finetune, hvp, merge,
    models, objective, options, output, predictions, pretrained, report, session, shift, study,
    train,
};

/// Anything that can go wrong in a session.
///
/// Messages name options by their field, in backticks, and names from files, data and users in
/// double quotes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid option.
    #[error(transparent)]
    Options(#[from] options::Error),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The images.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Layers, or weights that do not fit the model.
    #[error(transparent)]
    Model(#[from] models::Error),
    /// Evaluating the model.
    #[error(transparent)]
    Objective(#[from] objective::Error),
    /// Training.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Curvature and diagnosis.
    #[error(transparent)]
    Curvature(#[from] curvature::Error),
    /// Fine-tuning that cannot start.
    #[error(transparent)]
    Finetune(#[from] finetune::Error),
    /// Products that are not computed.
    #[error(transparent)]
    Hvp(#[from] hvp::Error),
    /// Models that cannot be compared.
    #[error(transparent)]
    Compare(#[from] compare::Error),
    /// Checkpoints that cannot be merged.
    #[error(transparent)]
    Merge(#[from] merge::Error),
    /// Weights before fine-tuning that do not belong to the checkpoint.
    #[error(transparent)]
    Pretrained(#[from] pretrained::Misfit),
    /// A plan that cannot be used.
    #[error(transparent)]
    Plan(#[from] diagnose::PlanError),
    /// Cached activations.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// Logits and labels.
    #[error(transparent)]
    Predictions(#[from] predictions::Error),
    /// Metrics.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// Saved logits.
    #[error(transparent)]
    Saved(#[from] session::saved::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A file that cannot be written.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// Tensors that cannot be read or written.
    #[error(transparent)]
    Tensors(#[from] session::tensors::Error),
    /// Images that cannot be corrupted.
    #[error(transparent)]
    Shift(#[from] shift::Error),
    /// A report that would be overwritten.
    #[error(transparent)]
    Occupied(#[from] report::Occupied),
    /// A study's folder.
    #[error(transparent)]
    Study(#[from] study::Error),
    /// A study file.
    #[error(transparent)]
    StudyFile(#[from] study::Problem),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A value that JSON cannot represent.
    #[error("cannot write as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Another error, with the context in which it occurred.
    #[error("{context}")]
    Context {
        /// What was attempted, or where.
        context: String,
        /// What went wrong.
        source: Box<Error>,
    },
    /// Something required is missing.
    #[error("{0}")]
    Missing(String),
    /// The work does not fit the memory limit.
    #[error("{0}")]
    Memory(String),
    /// The result was not written because it is worse on V.
    #[error("{0}")]
    Refused(String),
}

/// Result of work in a session.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Adds context to the error.
    pub fn context(self, context: impl Into<String>) -> Self {
        Self::Context { context: context.into(), source: Box::new(self) }
    }
}
