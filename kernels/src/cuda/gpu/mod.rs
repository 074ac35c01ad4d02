//! Operations on tensors of a CUDA device: memory management here, launches planned by
//! [`super::Planner`], and matrix products by cuBLAS.
//!
//! All computation uses candle's stream of the device, in order. Memory freed after a launch is
//! reused only after the launch has ended. Inputs are uploaded on a separate stream ([`Uploads`]).

mod attention;
mod cast;
mod depthwise_conv;
mod device;
mod gemm;
mod layers;
mod memory;
mod product;
mod rearrange;
mod rows;
mod upload;

pub(crate) use attention::{gradients as attention_gradients, value as attention_value};
pub(crate) use cast::cast;
pub(crate) use depthwise_conv::{
    correlate as depthwise_conv, weight_gradient as depthwise_conv_weight_gradient,
};
pub use device::{free_and_total, is_out_of_memory, open, peak_mib, trim};
pub use layers::{Moments, adamw_step, axpy, by_magnitude, products, sgd_step};
pub use memory::concat;
pub(crate) use product::product;
pub(crate) use rearrange::{prepend, rearranged, side_by_side};
pub(crate) use rows::{add_into, plus, run as run_rows};
pub use upload::{Upload, Uploads};
