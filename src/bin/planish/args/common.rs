//! Options and start-up steps that every command shares.

use crate::message::in_flags;
use crate::render::progress::Terminal;
use crate::render::{for_stderr, print};
use anyhow::anyhow;
use planish::engine::{Engine, EngineOptions};
use planish::output;
use planish::run::{RunInfo, Running, command_line};
use planish::session::Context;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Options of every command.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Number of threads [default: all]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    #[serde(flatten)]
    pub engine: EngineOptions,
    /// Random seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Write the report to this JSON file; with -, write it to standard output and the text to standard
    /// error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Do not print progress
    #[arg(long)]
    pub quiet: bool,
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected 1 or more; omit the flag to use all threads".into())
}

/// Builds rayon's global thread pool, in which all work runs: of `threads` threads, or of one per
/// available CPU.
///
/// # Errors
/// The system cannot start the threads.
fn start_threads(threads: Option<NonZeroUsize>) -> anyhow::Result<()> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(n) = threads {
        pool = pool.num_threads(n.get());
    }
    match pool.build_global() {
        // An existing pool is an error without a source; rayon has no other way to distinguish it.
        Err(error) if error.source().is_some() => {
            let threads =
                threads.map_or_else(|| "as many as the machine has".into(), |n| n.to_string());
            Err(anyhow!(error).context(format!("cannot start {threads} threads; lower --threads")))
        }
        _ => Ok(()),
    }
}

impl Common {
    /// Checks that the report can be written, opens the device, starts the threads and the clock.
    ///
    /// # Errors
    /// The `--json` file cannot be written, the system cannot start the threads, or the device
    /// cannot be used.
    pub fn start(&self) -> anyhow::Result<Running> {
        if let Some(path) = self.json_file() {
            output::check(path)?;
        }
        let said = self.clone();
        let engine = Engine::new(&self.engine, move |line| said.say(line))?;
        start_threads(self.threads)?;
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        Ok(RunInfo::start(command_line(words), self.seed, &engine))
    }

    /// Prints one line on standard error, unless `--quiet`.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            // Continue if standard error is closed.
            let _ = writeln!(io::stderr(), "{}", for_stderr(line));
        }
    }

    /// Prints notes before long work, so that the user can still stop it.
    pub fn say_notes(&self, notes: &[String]) {
        notes.iter().for_each(|note| self.say(&format!("note: {}", in_flags(note))));
    }

    /// The notes of a result that [`Common::say_notes`] has not printed yet.
    pub fn untold<'a>(&self, notes: &'a [String], told: &[String]) -> Vec<&'a String> {
        notes.iter().filter(|note| self.quiet || !told.contains(note)).collect()
    }

    /// The progress display; silent with `--quiet`.
    pub fn terminal(&self) -> Terminal {
        Terminal::new(self.quiet)
    }

    /// The engine, the seed and the progress observer, as the library takes them.
    pub fn context<'a>(&self, running: &'a Running, terminal: &'a Terminal) -> Context<'a> {
        Context { engine: running.engine(), seed: self.seed, observer: terminal }
    }

    /// Whether the report goes to standard output.
    fn json_to_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// The `--json` file, if there is one.
    pub fn json_file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|_| !self.json_to_stdout())
    }

    /// Writes `report` to the `--json` file or to standard output, if asked for.
    ///
    /// # Errors
    /// The report cannot be written.
    pub fn save(&self, report: &impl serde::Serialize) -> anyhow::Result<()> {
        if self.json_to_stdout() {
            writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(report)?)?;
        }
        Ok(self.save_so_far(report)?)
    }

    /// Writes an unfinished `report` to the `--json` file, if one is given.
    ///
    /// # Errors
    /// The report cannot be written.
    pub fn save_so_far(&self, report: &impl serde::Serialize) -> Result<(), output::Error> {
        self.json_file().map_or(Ok(()), |path| output::write_json(path, report))
    }

    /// Prints the result of a command: on standard output, unless the report goes there.
    ///
    /// # Errors
    /// The text cannot be written.
    pub fn print(&self, text: &str) -> io::Result<()> {
        match self.json_to_stdout() {
            true => {
                writeln!(io::stderr(), "{}", for_stderr(&in_flags(text.trim_end_matches('\n'))))
            }
            false => print(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Limit;
    use clap::Parser;
    use planish::device::DeviceChoice;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        limit: Limit,
    }

    #[test]
    fn common_arguments_are_validated() {
        let parse = |words: &[&str]| Command::try_parse_from([&["x"], words].concat());
        assert_eq!(
            parse(&["--device", "cuda:1"]).ok().unwrap().common.engine.device,
            DeviceChoice::Cuda(1)
        );
        assert!(parse(&["--device", "gpu"]).is_err());
        let common = parse(&["--threads", "2", "--seed", "9", "--json", "a", "--quiet"]);
        let common = common.ok().unwrap().common;
        assert_eq!((common.threads, common.seed, common.quiet), (NonZeroUsize::new(2), 9, true));
        assert_eq!(parse(&[]).ok().unwrap().common.seed, 0);
        assert!(parse(&["--threads", "0"]).is_err());
        assert!(parse(&["--seed", "-1"]).is_err());
        let limit = |text| parse(&["--memory", text]).ok().unwrap().limit.mib();
        assert_eq!((limit("4GiB"), limit("512 MiB")), (Some(4096.0), Some(512.0)));
        let refused = parse(&["--memory", "4"]).err().unwrap().to_string();
        assert!(refused.contains("--memory") && refused.contains("as in 4GiB"), "{refused}");
    }

    #[test]
    fn start_fails_if_the_report_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let json = Some(file.join("report.json"));
        let error = Common { json, ..Common::default() }.start().unwrap_err().to_string();
        assert!(error.contains("file/report.json") && error.contains("not a folder"), "{error}");
    }
}
