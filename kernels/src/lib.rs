//! Differentiable operations of planish, for the CPU and, with feature `cuda`, for NVIDIA GPUs.
//!
//! Each operation is one file that defines `value` and `vjp` once, over a generic
//! [`scalar::Scalar`]. With plain numbers this computes losses and gradients. With dual numbers the
//! same code computes JVPs and the tangents of VJPs, which are exact Hessian-vector products.
//!
//! To add an operation: write its file, add a line to [`registry::REGISTRY`], and add a naive
//! reference to `tests/checks/naive.rs`.

mod accumulator;
pub mod attention;
pub mod bf16;
pub mod cast;
pub mod concat;
pub mod cpu;
pub mod cross_entropy;
pub mod cuda;
pub mod depthwise_conv;
mod dual_tensor;
mod error;
pub mod first_tokens;
pub mod fused;
pub mod gelu;
pub mod global_response_norm;
pub mod lanes;
#[cfg(target_arch = "x86_64")]
pub mod lanes_x86;
pub mod layer_norm;
pub mod linear;
pub mod math;
pub mod matmul;
pub mod mix_tokens;
pub mod op;
pub mod parts;
mod pass;
pub mod pointwise;
pub mod prepend;
pub mod product;
pub mod registry;
pub mod rows;
pub mod scalar;
pub mod simd;
pub mod skip_tokens;
pub mod softmax;
pub mod swiglu;
pub mod token_patches;
pub mod tokens;
pub mod transpose_tokens;
mod view;
pub mod weight_rows;

pub use accumulator::Accumulator;
pub use attention::Attention;
pub use cast::Cast;
pub use concat::Concat;
pub use cross_entropy::CrossEntropy;
pub use depthwise_conv::DepthwiseConv;
pub use dual_tensor::{DualTensor, Host};
pub use error::{Error, Result};
pub use first_tokens::FirstTokens;
pub use fused::{BiasGelu, BiasResidual};
pub use gelu::{Gelu, GeluForm};
pub use global_response_norm::GlobalResponseNorm;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use matmul::MatMul;
pub use mix_tokens::MixTokens;
pub use op::{Op, SaveSet, Saved};
pub use pointwise::{Add, LayerScale, Scale};
pub use prepend::Prepend;
pub use product::Products;
pub use skip_tokens::SkipTokens;
pub use softmax::Softmax;
pub use swiglu::SwiGlu;
pub use token_patches::TokenPatches;
pub use tokens::{Flatten, MeanTokens, Patches, PickToken, Regroup};
pub use transpose_tokens::TransposeTokens;
pub use weight_rows::WeightRows;
