//! Plans of GPU work: which kernel runs on which addresses with which launch configuration.
//!
//! Plans are plain data, made without a GPU and without the feature `cuda`, so the emulator's tests
//! run exactly the launches of the device.
//!
//! Entry points are named `{operation}_{part}_{type}_k{K}`: the file, the part (`value`, `vjp`,
//! `vjp_input`, …), the storage type (`f32`, `f64`, `bf16`), and the number of tangents, 0 to 2.
//! Copies have the size of their unit instead of type and tangents (`slice_vjp_b16`). Kernels
//! without tangents end with the type. Arguments are in this order: inputs, outputs, sizes,
//! constants. Each value is followed by its tangents, which are null if they are zero.

mod columns;
mod depthwise_conv;
mod global_response_norm;
#[cfg(feature = "cuda")]
pub mod gpu;
mod launch;
mod optimizer;
mod rearrange;
mod rows;
mod tokens;

pub use launch::{Address, Arg, Launch, Plane, Planner, StorageType};
pub use optimizer::{AdamW, MAX_TENSORS, PRODUCTS, Sgd};
pub use rearrange::Rearrange;
pub use rows::Call;
