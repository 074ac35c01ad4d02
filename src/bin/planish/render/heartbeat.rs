//! Periodic plain-text progress lines, for logs and other outputs that are not a terminal.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Interval between lines.
pub const EVERY: Duration = Duration::from_secs(30);

/// Prints a line at each interval, until it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts a thread that passes `line()` to `tell` at each interval. If no thread can be
    /// started, nothing is printed, and the work continues.
    pub fn start(
        every: Duration,
        line: impl Fn() -> String + Send + 'static,
        tell: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel();
        let run = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                tell(&line());
            }
        };
        let thread = Builder::new().name("progress".into()).spawn(run).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // Dropping the sender wakes the thread. Joining it ensures that no line follows the end of
        // the work.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_printed_until_drop() {
        let (send, lines) = channel();
        let print = move |line: &str| send.send(line.to_owned()).unwrap();
        let beat = Heartbeat::start(Duration::from_millis(5), || "3 of 9 cells".into(), print);
        for _ in 0..3 {
            assert_eq!(lines.recv().unwrap(), "3 of 9 cells");
        }
        drop(beat);
        while lines.try_recv().is_ok() {}
        // The thread has ended, and its sender is dropped.
        assert!(lines.recv_timeout(Duration::from_secs(10)).is_err());
        // Dropping before the first line does not wait for the interval.
        let started = std::time::Instant::now();
        drop(Heartbeat::start(EVERY, String::new, |_| {}));
        assert!(started.elapsed() < EVERY / 2);
    }
}
