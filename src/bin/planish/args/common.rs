//! Options of every command, and what every command does first.

use crate::message::in_flags;
use crate::render::progress::Terminal;
use anyhow::{anyhow, bail};
use bytesize::ByteSize;
use planish::device::{self, Choice};
use planish::options::{as_text, text};
use planish::output;
use planish::run::{Run, Running, set_threads};
use planish::session::Context;
use planish_kernels::bf16::split;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Options of every command.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Threads to use [default: all the machine has]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
    /// Where to compute: cpu, cuda or cuda:N; the latter in builds with feature `cuda`
    #[serde(with = "as_text")]
    #[arg(long, value_name = "cpu|cuda[:N]", default_value_t = Choice::Cpu)]
    pub device: Choice,
    /// On a GPU, let products round their operands to TF32: faster, to three digits
    #[arg(long)]
    pub tf32: bool,
    /// On a CPU with AMX, multiply f32 on its tiles, numbers split into three of bf16: as exact as
    /// f32 and faster, but slower where other users of the machine keep the tiles busy
    #[arg(long)]
    pub tiles: bool,
    /// Seed of everything random
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Print no progress
    #[arg(long)]
    pub quiet: bool,
}

/// The bound that commands with a forecast can keep.
#[derive(clap::Args, Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Common options")]
pub struct Limit {
    /// Bound on the memory of the process, such as 4GiB: images are taken fewer at a time, and
    /// frozen layers' activations kept in files or not at all, until the forecast is within it
    #[arg(long, value_name = "SIZE", value_parser = text::memory)]
    #[serde(with = "as_text::option")]
    pub memory: Option<ByteSize>,
}

impl Limit {
    /// The bound in MiB.
    pub fn mib(&self) -> Option<f64> {
        self.memory.map(|size| size.as_u64() as f64 / (1 << 20) as f64)
    }
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a number from 1; leave it out for all there are".into())
}

impl Common {
    /// Starts the threads and the clock, once it is sure that the report can be written.
    ///
    /// # Errors
    /// The file of `--json` cannot be written; the system refuses the threads; the device cannot be
    /// used.
    pub fn start(&self) -> anyhow::Result<Running> {
        if let Some(path) = &self.json {
            output::check(path)?;
        }
        if self.tf32 && self.device == Choice::Cpu {
            bail!("--tf32 is for products on a GPU; give --device cuda, too")
        }
        if self.tiles && self.device != Choice::Cpu {
            bail!("--tiles is for products on the CPU; leave out --device, or --tiles")
        }
        if self.tiles && !split::allow() {
            bail!(
                "--tiles: this processor has no AMX for bf16, or the system withholds it; run \
                 without, and products are taken on vectors"
            )
        }
        let threads = set_threads(self.threads)?;
        let said = self.clone();
        device::choose(self.device, move |line| said.say(line))
            .map_err(|error| anyhow!("--device {}: {error}", self.device))?;
        if self.tf32 {
            device::allow_tf32();
        }
        Ok(Run::start(self.seed, threads))
    }

    /// Tells one line on standard error, unless `--quiet`.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            // A closed standard error is no reason to lose the work.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Tells notes before long work, for they may be a reason not to begin it.
    pub fn say_notes(&self, notes: &[String]) {
        notes.iter().for_each(|note| self.say(&format!("note: {}", in_flags(note))));
    }

    /// Of a result's notes, those to print with it: all that [`Common::say_notes`] did not tell.
    pub fn untold<'a>(&self, notes: &'a [String], told: &[String]) -> Vec<&'a String> {
        notes.iter().filter(|note| self.quiet || !told.contains(note)).collect()
    }

    /// Draws progress, unless `--quiet`.
    pub fn terminal(&self) -> Terminal {
        Terminal::new(self.quiet)
    }

    /// What the library's work shares: the seed, and who draws its progress.
    pub fn context<'a>(&self, terminal: &'a Terminal) -> Context<'a> {
        Context { seed: self.seed, observer: terminal }
    }

    /// Writes `report` where `--json` says, if it says.
    ///
    /// # Errors
    /// The report cannot be written.
    pub fn save(&self, report: &impl serde::Serialize) -> Result<(), output::Error> {
        self.json.as_deref().map_or(Ok(()), |path| output::write_json(path, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        limit: Limit,
    }

    #[test]
    fn arguments_are_checked() {
        let parse = |words: &[&str]| Command::try_parse_from([&["x"], words].concat());
        assert_eq!(parse(&["--device", "cuda:1"]).ok().unwrap().common.device, Choice::Cuda(1));
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
    fn a_run_does_not_start_if_its_report_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let json = Some(file.join("report.json"));
        let error = Common { json, ..Common::default() }.start().unwrap_err().to_string();
        assert!(error.contains("file/report.json") && error.contains("no folder"), "{error}");
    }
}
