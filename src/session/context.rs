//! Shared inputs of all work: the engine, the seed and the observer.

use crate::engine::Engine;
use crate::observe::{Event, Observer, Silent, Task};

/// Engine, seed and observer of some work.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What computes.
    pub engine: &'a Engine,
    /// Seed of all random choices, except in training that has its own seed.
    pub seed: u64,
    /// Receives the events of the work.
    pub observer: &'a dyn Observer,
}

impl<'a> Context<'a> {
    /// A context on the CPU without an observer.
    pub fn silent(seed: u64) -> Context<'static> {
        const CPU: &Engine = &Engine::cpu();
        Context { engine: CPU, seed, observer: &Silent }
    }

    /// The same context without an observer.
    pub fn silenced(&self) -> Context<'a> {
        Context { observer: &Silent, ..*self }
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
