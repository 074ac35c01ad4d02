//! `--csv` and `--tensorboard`: figures of each epoch, written as soon as it ends.

use planish::output;
use planish::output::Error;
use planish::report::tensorboard;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

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

/// The open files.
pub struct Epochs {
    csv: Option<(PathBuf, String)>,
    events: Option<(PathBuf, File)>,
    failed: Option<Error>,
}

impl EpochArgs {
    /// Opens the files.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn open(&self) -> Result<Epochs, Error> {
        self.csv.as_deref().map_or(Ok(()), output::check)?;
        let csv = self.csv.clone().map(|path| (path, String::new()));
        let events = self.tensorboard.as_deref().map(events).transpose()?;
        Ok(Epochs { csv, events, failed: None })
    }
}

/// Opens an event file with a name that TensorBoard recognises. The process ID distinguishes runs
/// that start in the same second.
fn events(folder: &Path) -> Result<(PathBuf, File), Error> {
    let name = format!("events.out.tfevents.{:.0}.planish.{}", now(), std::process::id());
    let path = folder.join(name);
    output::check(&path)?;
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

impl Epochs {
    /// Adds an epoch. The names in the first epoch become the columns. A write error does not end
    /// the training; [`Epochs::finish`] returns it.
    pub fn add(&mut self, epoch: usize, figures: &[Figure]) {
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

    /// Returns the first write error.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn finish(self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)
    }
}
