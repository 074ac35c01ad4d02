//! How far the work is, how fast it goes and how long it will take, on standard error.

use super::format::{count, duration, number};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt;
use std::io::Write;

/// A progress line. Silent under `--quiet`, and where standard error is not a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Starts a line for `total` steps of one `unit`, in the plural ("images").
    pub fn new(label: &str, total: u64, unit: &'static str, quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self::on(target, label, total, unit)
    }

    fn on(target: ProgressDrawTarget, label: &str, total: u64, unit: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(style(unit));
        bar.set_prefix(label.to_owned());
        Self(bar)
    }

    /// Counts `steps` more.
    pub fn add(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Shows a few words at the line's end: the loss, say.
    pub fn note(&self, words: impl Into<String>) {
        self.0.set_message(words.into());
    }

    /// Prints a line on standard error above the progress line, which goes on below it.
    pub fn line(&self, text: &str) {
        self.0.suspend(|| {
            // A closed standard error is no reason to lose the work.
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }
}

/// The line goes when the work is done or given up; the command prints what is worth keeping.
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(unit: &'static str) -> ProgressStyle {
    let template = "{prefix} {bar:24} {done} · {speed} · {left} {msg}";
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▉▊▋▌▍▎▏ ")
        .with_key("done", move |state: &ProgressState, w: &mut dyn fmt::Write| {
            let total = state.len().unwrap_or_default();
            put(w, &format!("{} of {} {unit}", count(state.pos()), count(total)));
        })
        .with_key("speed", move |state: &ProgressState, w: &mut dyn fmt::Write| {
            put(w, &format!("{} {unit}/s", number(state.per_sec())));
        })
        .with_key("left", |state: &ProgressState, w: &mut dyn fmt::Write| {
            put(w, &format!("{} left", duration(state.eta().as_secs_f64())));
        })
}

fn put(writer: &mut dyn fmt::Write, text: &str) {
    // The writer is a string: it cannot fail.
    let _ = writer.write_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Keeps every line written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<Vec<String>>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push(text.into());
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("<cleared>")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_line_tells_count_rate_and_time_left_and_goes_when_done() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
        let progress = Progress::on(target, "eval", 4000, "images");
        progress.add(1000);
        progress.note("loss 0.5");
        progress.0.tick();
        let lines = || screen.0.lock().unwrap().clone();
        let shown = |line: &String| {
            let parts = ["eval ", "1,000 of 4,000 images", "images/s", " left", "loss 0.5"];
            parts.iter().all(|part| line.contains(part))
        };
        assert!(lines().iter().any(shown), "{:?}", lines());
        drop(progress);
        assert_eq!(lines().last().map(String::as_str), Some("<cleared>"));
    }

    #[test]
    fn quiet_is_hidden() {
        assert!(Progress::new("eval", 10, "images", true).0.is_hidden());
    }
}
