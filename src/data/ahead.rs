//! Things made ahead of their use by threads of their own, a bounded number of them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Makes a V for each key it is told will be wanted, up to `most` at a time.
///
/// What is made depends on the key alone, so whether a thing was made ahead or by the taker
/// changes the time and nothing else. The threads are not those of the thread pool: a pool's
/// thread that waits for one of them can never be the one that should do the work.
#[derive(Debug)]
pub(crate) struct Ahead<K, V>(Arc<Shared<K, V>>);

#[derive(Debug)]
struct Shared<K, V> {
    state: Mutex<State<K, V>>,
    /// There is something to make, or nothing ever again.
    work: Condvar,
    /// Something was made.
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
    /// No code that can panic runs under the lock, so a poisoned one is sound.
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + PartialEq + Send + 'static, V: Send + 'static> Ahead<K, V> {
    /// At most `most` things made or being made, by `threads` threads. A thread that the system
    /// refuses is done without: then takers make more themselves.
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

    /// Tells what will be taken next. What was told before the last call and never taken is
    /// dropped: whoever wanted it has given up.
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

    /// The thing made for `key`, waited for if it is being made; `None` if nobody has begun, and
    /// nobody will.
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

/// Takes the slot of a thing that could not be made away, so that its taker does not wait.
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
        // Finds no running slot now, and tells those who wait.
        drop(unmade);
        state = shared.lock();
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
