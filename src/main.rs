//! planish, the program: parse, run, exit code.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Under a budget, pages that wait for their next use would count against it.
    if !std::env::args_os().any(|word| word.as_encoded_bytes().starts_with(b"--memory")) {
        allocator::keep_pages();
    }
    planish::cli::main()
}
