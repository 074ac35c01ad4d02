//! planish, the program: parse, run, exit code.

use std::process::ExitCode;

/// Large buffers live for one operation; mimalloc gives their pages back to the next one instead of
/// to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    planish::cli::main()
}
