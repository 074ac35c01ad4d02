use super::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Number of values alive, and its maximum.
#[derive(Default)]
struct Gauge {
    alive: AtomicUsize,
    most: AtomicUsize,
}

/// A counted value.
struct Counted(u64, Arc<Gauge>);

impl Counted {
    fn new(value: u64, gauge: &Arc<Gauge>) -> Self {
        gauge.most.fetch_max(gauge.alive.fetch_add(1, SeqCst) + 1, SeqCst);
        Self(value, gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.alive.fetch_sub(1, SeqCst);
    }
}

fn square(key: &u64, gauge: &Arc<Gauge>) -> Counted {
    Counted::new(key * key, gauge)
}

#[test]
fn taken_values_are_correct_and_memory_is_bounded() {
    for (most, threads) in [(1, 1), (3, 1), (5, 4), (64, 3), (4, 0)] {
        let gauge = Arc::new(Gauge::default());
        let held = gauge.clone();
        let ahead = Ahead::new(most, threads, move |key| square(key, &held));
        // Waves of eight, the next one requested before each, as in the objective.
        for wave in 0..40u64 {
            ahead.want((wave + 1) * 8..(wave + 2) * 8);
            for key in wave * 8..(wave + 1) * 8 {
                let taken = ahead.take(&key).unwrap_or_else(|| square(&key, &gauge));
                assert_eq!(taken.0, key * key);
            }
        }
        // One is held by the taker, and one by each thread whose slot was dropped.
        let found = gauge.most.load(SeqCst);
        assert!(found <= most + 1 + threads, "{found} alive with {most} slots, {threads} threads");
    }
}

#[test]
fn values_are_computed_before_they_are_taken() {
    let gauge = Arc::new(Gauge::default());
    let held = gauge.clone();
    let ahead = Ahead::new(4, 2, move |key| square(key, &held));
    ahead.want(0..100);
    while gauge.alive.load(SeqCst) < 4 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Four slots are full. No more values are computed until one is taken.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(gauge.alive.load(SeqCst), 4);
    assert!((0..4).all(|key| ahead.take(&key).is_some()));
    assert!(ahead.take(&4).is_none(), "requests beyond the bound are not queued");
}

#[test]
fn values_never_taken_are_dropped() {
    let gauge = Arc::new(Gauge::default());
    let held = gauge.clone();
    let ahead = Ahead::new(2, 1, move |key| square(key, &held));
    for start in [0, 10, 20, 30] {
        ahead.want(start..start + 2);
    }
    ahead.want([30, 31]);
    ahead.want([30, 31]);
    while gauge.alive.load(SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(ahead.take(&30).map(|taken| taken.0), Some(900));
}

#[test]
fn a_taker_does_not_wait_for_a_failed_value() {
    let ahead = Ahead::new(4, 1, |key: &u64| {
        std::thread::sleep(Duration::from_millis(5));
        assert!(*key != 1, "a deliberate failure");
        *key
    });
    ahead.want([1, 2]);
    // Whether it was queued, running or dropped, `take` returns no value and does not block.
    assert_eq!(ahead.take(&1), None);
}

#[test]
fn threads_end_when_the_owner_is_dropped() {
    let (token, made) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let (kept, count) = (token.clone(), made.clone());
    let ahead = Ahead::new(2, 3, move |key: &u64| {
        let _ = &kept;
        count.fetch_add(1, SeqCst);
        *key
    });
    ahead.want([1, 2]);
    drop(ahead);
    // Each thread holds the closure, and with it the token, until it ends.
    let started = std::time::Instant::now();
    while Arc::strong_count(&token) > 1 {
        assert!(started.elapsed() < Duration::from_secs(20), "threads are still running");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(made.load(SeqCst) <= 2);
}
