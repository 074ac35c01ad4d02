//! Runs commands in child processes, so that time and memory are measured per command.
//!
//! The parent starts `planish exec -` and writes the arguments as a line of JSON to its standard input. Both
//! sides use the same types, so no option can be lost. The parent keeps the pipe open, and the child ends when
//! it closes: however the parent ends, no child goes on.

use crate::INTERRUPTED;
use crate::args::Common;
use crate::commands::{diagnose, post_train};
use anyhow::{Context, bail};
use planish::temp_file::remove_temp_files;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// A command for a child process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildCommand {
    /// `diagnose`.
    Diagnose(Box<diagnose::Args>),
    /// `post-train`.
    PostTrain(Box<post_train::Args>),
}

/// Arguments of `exec`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// `-`: read the command as JSON from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    from: String,
}

impl ChildCommand {
    fn common(&mut self) -> &mut Common {
        match self {
            ChildCommand::Diagnose(args) => &mut args.common,
            ChildCommand::PostTrain(args) => &mut args.common,
        }
    }

    /// Runs the command in a child process, without progress, on the caller's threads and device.
    ///
    /// # Errors
    /// The program cannot be started, or it fails; the error then contains its output.
    pub fn spawn(mut self, parent: &Common) -> anyhow::Result<()> {
        let own = self.common();
        let json = own.json.take();
        *own = Common { json, quiet: true, seed: own.seed, ..parent.clone() };
        let spec = serde_json::to_vec(&self)?;
        let program = std::env::current_exe().context("cannot find the planish executable")?;
        let mut child = Command::new(program)
            .args(["exec", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a child process")?;
        let mut input = child.stdin.take();
        if let Some(input) = &mut input {
            // If the child has already exited, its standard error explains why.
            let _ = input.write_all(&[&spec[..], b"\n"].concat());
        }
        let output = child.wait_with_output().context("cannot wait for a child process")?;
        drop(input);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("a child process failed ({}): {}", output.status, said.trim())
        }
        Ok(())
    }
}

/// Reads the command from standard input, and from then on ends this process when standard input is closed.
///
/// # Errors
/// Standard input cannot be read, or is not a command as JSON.
pub fn read() -> anyhow::Result<ChildCommand> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).context("cannot read standard input")?;
    let command =
        serde_json::from_str(&text).context("expected a command as JSON on standard input")?;
    std::thread::spawn(|| {
        // An error means the same as the end of the input: the parent is gone.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        remove_temp_files();
        let _ = writeln!(std::io::stderr(), "planish: standard input was closed: interrupted");
        std::process::exit(INTERRUPTED);
    });
    Ok(command)
}
