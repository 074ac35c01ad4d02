//! A plain line now and then, where there is no terminal to draw a progress line on: in a log, who
//! waits sees that the work goes on, and how far it is.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Time between two lines.
pub const EVERY: Duration = Duration::from_secs(30);

/// Tells a line each time an interval has passed, until it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts to tell what `line` gives, by `tell`. Where the system refuses a thread, nothing is
    /// told: the work does not hang on it.
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
        // Its end of the channel gone, the thread stops waiting; no line comes after the work's end.
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
    fn lines_come_until_it_is_dropped() {
        let (send, lines) = channel();
        let tell = move |line: &str| send.send(line.to_owned()).unwrap();
        let beat = Heartbeat::start(Duration::from_millis(5), || "3 of 9 cells".into(), tell);
        for _ in 0..3 {
            assert_eq!(lines.recv().unwrap(), "3 of 9 cells");
        }
        drop(beat);
        while lines.try_recv().is_ok() {}
        // The thread and its sender are gone.
        assert!(lines.recv_timeout(Duration::from_secs(10)).is_err());
        // One that never comes to a line ends at once.
        let started = std::time::Instant::now();
        drop(Heartbeat::start(EVERY, String::new, |_| {}));
        assert!(started.elapsed() < EVERY / 2);
    }
}
