//! Every CUDA kernel in the emulator: against the same checks as the operations on the CPU, on odd
//! sizes, in several orders of threads and block sizes.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../../../tests/checks/mod.rs"]
mod checks;
mod fused;
mod misaligned;
mod ops;
mod optimizer;
mod planted;
mod registry;
mod run;
mod sizes;
