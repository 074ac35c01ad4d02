//! `--csv` and `--tensorboard`: figures of each epoch, written as soon as it ends.

use super::progress::Terminal;
use planish::observe::{Event, Observer};
use planish::output;
use planish::output::Error;
use planish::report::tensorboard;
use planish::train::Epoch;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files that grow with each epoch.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
pub struct EpochArgs {
    /// Write one CSV row per epoch to this file
    #[arg(long, value_name = "FILE", help_heading = "Common options", hide_short_help = true)]
    pub csv: Option<PathBuf>,
    /// Write a TensorBoard event file to this folder
    #[arg(long, value_name = "DIR", help_heading = "Common options", hide_short_help = true)]
    pub tensorboard: Option<PathBuf>,
}

/// Name and value of a figure of an epoch.
pub type Figure = (&'static str, Option<f64>);

impl EpochArgs {
    /// Checks that the files can be written, and leaves them as they are.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn check(&self) -> Result<(), Error> {
        self.csv.as_deref().map_or(Ok(()), output::check)?;
        self.tensorboard.as_deref().map_or(Ok(()), |folder| output::check(&event_file(folder)))
    }

    fn open(&self) -> Result<Files, Error> {
        self.check()?;
        let csv = self.csv.clone().map(|path| (path, String::new()));
        let events = self.tensorboard.as_deref().map(events).transpose()?;
        Ok(Files { csv, events, failed: None })
    }
}

/// The line and the columns of an epoch.
pub type Show<'a> = Box<dyn Fn(&Epoch, Option<[usize; 2]>) -> (String, Vec<Figure>) + Sync + 'a>;

/// Prints a line for each epoch and writes its figures to the files. All other events go to the
/// terminal.
pub struct EpochLog<'a> {
    terminal: &'a Terminal,
    files: Mutex<Files>,
    show: Show<'a>,
}

impl<'a> EpochLog<'a> {
    /// Opens the files. `show` receives each epoch and the images behind its validation loss.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn open(args: &EpochArgs, terminal: &'a Terminal, show: Show<'a>) -> Result<Self, Error> {
        Ok(Self { terminal, files: Mutex::new(args.open()?), show })
    }

    /// Returns the first error of writing a file. Such an error does not end the training.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn finish(self) -> Result<(), Error> {
        let files = self.files.into_inner().unwrap_or_else(PoisonError::into_inner);
        files.failed.map_or(Ok(()), Err)
    }
}

impl Observer for EpochLog<'_> {
    fn observe(&self, event: Event<'_>) {
        let Event::Epoch { epoch, watched } = event else { return self.terminal.observe(event) };
        let (line, figures) = (self.show)(epoch, watched);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.add(epoch.epoch, &figures);
        self.terminal.observe(Event::Info(&line));
    }
}

/// The open files.
struct Files {
    csv: Option<(PathBuf, String)>,
    events: Option<(PathBuf, File)>,
    failed: Option<Error>,
}

/// A name that TensorBoard recognises. The process ID distinguishes runs that start in the same
/// second.
fn event_file(folder: &Path) -> PathBuf {
    folder.join(format!("events.out.tfevents.{:.0}.planish.{}", now(), std::process::id()))
}

fn events(folder: &Path) -> Result<(PathBuf, File), Error> {
    let path = event_file(folder);
    let open = || {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&path)?;
        file.write_all(&tensorboard::start(now()))?;
        Ok(file)
    };
    let file = open().map_err(|source| Error::Refused { path: path.clone(), source })?;
    Ok((path, file))
}

/// Seconds since 1970.
fn now() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1e3
}

impl Files {
    /// Adds an epoch. The names in the first epoch become the columns.
    fn add(&mut self, epoch: usize, figures: &[Figure]) {
        if self.failed.is_none() {
            self.failed = self.write(epoch, figures).err();
        }
    }

    fn write(&mut self, epoch: usize, figures: &[Figure]) -> Result<(), Error> {
        if let Some((path, text)) = &mut self.csv {
            if text.is_empty() {
                let names: Vec<&str> = figures.iter().map(|(name, _)| *name).collect();
                *text = format!("epoch,{}\n", names.join(","));
            }
            let values: Vec<String> =
                figures.iter().map(|(_, x)| x.map_or(String::new(), |x| x.to_string())).collect();
            *text += &format!("{epoch},{}\n", values.join(","));
            output::write(path, text.as_bytes())?;
        }
        if let Some((path, file)) = &mut self.events {
            let time = now();
            let known = figures.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
            let records: Vec<u8> = known
                .flat_map(|(name, x)| tensorboard::scalar(time, epoch as u64, name, x as f32))
                .collect();
            let written = file.write_all(&records).and_then(|()| file.flush());
            written.map_err(|source| Error::Refused { path: path.clone(), source })?;
        }
        Ok(())
    }
}
