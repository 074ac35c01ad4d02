//! The program: parse the command line, run the command, turn an error into an exit code.
//!
//! One file per command, each with `Args` and `run(&Args) -> anyhow::Result<()>`. Results go to
//! standard output, progress and errors to standard error. The library does the work.

mod allocator;
mod args;
mod commands;
mod exec;
mod message;
mod render;

use args::Common;
use clap::{Parser, Subcommand};
use commands::{
    bench, cache, compare, completions, demo, diagnose, eval, finetune, hvp, inspect, merge, patch,
    post_train, report, selftest, study, undo,
};
use message::{is_usage, message};
use planish::temp_file::remove_temp_files;
use std::io::Write;
use std::process::ExitCode;

/// Finds where a fine-tuned Vision Transformer over-fits, layer by layer, and mends it cheaply.
#[derive(Debug, Parser)]
#[command(name = "planish", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do everything once, on embedded images and an embedded checkpoint
    Demo(demo::Args),
    /// Tell what a checkpoint is: layout, architecture, layers, preprocessing, provenance
    Inspect(inspect::Args),
    /// Measure losses, accuracy and calibration on a split
    Eval(eval::Args),
    /// Compare two models on the same images, with intervals
    Compare(Box<compare::Args>),
    /// Draw results as one HTML page
    Report(report::Args),
    /// Measure, layer by layer, where the model over-fits
    Diagnose(Box<diagnose::Args>),
    /// Post-train chosen layers by PoL, PoF, SAM or plain SGD
    PostTrain(Box<post_train::Args>),
    /// Run methods against their controls, each in a process of its own
    Bench(Box<bench::Args>),
    /// Measure many models on many data sets and shifts, and train them, each cell once
    Study(study::Args),
    /// Join the parts of a study
    Merge(merge::Args),
    /// Train all weights of a new or given model
    Finetune(Box<finetune::Args>),
    /// Write a layer's gradient and Hessian-vector product
    Hvp(hvp::Args),
    /// Check planish's own arithmetic on a model
    Selftest(Box<selftest::Args>),
    /// Put back what tuning in place replaced, byte for byte
    Undo(undo::Args),
    /// Ship the tensors that changed instead of a whole checkpoint
    Patch(patch::Args),
    /// List or clear the files in which frozen layers' activations are kept
    Cache(cache::Args),
    /// Print the script by which a shell completes planish's words
    Completions(completions::Args),
    /// Write manual pages
    Man(completions::ManArgs),
    /// Run a command whose arguments come as JSON
    #[command(hide = true)]
    Exec(exec::Args),
}

impl Command {
    /// Whether the user bounds the memory of the process.
    fn bounds_memory(&self) -> bool {
        match self {
            Command::Diagnose(args) => args.limit.memory.is_some(),
            Command::PostTrain(args) => args.limit.memory.is_some(),
            Command::Bench(args) => args.limit.memory.is_some(),
            _ => false,
        }
    }

    /// Options that every command shares, of those commands that the demo runs.
    fn common(&mut self) -> Option<&mut Common> {
        match self {
            Command::Inspect(args) => Some(&mut args.common),
            Command::Eval(args) => Some(&mut args.common),
            Command::Diagnose(args) => Some(&mut args.common),
            Command::PostTrain(args) => Some(&mut args.common),
            Command::Bench(args) => Some(&mut args.common),
            _ => None,
        }
    }

    fn run(&self) -> anyhow::Result<()> {
        match self {
            Command::Diagnose(args) => diagnose::run(args),
            Command::PostTrain(args) => post_train::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Study(args) => study::run(args),
            Command::Merge(args) => merge::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Compare(args) => compare::run(args),
            Command::Report(args) => report::run(args),
            Command::Finetune(args) => finetune::run(args),
            Command::Hvp(args) => hvp::run(args),
            Command::Selftest(args) => selftest::run(args),
            Command::Undo(args) => undo::run(args),
            Command::Patch(args) => patch::run(args),
            Command::Cache(args) => cache::run(args),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => completions::man(args),
            Command::Exec(args) => exec::run(args),
        }
    }
}

/// Runs what the command line asks for. Exit code 0 means success, 1 that the work failed, 2 that
/// the command line makes no sense.
/// At an interrupt (Ctrl-C) or a signal to end, 130, and no file is left half-written.
fn main() -> ExitCode {
    // Without a handler the system ends the process as well, and leaves its lock's empty file.
    let _ = ctrlc::set_handler(|| {
        remove_temp_files();
        let text = "planish: interrupted; each file is as it was before, or whole\n";
        let _ = std::io::stderr().write_all(text.as_bytes());
        std::process::exit(130);
    });
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and version come this way too; clap knows the code of each.
        Err(usage) => usage.exit(),
    };
    // Under a bound, pages that wait for their next use would count against it.
    if !command.bounds_memory() {
        allocator::keep_pages();
    }
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !reader_left(&error) {
                // `eprint!` would panic where standard error is closed; the exit code still tells.
                let _ = std::io::stderr().write_all(message(&error).as_bytes());
            }
            // As clap has it: 2 for a command line that makes no sense.
            match is_usage(&error) {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Whether whoever read standard output has gone (`planish … | head`): not worth a message.
fn reader_left(error: &anyhow::Error) -> bool {
    let broken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_broken_pipe_is_recognised_through_its_context() {
        let io = |kind| Err::<(), _>(std::io::Error::from(kind)).context("printing").unwrap_err();
        assert!(reader_left(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(!reader_left(&io(std::io::ErrorKind::NotFound)));
    }
}
