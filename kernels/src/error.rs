//! What can be wrong with an operation's operands.

use candle_core::DType;

/// A failed operation: its name, what it expected and what it found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes do not fit together.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// A tensor is strided; operations take whole, row-major tensors.
    #[error(
        "{op}: expected a contiguous tensor, found strides {strides:?} for shape {shape:?}; call `contiguous()` first"
    )]
    Strided {
        /// The operation.
        op: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Its strides.
        strides: Vec<usize>,
    },
    /// Operands are of different types, or of one that no kernel takes.
    #[error(
        "{op}: expected f32 or f64 throughout, or on a GPU bf16 with parameters in f32, found {found:?}"
    )]
    DType {
        /// The operation.
        op: &'static str,
        /// The types.
        found: Vec<DType>,
    },
    /// A product in bf16 of something that is not plain f32.
    #[error(
        "{op}: a product in bf16 takes f32 without tangents, found {dtype:?} with {tangents}; derivatives along directions are taken in f32"
    )]
    Precision {
        /// The operation.
        op: &'static str,
        /// The operands' type.
        dtype: DType,
        /// Their tangents.
        tangents: usize,
    },
    /// A tensor lies on a device that no kernel serves.
    #[error("{op}: expected a tensor on {expected}, found one on {found}")]
    Device {
        /// The operation.
        op: &'static str,
        /// Where it should lie.
        expected: &'static str,
        /// The device.
        found: String,
    },
    /// A backward sweep asked for something the forward pass had not kept.
    #[error("{op}: the forward pass did not keep {what}")]
    NotKept {
        /// The operation.
        op: &'static str,
        /// The missing value.
        what: String,
    },
    /// A label that is no class.
    #[error("cross_entropy: label {label} of row {row}, expected one below {classes}")]
    Label {
        /// The row.
        row: usize,
        /// The label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A row operation that was only ever written for the CPU.
    #[error("{op}: no GPU kernel is named for it; run it on the CPU")]
    NoKernel {
        /// The operation.
        op: &'static str,
    },
    /// No GPU can be used.
    #[error("{what}; run with --device cpu")]
    Driver {
        /// Why.
        what: String,
    },
    /// An error of candle's.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A shape error.
    pub fn shape(op: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Shape { op, expected: expected.into(), found: found.into() }
    }
}
