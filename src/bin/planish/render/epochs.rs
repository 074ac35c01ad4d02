//! A line of each epoch on the terminal, and its figures in files.

use super::progress::Terminal;
use planish::observe::{Event, Observer};
use planish::output::Error;
use planish::report::epochs::{EpochFigure, EpochFileOptions, EpochFiles};
use planish::train::Epoch;
use std::sync::{Mutex, PoisonError};

/// The line and the columns of an epoch.
pub type Show<'a> =
    Box<dyn Fn(&Epoch, Option<[usize; 2]>) -> (String, Vec<EpochFigure>) + Sync + 'a>;

/// Prints a line for each epoch and writes its figures to the files. All other events go to the
/// terminal.
pub struct EpochLog<'a> {
    terminal: &'a Terminal,
    files: Mutex<EpochFiles>,
    show: Show<'a>,
}

impl<'a> EpochLog<'a> {
    /// Opens the files. `show` receives each epoch and the images behind its validation loss.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn open(
        options: &EpochFileOptions,
        terminal: &'a Terminal,
        show: Show<'a>,
    ) -> Result<Self, Error> {
        Ok(Self { terminal, files: Mutex::new(EpochFiles::open(options)?), show })
    }

    /// Returns the first error of writing a file. Such an error does not end the training.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn finish(self) -> Result<(), Error> {
        let files = self.files.into_inner().unwrap_or_else(PoisonError::into_inner);
        files.finish()
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
