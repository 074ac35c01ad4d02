//! Gradients, and products of Hessian or Gauss-Newton matrices of layers with vectors, as named tensors for
//! other programs.
//!
//! From Rust, [`LayerOperator`](crate::curvature::LayerOperator) gives the same products without names.

mod error;
mod session;

pub use error::Error;
pub use session::{HvpResult, HvpSession, LayerProducts, VectorProduct};

use crate::objective::Matrix;
use crate::session::vectors::Vector;
use candle_core::DType;

/// Options of products. These are also the flags of `hvp`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Product options"))]
pub struct HvpOptions {
    /// Split whose mean loss is differentiated [default: test, or the only split]
    #[cfg_attr(feature = "cli", arg(long, value_name = "S"))]
    pub split: Option<String>,
    /// Layer: a name, a comma-separated list, or a glob.
    ///
    /// Each name in a list gets a product of its own. The layers of a glob form one joint layer,
    /// including the cross-terms.
    #[cfg_attr(feature = "cli", arg(long, value_name = "L"))]
    pub layer: String,
    /// Vector: a safetensors file, `gradient` or `random:SEED` (repeatable).
    ///
    /// The file contains the tensors of the layers. Entries of a random vector are +1 or -1.
    /// Several vectors share one pass.
    #[cfg_attr(
        feature = "cli",
        arg(long = "vector", value_name = "FILE|gradient|random:SEED", default_value = "gradient")
    )]
    pub vectors: Vec<Vector>,
    /// Matrix: the Hessian or the Gauss-Newton matrix
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_enum,
            default_value = "hessian",
            hide_possible_values = true,
            value_name = "hessian|ggn"
        )
    )]
    pub operator: Matrix,
    /// Precision of the arithmetic and of the output
    #[cfg_attr(feature = "cli", arg(long, value_name = "f32|f64", default_value = "f32"))]
    pub dtype: FloatType,
    /// Skip the check that two evaluations of a product agree.
    ///
    /// The check costs two products with the first layer, on one micro-batch per thread.
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub no_probe: bool,
}

impl HvpOptions {
    /// The product of a layer's Hessian with its gradient, in f32.
    pub fn new(layer: &str) -> Self {
        Self {
            split: None,
            layer: layer.into(),
            vectors: vec![Vector::Gradient],
            operator: Matrix::Hessian,
            dtype: FloatType::F32,
            no_probe: false,
        }
    }
}

/// Precision of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum FloatType {
    /// Single precision
    F32,
    /// Double precision
    F64,
}

impl FloatType {
    fn dtype(self) -> DType {
        match self {
            FloatType::F32 => DType::F32,
            FloatType::F64 => DType::F64,
        }
    }
}
