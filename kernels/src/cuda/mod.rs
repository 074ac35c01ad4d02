//! What the GPU is told to do: which kernel runs on which addresses with which launch
//! configuration. Pure data, made here without a GPU and without the feature `cuda`, so that the
//! emulator's tests run exactly what the device path runs.
//!
//! An entry point's name is `{operation}_{part}_{type}_k{K}`: the file, what of it (`value`, `vjp`,
//! `vjp_input`, …), the storage type (`f32`, `f64`, `bf16`) and how many tangents it carries, 0 to
//! 2. Rearrangements have the unit of their copies in place of type and tangents (`slice_vjp_b16`),
//! kernels without tangents end in the type. Arguments come in the order of the mathematics,
//! inputs before outputs, each value followed by its tangents (null where they are zero), then
//! sizes, then constants.

mod call;
mod columns;
#[cfg(feature = "cuda")]
pub mod gpu;
mod launch;
mod moves;
mod optimizer;
mod rows;
mod tokens;

pub use call::Call;
pub use launch::{Address, Arg, Launch, Plane, Planner, Stored};
pub use moves::Move;
pub use optimizer::{AdamW, MOST_TENSORS, PRODUCTS, Sgd};
