//! Progress: typed events of long work, and observers that receive them.

use crate::train::run::Epoch;

/// A progress event.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A task begins. Tasks nest; the events below belong to the innermost one.
    Begin {
        /// Its name, such as `evaluating`.
        task: &'a str,
        /// Number of units.
        total: u64,
        /// The unit, such as `images`.
        unit: &'static str,
    },
    /// This many more units are done.
    Advance(u64),
    /// The current item.
    Status(&'a str),
    /// The task has ended.
    End,
    /// A note to the user, which is also part of the result.
    Note(&'a str),
    /// Progress information: a plan, a forecast or the current state.
    Info(&'a str),
    /// Training begins.
    Start {
        /// Mean loss on the watched images of V, nats.
        loss: f64,
        /// Number of watched images and of all images of V.
        watched: Option<[usize; 2]>,
    },
    /// An epoch of training has ended.
    Epoch {
        /// Its metrics.
        epoch: &'a Epoch,
        /// Number of images of V behind its validation loss, and of all images of V.
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

/// A task of an observer. It ends when dropped.
pub struct Task<'a>(&'a dyn Observer);

impl<'a> Task<'a> {
    /// Begins a task.
    pub fn begin(observer: &'a dyn Observer, task: &str, total: u64, unit: &'static str) -> Self {
        observer.observe(Event::Begin { task, total, unit });
        Self(observer)
    }

    /// Reports that this many more units are done.
    pub fn advance(&self, units: u64) {
        self.0.observe(Event::Advance(units));
    }

    /// Sets the current item.
    pub fn status(&self, what: &str) {
        self.0.observe(Event::Status(what));
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.0.observe(Event::End);
    }
}
