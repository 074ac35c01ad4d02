//! Prefetching: values computed before their use on background threads, with bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Computes a value for each requested key, at most `most` at a time.
///
/// The value depends on the key alone, so prefetching affects only the time. The threads are not
/// from the thread pool, where waiting for a value could deadlock.
#[derive(Debug)]
pub(crate) struct Ahead<K, V>(Arc<Shared<K, V>>);

#[derive(Debug)]
struct Shared<K, V> {
    state: Mutex<State<K, V>>,
    /// Signals new work, or shutdown.
    work: Condvar,
    /// Signals that a value was computed.
    made: Condvar,
    most: usize,
}

#[derive(Debug)]
struct State<K, V> {
    slots: VecDeque<Slot<K, V>>,
    /// Number of calls of [`Ahead::want`].
    call: u64,
    closed: bool,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    call: u64,
    stage: Stage<V>,
}

#[derive(Debug)]
enum Stage<V> {
    Queued,
    Running,
    Made(V),
}

impl<K, V> Shared<K, V> {
    /// No code under the lock can panic, so a poisoned lock is consistent.
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + PartialEq + Send + 'static, V: Send + 'static> Ahead<K, V> {
    /// At most `most` values computed or in progress, on `threads` threads. Threads that the system
    /// refuses are skipped; then callers of `take` compute more values themselves.
    pub fn new(
        most: usize,
        threads: usize,
        make: impl Fn(&K) -> V + Send + Sync + 'static,
    ) -> Self {
        let state = State { slots: VecDeque::new(), call: 0, closed: false };
        let (work, made) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), work, made, most });
        let make = Arc::new(make);
        for _ in 0..threads {
            let (shared, make) = (shared.clone(), make.clone());
            let thread = std::thread::Builder::new().name("decode".into());
            let _ = thread.spawn(move || run(&shared, &*make));
        }
        Self(shared)
    }

    /// Sets the keys that will be taken next. Values requested before the last call and never taken
    /// are dropped.
    pub fn want(&self, keys: impl IntoIterator<Item = K>) {
        let mut state = self.0.lock();
        state.call += 1;
        let call = state.call;
        state.slots.retain(|slot| slot.call + 1 >= call);
        for key in keys {
            if state.slots.len() >= self.0.most {
                break;
            }
            if !state.slots.iter().any(|slot| slot.key == key) {
                state.slots.push_back(Slot { key, call, stage: Stage::Queued });
            }
        }
        drop(state);
        self.0.work.notify_all();
    }

    /// The value for `key`, after waiting if it is being computed; `None` if it is not queued or
    /// cannot be computed.
    pub fn take(&self, key: &K) -> Option<V> {
        let mut state = self.0.lock();
        loop {
            let at = state.slots.iter().position(|slot| slot.key == *key)?;
            if matches!(state.slots.get(at)?.stage, Stage::Running) {
                state = self.0.made.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            return match state.slots.remove(at)?.stage {
                Stage::Made(value) => Some(value),
                Stage::Queued | Stage::Running => None,
            };
        }
    }
}

impl<K, V> Drop for Ahead<K, V> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.slots.clear();
        drop(state);
        self.0.work.notify_all();
    }
}

/// Removes the slot of a value that could not be computed, so that its taker does not wait.
struct Unmade<'a, K: PartialEq, V>(&'a Shared<K, V>, K);

impl<K: PartialEq, V> Drop for Unmade<'_, K, V> {
    fn drop(&mut self) {
        let running = |slot: &Slot<K, V>| matches!(slot.stage, Stage::Running);
        self.0.lock().slots.retain(|slot| slot.key != self.1 || !running(slot));
        self.0.made.notify_all();
    }
}

fn run<K: Clone + PartialEq, V>(shared: &Shared<K, V>, make: &impl Fn(&K) -> V) {
    let mut state = shared.lock();
    loop {
        if state.closed {
            return;
        }
        let next = state.slots.iter_mut().find(|slot| matches!(slot.stage, Stage::Queued));
        let Some(slot) = next else {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        slot.stage = Stage::Running;
        let unmade = Unmade(shared, slot.key.clone());
        drop(state);
        let value = make(&unmade.1);
        state = shared.lock();
        let mut mine = state.slots.iter_mut();
        if let Some(slot) =
            mine.find(|slot| slot.key == unmade.1 && matches!(slot.stage, Stage::Running))
        {
            slot.stage = Stage::Made(value);
        }
        drop(state);
        // The slot is not running now; wakes the waiting threads.
        drop(unmade);
        state = shared.lock();
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
