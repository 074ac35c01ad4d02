//! What all work shares: the seed, and who receives its events.

use crate::observe::{Event, Observer, Silent, Task};

/// Seed and observer of some work.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Seed of everything random, but for training where a seed of its own is given.
    pub seed: u64,
    /// Receives the events of the work.
    pub observer: &'a dyn Observer,
}

impl<'a> Context<'a> {
    /// Work whose events nobody receives.
    pub fn silent(seed: u64) -> Context<'static> {
        Context { seed, observer: &Silent }
    }

    /// The same work, its events received by nobody.
    pub fn silenced(&self) -> Context<'static> {
        Context::silent(self.seed)
    }

    /// Begins a task of so many units.
    pub fn task(&self, task: &str, total: u64, unit: &'static str) -> Task<'a> {
        Task::begin(self.observer, task, total, unit)
    }

    /// Tells something the user should know.
    pub fn note(&self, text: &str) {
        self.observer.observe(Event::Note(text));
    }

    /// Tells what the work is about to do, or where it stands.
    pub fn info(&self, text: &str) {
        self.observer.observe(Event::Info(text));
    }
}
