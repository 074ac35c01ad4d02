//! Figures of each epoch, written to CSV and TensorBoard files as soon as it ends.

use super::tensorboard;
use crate::output::{self, Error};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files that grow with each epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct EpochFileOptions {
    /// Write one CSV row per epoch to this file
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "FILE", help_heading = "Common options", hide_short_help = true)
    )]
    pub csv: Option<PathBuf>,
    /// Write a TensorBoard event file to this folder
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DIR", help_heading = "Common options", hide_short_help = true)
    )]
    pub tensorboard: Option<PathBuf>,
}

impl EpochFileOptions {
    /// Checks that the files can be written, and leaves them as they are.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn check(&self) -> Result<(), Error> {
        self.csv.as_deref().map_or(Ok(()), output::check)?;
        self.tensorboard.as_deref().map_or(Ok(()), |folder| output::check(&event_file(folder)))
    }
}

/// Name and value of a figure of an epoch.
pub type EpochFigure = (&'static str, Option<f64>);

/// The open files.
#[derive(Debug)]
pub struct EpochFiles {
    csv: Option<(PathBuf, String)>,
    events: Option<(PathBuf, File)>,
    failed: Option<Error>,
}

impl EpochFiles {
    /// Opens the files.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn open(options: &EpochFileOptions) -> Result<Self, Error> {
        options.check()?;
        let csv = options.csv.clone().map(|path| (path, String::new()));
        let events = options.tensorboard.as_deref().map(events).transpose()?;
        Ok(Self { csv, events, failed: None })
    }

    /// Adds an epoch. The names in the first epoch become the columns. A failure ends the files, not
    /// the training; [`EpochFiles::finish`] returns it.
    pub fn add(&mut self, epoch: usize, figures: &[EpochFigure]) {
        if self.failed.is_none() {
            self.failed = self.write(epoch, figures).err();
        }
    }

    /// Returns the first error of writing a file.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn finish(self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)
    }

    fn write(&mut self, epoch: usize, figures: &[EpochFigure]) -> Result<(), Error> {
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
