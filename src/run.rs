//! The parts of a report that describe the run itself: time, machine and memory. All other parts of
//! a report are byte-identical for the same input and seed, with any number of threads.

use crate::engine::Engine;
use crate::memory;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// The `run` object of every report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The command line, with shell quoting.
    pub command: String,
    /// Version of planish.
    pub version: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads used.
    pub threads: usize,
    /// Where the arithmetic ran: `cpu`, or `cuda:0`.
    pub device: String,
    /// Wall-clock seconds, to the millisecond.
    pub seconds: f64,
    /// Peak resident set size of this process so far, in MiB, rounded up. Absent if the system does
    /// not report it.
    pub peak_mib: Option<u64>,
    /// Peak GPU memory taken by tensors so far, in MiB, rounded up. Absent on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_peak_mib: Option<u64>,
    /// Host name; empty if the system does not report it.
    pub host: String,
    /// When the run started, in UTC (RFC 3339).
    pub date: String,
}

impl RunInfo {
    /// Starts the clock. `command` is what was run, as [`command_line`] writes it.
    pub fn start(command: String, seed: u64, engine: &Engine) -> Running {
        let mut date = jiff::Timestamp::now();
        date = date.round(jiff::Unit::Second).unwrap_or(date);
        let run = RunInfo {
            command,
            version: env!("CARGO_PKG_VERSION").into(),
            seed,
            threads: rayon::current_num_threads(),
            device: engine.device_name(),
            seconds: 0.0,
            peak_mib: None,
            device_peak_mib: None,
            host: host(),
            date: date.to_string(),
        };
        Running { run, engine: engine.clone(), clock: Instant::now() }
    }
}

/// A run in progress.
#[derive(Clone, Debug)]
pub struct Running {
    run: RunInfo,
    engine: Engine,
    clock: Instant,
}

impl Running {
    /// The engine of the run.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }

    /// The run as of now. Call it again whenever results are saved.
    pub fn finish(&self) -> RunInfo {
        let seconds = (self.seconds() * 1e3).round() / 1e3;
        let (peak_mib, device_peak_mib) = (memory::peak_mib(), self.engine.peak_mib());
        RunInfo { seconds, peak_mib, device_peak_mib, ..self.run.clone() }
    }
}

/// Arguments as typed in a shell, with the program's bare name instead of its path.
pub fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut words = arguments.enumerate().map(|(i, word)| if i == 0 { bare(&word) } else { word });
    let first = words.next().unwrap_or_default();
    words.fold(quoted(&first), |line, word| line + " " + &quoted(&word))
}

fn bare(program: &str) -> String {
    let name = Path::new(program).file_stem();
    name.map_or_else(|| program.into(), |name| name.to_string_lossy().into_owned())
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(target_os = "linux")]
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().into()
}

#[cfg(not(target_os = "linux"))]
fn host() -> String {
    let name = ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|key| std::env::var(key).ok());
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_shell_quoted() {
        let line = |words: &[&str]| command_line(words.iter().map(|w| w.to_string()));
        assert_eq!(line(&["/x/target/planish", "eval", "m.st"]), "planish eval m.st");
        assert_eq!(line(&["planish", "a b", "", "it's"]), r"planish 'a b' '' 'it'\''s'");
        assert_eq!(line(&["planish", "--layer", "block.*"]), "planish --layer 'block.*'");
        assert_eq!(line(&[]), "''");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn freed_memory_stays_in_the_peak() {
        let running = RunInfo::start("test".into(), 7, &Engine::cpu());
        let block = std::hint::black_box(vec![1u8; 96 << 20]);
        drop(block);
        let run = running.finish();
        assert!(run.peak_mib.is_some_and(|mib| mib >= 96), "{run:?}");
        assert_eq!((run.seed, run.threads), (7, rayon::current_num_threads()));
        assert!(run.date.parse::<jiff::Timestamp>().is_ok(), "{}", run.date);
    }
}
