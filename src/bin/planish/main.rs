//! The program: parse the command line, run the command, turn an error into an exit code.
//!
//! One file per command, each with `Args` and `run(&Args) -> anyhow::Result<()>`. Results go to
//! standard output, progress and errors to standard error. The work itself is in the library.

mod allocator;
mod args;
mod commands;
mod exec;
mod message;
mod render;

use args::Common;
use clap::{Parser, Subcommand};
use commands::{
    bench, cache, calibrate, compare, completions, demo, diagnose, eval, finetune, fix, hvp,
    inspect, merge, patch, post_train, predict, report, selftest, study, undo,
};
use message::{is_usage, message};
use planish::temp_file::remove_temp_files;
use std::io::Write;
use std::process::ExitCode;

/// Find which layers of a fine-tuned vision model overfit, and post-train them.
#[derive(Debug, Parser)]
#[command(name = "planish", version, max_term_width = 100)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every step once, on an embedded checkpoint and embedded images
    Demo(demo::Args),
    /// Show a checkpoint's layout, architecture, layers, preprocessing and history
    Inspect(inspect::Args),
    /// Measure loss, accuracy and calibration on a split
    Eval(eval::Args),
    /// List the most probable classes of images without labels
    Predict(predict::Args),
    /// Calibrate a checkpoint: fold a temperature or another scaling into its head
    Calibrate(Box<calibrate::Args>),
    /// Compare two models on the same images, with confidence intervals
    Compare(Box<compare::Args>),
    /// Write an HTML report of results
    Report(report::Args),
    /// Measure how much each layer overfits
    Diagnose(Box<diagnose::Args>),
    /// Calibrate a checkpoint and move its layers where that helps
    Fix(Box<fix::Args>),
    /// Merge checkpoints: WiSE-FT, LiNeS, model soups, Model Stock
    Merge(Box<merge::Args>),
    /// Post-train selected layers with PoL, PoF, SAM or plain SGD
    PostTrain(Box<post_train::Args>),
    /// Compare post-training methods with their controls, over several seeds
    Bench(Box<bench::Args>),
    /// Evaluate and train many models on many data sets and shifts
    Study(study::Args),
    /// Train all weights of a new or existing model
    Finetune(Box<finetune::Args>),
    /// Write gradients and Hessian-vector products of layers
    Hvp(hvp::Args),
    /// Check the numerical accuracy of planish on a model
    Selftest(Box<selftest::Args>),
    /// Undo in-place tuning, byte for byte
    Undo(undo::Args),
    /// Create or apply a patch of the tensors that changed
    Patch(patch::Args),
    /// List or clear the activation cache
    Cache(cache::Args),
    /// Print a shell completion script
    Completions(completions::Args),
    /// Write manual pages
    Man(completions::ManArgs),
    /// Run a command whose arguments are given as JSON
    #[command(hide = true)]
    Exec(exec::Args),
}

impl From<exec::ChildCommand> for Command {
    fn from(command: exec::ChildCommand) -> Self {
        match command {
            exec::ChildCommand::Diagnose(args) => Command::Diagnose(args),
            exec::ChildCommand::PostTrain(args) => Command::PostTrain(args),
        }
    }
}

impl Command {
    /// Whether the user limits the memory of the process.
    fn bounds_memory(&self) -> bool {
        match self {
            Command::Diagnose(args) => args.limit.memory.is_some(),
            Command::PostTrain(args) => args.options.limit.memory.is_some(),
            Command::Bench(args) => args.limit.memory.is_some(),
            Command::Fix(args) => args.options.limit.memory.is_some(),
            _ => false,
        }
    }

    /// The common options, for the commands that the demo runs.
    fn common(&mut self) -> Option<&mut Common> {
        match self {
            Command::Inspect(args) => Some(&mut args.common),
            Command::Eval(args) => Some(&mut args.common),
            Command::Calibrate(args) => Some(&mut args.common),
            Command::Fix(args) => Some(&mut args.common),
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
            Command::Fix(args) => fix::run(args),
            Command::Merge(args) => merge::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Predict(args) => predict::run(args),
            Command::Calibrate(args) => calibrate::run(args),
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
            // `main` has replaced it by the command that it reads.
            Command::Exec(_) => Ok(()),
        }
    }
}

/// Exit code after an interrupt, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;

/// Runs the command. Exit codes: 0 for success, 1 for failure, 2 for invalid usage, 130 for an
/// interrupt (Ctrl-C) or a termination signal. No exit leaves a partly written file.
fn main() -> ExitCode {
    // Without a handler, the system would end the process too, but leave an empty lock file behind.
    let _ = ctrlc::set_handler(|| {
        let replaced = remove_temp_files();
        let mut text =
            "planish: interrupted; every file is either unchanged or complete\n".to_owned();
        for path in replaced {
            let path = path.display();
            text += &format!("{path} has been replaced; `planish undo {path}` restores it\n");
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
        std::process::exit(INTERRUPTED);
    });
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // clap also returns help and version as errors, each with its exit code.
        Err(usage) => usage.exit(),
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !reader_left(&error) {
                // `eprint!` panics if standard error is closed.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}",
                    render::for_stderr(message(&error).trim_end())
                );
            }
            // As in clap, 2 means invalid usage.
            match is_usage(&error) {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let command = match command {
        Command::Exec(_) => exec::read()?.into(),
        other => other,
    };
    // With a memory limit, pages kept for reuse would count against the limit.
    if !command.bounds_memory() {
        allocator::keep_pages();
    }
    command.run()
}

/// Whether the reader of standard output has closed the pipe (`planish … | head`).
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
    fn a_memory_limit_applies_in_child_processes() {
        for memory in [&[][..], &["--memory", "1GiB"]] {
            let words = ["planish", "diagnose", "model", "--data", "images"];
            let parsed = Cli::try_parse_from([&words[..], memory].concat()).unwrap().command;
            let Command::Diagnose(args) = parsed else { panic!("expected diagnose") };
            let json = serde_json::to_string(&exec::ChildCommand::Diagnose(args)).unwrap();
            let child: exec::ChildCommand = serde_json::from_str(&json).unwrap();
            assert_eq!(Command::from(child).bounds_memory(), !memory.is_empty());
        }
    }

    #[test]
    fn a_broken_pipe_is_recognised_through_its_context() {
        let io = |kind| Err::<(), _>(std::io::Error::from(kind)).context("printing").unwrap_err();
        assert!(reader_left(&io(std::io::ErrorKind::BrokenPipe)));
        assert!(!reader_left(&io(std::io::ErrorKind::NotFound)));
    }
}
