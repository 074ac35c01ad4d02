//! Tests of every CUDA kernel in the emulator: the same checks as on the CPU, unusual sizes,
//! several thread orders and block sizes.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod buffer;
#[path = "../../../tests/checks/mod.rs"]
mod checks;
mod emulator;
mod grids;
mod misaligned;
mod ops;
mod optimizer;
mod planted;
mod registry;
mod run;
mod sizes;
