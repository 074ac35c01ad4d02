//! What a report says about the run that made it, and nothing else says: the time, the machine and
//! the memory. All other parts of a report are equal byte for byte for the same seed and threads.

use crate::{device, memory};
use serde::{Deserialize, Serialize};
use std::error::Error as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread pool cannot be built.
    #[error("cannot start {threads} threads; ask for fewer `threads`")]
    Threads {
        /// How many were asked for.
        threads: String,
        /// What the pool says.
        source: rayon::ThreadPoolBuildError,
    },
}

/// The object `run` of every report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The command line, quoted where a shell would need it.
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
    /// Largest resident set of this process so far, in MiB, rounded up; absent where the system
    /// does not tell.
    pub peak_mib: Option<u64>,
    /// Most of the GPU's memory that tensors took at once so far, in MiB, rounded up; absent on the
    /// CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_peak_mib: Option<u64>,
    /// Name of the machine; empty where the system does not tell.
    pub host: String,
    /// When the run started, in UTC (RFC 3339).
    pub date: String,
}

impl Run {
    /// Starts the clock.
    pub fn start(seed: u64, threads: usize) -> Running {
        let mut date = jiff::Timestamp::now();
        date = date.round(jiff::Unit::Second).unwrap_or(date);
        let run = Run {
            command: command_line(std::env::args_os().map(|a| a.to_string_lossy().into_owned())),
            version: env!("CARGO_PKG_VERSION").into(),
            seed,
            threads,
            device: device::name(),
            seconds: 0.0,
            peak_mib: None,
            device_peak_mib: None,
            host: host(),
            date: date.to_string(),
        };
        Running { run, clock: Instant::now() }
    }
}

/// A run under way.
#[derive(Clone, Debug)]
pub struct Running {
    run: Run,
    clock: Instant,
}

impl Running {
    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }

    /// The run as it stands now. May be called more than once, where results are saved as they
    /// come.
    pub fn finish(&self) -> Run {
        let seconds = (self.seconds() * 1e3).round() / 1e3;
        let (peak_mib, device_peak_mib) = (memory::peak_mib(), device::peak_mib());
        Run { seconds, peak_mib, device_peak_mib, ..self.run.clone() }
    }
}

/// Builds the one thread pool that all parallel work shares, and returns its size: `threads`, or as
/// many as the machine offers. A pool that is there already stays.
///
/// # Errors
/// The system refuses the threads.
pub fn set_threads(threads: Option<NonZeroUsize>) -> Result<usize, Error> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(n) = threads {
        pool = pool.num_threads(n.get());
    }
    match pool.build_global() {
        // Only a pool that exists has a size of its own; rayon's error does not tell the two apart.
        Err(source) if source.source().is_some() => {
            let threads =
                threads.map_or_else(|| "as many as the machine has".into(), |n| n.to_string());
            Err(Error::Threads { threads, source })
        }
        _ => Ok(rayon::current_num_threads()),
    }
}

/// Arguments as one would type them; the program by its bare name, wherever it was built.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
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
    fn a_command_line_can_be_typed_again() {
        let line = |words: &[&str]| command_line(words.iter().map(|w| w.to_string()));
        assert_eq!(line(&["/x/target/planish", "eval", "m.st"]), "planish eval m.st");
        assert_eq!(line(&["planish", "a b", "", "it's"]), r"planish 'a b' '' 'it'\''s'");
        assert_eq!(line(&["planish", "--layer", "block.*"]), "planish --layer 'block.*'");
        assert_eq!(line(&[]), "''");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_once_used_stays_in_the_peak() {
        let running = Run::start(7, 2);
        let block = std::hint::black_box(vec![1u8; 96 << 20]);
        drop(block);
        let run = running.finish();
        assert!(run.peak_mib.is_some_and(|mib| mib >= 96), "{run:?}");
        assert_eq!((run.seed, run.threads), (7, 2));
        assert!(run.date.parse::<jiff::Timestamp>().is_ok(), "{}", run.date);
    }
}
