//! `--csv` and `--tensorboard`: what each epoch came to, as it comes.

use planish::output;
use planish::output::Error;
use planish::report::tensorboard;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files that grow by each epoch.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
pub struct EpochArgs {
    /// Write a row for each epoch as CSV, as soon as it is over
    #[arg(long, value_name = "FILE", help_heading = "Common options")]
    pub csv: Option<PathBuf>,
    /// Write each epoch's figures as a TensorBoard event file into this folder
    #[arg(long, value_name = "DIR", help_heading = "Common options")]
    pub tensorboard: Option<PathBuf>,
}

/// A figure of an epoch, by name.
pub type Figure = (&'static str, Option<f64>);

/// The files, open.
pub struct Epochs {
    csv: Option<(PathBuf, String)>,
    events: Option<(PathBuf, File)>,
    failed: Option<Error>,
}

impl EpochArgs {
    /// Opens the files before the work begins.
    ///
    /// # Errors
    /// A file or folder that cannot be written.
    pub fn open(&self) -> Result<Epochs, Error> {
        self.csv.as_deref().map_or(Ok(()), output::check)?;
        let csv = self.csv.clone().map(|path| (path, String::new()));
        let events = self.tensorboard.as_deref().map(events).transpose()?;
        Ok(Epochs { csv, events, failed: None })
    }
}

/// An event file under the name that TensorBoard looks for, the process's number telling two runs
/// apart that begin in one second.
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
    /// Adds an epoch; the first one's names are the columns. What cannot be written is told by
    /// [`Epochs::finish`]: it is no reason to end the training.
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

    /// Tells of what could not be written.
    ///
    /// # Errors
    /// The first that could not.
    pub fn finish(self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)
    }
}
