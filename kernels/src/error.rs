//! Errors of operations.

use candle_core::DType;

/// Why an operation failed: its name, what it expected and what it found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes do not match.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Expected shape.
        expected: String,
        /// Shape found.
        found: String,
    },
    /// A tensor is strided; operations need contiguous row-major tensors.
    #[error(
        "{op}: expected a contiguous tensor, found strides {strides:?} for shape {shape:?}; call `contiguous()` first"
    )]
    Strided {
        /// The operation.
        op: &'static str,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Strides of the tensor.
        strides: Vec<usize>,
    },
    /// Operands have different types, or a type without kernels.
    #[error(
        "{op}: expected all operands in f32 or all in f64 (or, on a GPU, bf16 with parameters in f32), found {found:?}"
    )]
    DType {
        /// The operation.
        op: &'static str,
        /// The types found.
        found: Vec<DType>,
    },
    /// An operand of a bf16 product is not f32 or has tangents.
    #[error(
        "{op}: bf16 products expect f32 operands without tangents, found {dtype:?} with {tangents} tangents; use f32 precision for directional derivatives"
    )]
    Precision {
        /// The operation.
        op: &'static str,
        /// Type of the operand.
        dtype: DType,
        /// Number of its tangents.
        tangents: usize,
    },
    /// A tensor is on an unsupported device.
    #[error("{op}: expected a tensor on {expected}, found one on {found}")]
    Device {
        /// The operation.
        op: &'static str,
        /// Expected device.
        expected: &'static str,
        /// Device found.
        found: String,
    },
    /// The VJP needs a tensor that the forward pass did not save.
    #[error("{op}: the forward pass did not save {what}")]
    NotSaved {
        /// The operation.
        op: &'static str,
        /// The missing tensor.
        what: String,
    },
    /// A label is not a valid class.
    #[error("cross_entropy: label {label} of row {row}, expected one below {classes}")]
    Label {
        /// Index of the row.
        row: usize,
        /// The label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// The row operation has no GPU kernel.
    #[error("{op}: there is no GPU kernel for this operation; run it on the CPU")]
    NoKernel {
        /// The operation.
        op: &'static str,
    },
    /// No GPU can be used.
    #[error("{what}")]
    Driver {
        /// The reason.
        what: String,
    },
    /// An error from candle.
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
