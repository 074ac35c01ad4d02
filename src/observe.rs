//! Progress: typed events of long work, and who receives them.

use crate::train::run::Epoch;

/// What happens during long work.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A task begins. Tasks nest; the events below belong to the innermost one.
    Begin {
        /// Its name, such as `evaluating`.
        task: &'a str,
        /// How many units it has.
        total: u64,
        /// What they are, such as `images`.
        unit: &'static str,
    },
    /// So many units are done.
    Advance(u64),
    /// What the task is working on.
    Status(&'a str),
    /// The task is over.
    End,
    /// Something the user should know; the note is part of the result, too.
    Note(&'a str),
    /// What the work is about to do and how long it takes, or where it stands.
    Info(&'a str),
    /// Training begins: the loss on the watched images of V.
    Start {
        /// Mean loss, nats.
        loss: f64,
        /// How many images are watched, and how many V has.
        watched: Option<[usize; 2]>,
    },
    /// An epoch of training is over.
    Epoch {
        /// Its figures.
        epoch: &'a Epoch,
        /// How many images of V its validation loss is of, and how many V has.
        watched: Option<[usize; 2]>,
    },
}

/// Receives the events of long work, from any thread.
pub trait Observer: Sync {
    /// Receives one event.
    fn observe(&self, event: Event<'_>);
}

/// Ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: Event<'_>) {}
}

/// A task of an observer, which ends when this is dropped.
pub struct Task<'a>(&'a dyn Observer);

impl<'a> Task<'a> {
    /// Begins a task.
    pub fn begin(observer: &'a dyn Observer, task: &str, total: u64, unit: &'static str) -> Self {
        observer.observe(Event::Begin { task, total, unit });
        Self(observer)
    }

    /// So many units are done.
    pub fn advance(&self, units: u64) {
        self.0.observe(Event::Advance(units));
    }

    /// What it is working on.
    pub fn status(&self, what: &str) {
        self.0.observe(Event::Status(what));
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.0.observe(Event::End);
    }
}
