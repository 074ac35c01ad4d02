//! The command line: arguments become a validated plan; no mathematics here.
//!
//! One file per command, each with `Args` and `run(&Args) -> anyhow::Result<()>`. Results go to
//! standard output, progress and errors to standard error.

pub mod bad_samples;
pub mod bench;
pub mod cache;
pub mod caching;
pub mod children;
pub mod common;
pub mod compare;
pub mod completions;
pub mod demo;
pub mod diagnose;
pub mod epochs;
pub mod eval;
pub mod evaluating;
pub mod finetune;
mod finetune_error;
mod finetune_plan;
mod finetune_text;
pub mod flips;
pub use crate::report::format;
mod heartbeat;
pub mod hvp;
pub mod images;
pub mod inspect;
pub mod merge;
pub mod model;
mod numbers;
pub mod outcome;
pub mod output;
pub mod patch;
pub mod picture;
pub mod post_train;
mod precision;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod saved;
pub mod scoring;
pub mod selftest;
pub mod sentence;
pub mod shifts;
pub mod study;
pub mod subject;
pub mod table;
pub mod tensors;
pub mod training;
pub mod undo;
mod vectors;

use crate::temp_file::remove_temp_files;
use clap::{Parser, Subcommand};
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
}

impl Command {
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
        }
    }
}

/// Runs what the command line asks for. Exit code 0 means success, 1 that the work failed, 2 that
/// the command line makes no sense.
/// At an interrupt (Ctrl-C) or a signal to end, 130, and no file is left half-written.
pub fn main() -> ExitCode {
    // Without a handler the system ends the process as well, and leaves its lock's empty file.
    let _ = ctrlc::set_handler(|| {
        remove_temp_files();
        let text = "planish: interrupted; each file is as it was before, or whole\n";
        let _ = std::io::stderr().write_all(text.as_bytes());
        std::process::exit(130);
    });
    match Cli::try_parse().map(|cli| cli.command.run()) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            if !reader_left(&error) {
                // `eprint!` would panic where standard error is closed; the exit code still tells.
                let _ = std::io::stderr().write_all(message(&error).as_bytes());
            }
            ExitCode::FAILURE
        }
        // Help and version come this way too; clap knows the code of each.
        Err(usage) => usage.exit(),
    }
}

/// An error and what lies behind it, a line each; a cause that the line above quotes is not told
/// twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let lead = if told.is_empty() { "error: " } else { "  because: " };
        if !told.contains(&cause) || told.is_empty() {
            text += &format!("{lead}{cause}\n");
            told = cause;
        }
    }
    text
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
    fn an_error_tells_each_cause_once() {
        let root = || std::io::Error::other("disk full");
        let chained = Err::<(), _>(root()).context("cannot write r.json").unwrap_err();
        assert_eq!(message(&chained), "error: cannot write r.json\n  because: disk full\n");
        let quoting = Err::<(), _>(root()).context("cannot write r.json: disk full").unwrap_err();
        assert_eq!(message(&quoting), "error: cannot write r.json: disk full\n");
    }

    #[test]
    fn a_broken_pipe_is_recognised_through_its_context() {
        let io = |kind| Err::<(), _>(std::io::Error::from(kind)).context("printing").unwrap_err();
        assert!(reader_left(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(!reader_left(&io(std::io::ErrorKind::NotFound)));
    }
}
