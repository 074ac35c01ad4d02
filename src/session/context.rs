//! Shared inputs of all work: the seed and the observer.

use crate::observe::{Event, Observer, Silent, Task};

/// Seed and observer of some work.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Seed of all random choices, except in training that has its own seed.
    pub seed: u64,
    /// Receives the events of the work.
    pub observer: &'a dyn Observer,
}

impl<'a> Context<'a> {
    /// A context without an observer.
    pub fn silent(seed: u64) -> Context<'static> {
        Context { seed, observer: &Silent }
    }

    /// The same context without an observer.
    pub fn silenced(&self) -> Context<'static> {
        Context::silent(self.seed)
    }

    /// Begins a task of `total` units.
    pub fn task(&self, task: &str, total: u64, unit: &'static str) -> Task<'a> {
        Task::begin(self.observer, task, total, unit)
    }

    /// Emits a note for the user.
    pub fn note(&self, text: &str) {
        self.observer.observe(Event::Note(text));
    }

    /// Emits a message about the next step or the progress.
    pub fn info(&self, text: &str) {
        self.observer.observe(Event::Info(text));
    }
}
