//! Progress on standard error: steps done, rate, and time left.

use super::heartbeat::{EVERY, Heartbeat};
use super::post_train::{epoch_line, start_line};
use crate::message::in_flags;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use planish::format::{count, duration, number};
use planish::observe::{Event, Observer};
use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The terminal: progress lines and notes on standard error.
pub struct Terminal {
    quiet: bool,
    tasks: Mutex<Vec<Progress>>,
}

impl Terminal {
    /// Prints to standard error, or nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, tasks: Mutex::default() }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        match self.tasks().last() {
            Some(task) => task.line(text),
            None => to_stderr(text),
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Terminal {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Begin { task, total, unit } => {
                self.tasks().push(Progress::new(task, total, unit, self.quiet));
            }
            Event::Advance(units) => {
                if let Some(task) = self.tasks().last() {
                    task.add(units);
                }
            }
            Event::Status(what) => {
                if let Some(task) = self.tasks().last() {
                    task.note(what);
                }
            }
            Event::End => drop(self.tasks().pop()),
            Event::Note(text) => self.line(&format!("note: {}", in_flags(text))),
            Event::Info(text) => self.line(text),
            Event::Start { loss, watched } => self.line(&start_line(loss, watched)),
            Event::Epoch { epoch, watched } => self.line(&epoch_line(epoch, watched)),
        }
    }
}

/// A progress line. If standard error is not a terminal, a plain line every 30 s. Silent with
/// `--quiet`.
#[derive(Debug)]
pub struct Progress(ProgressBar, Option<Heartbeat>);

impl Progress {
    /// Starts a progress line for `total` steps; `unit` is a plural ("images").
    pub fn new(label: &str, total: u64, unit: &'static str, quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let mut progress = Self::on(target, label, total, unit);
        if !quiet && progress.0.is_hidden() {
            let bar = progress.0.clone();
            progress.1 = Some(Heartbeat::start(EVERY, move || plain(&bar, unit), to_stderr));
        }
        progress
    }

    fn on(target: ProgressDrawTarget, label: &str, total: u64, unit: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(style(unit));
        bar.set_prefix(label.to_owned());
        Self(bar, None)
    }

    /// Advances by `steps`.
    pub fn add(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Sets the text at the end of the line, for example the loss.
    pub fn note(&self, words: impl Into<String>) {
        self.0.set_message(words.into());
    }

    /// Prints a line on standard error, above the progress line.
    pub fn line(&self, text: &str) {
        self.0.suspend(|| to_stderr(text));
    }
}

/// The line is removed when the work ends. The command prints results separately.
impl Drop for Progress {
    fn drop(&mut self) {
        self.1 = None;
        self.0.finish_and_clear();
    }
}

fn to_stderr(text: &str) {
    // Continue if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{}", super::for_stderr(text));
}

/// `study: 12 of 90 cells after 3 min 10 s, about 20 min 35 s left; small, fog 3`.
fn plain(bar: &ProgressBar, unit: &str) -> String {
    let (done, total) = (bar.position(), bar.length().unwrap_or_default());
    let spent = bar.elapsed().as_secs_f64();
    let left = match left(done, total, spent) {
        // No rate is known yet.
        None => String::new(),
        Some(left) => format!(", about {} left", duration(left)),
    };
    let note = bar.message();
    let note = if note.is_empty() { note } else { format!("; {note}") };
    let (label, spent) = (bar.prefix(), duration(spent));
    format!("{label}: {} of {} {unit} after {spent}{left}{note}", count(done), count(total))
}

/// Seconds left at the mean rate so far. A moving average, as indicatif uses, would treat one long
/// step as a standstill and predict years.
fn left(done: u64, total: u64, spent: f64) -> Option<f64> {
    (done > 0).then(|| spent * total.saturating_sub(done) as f64 / done as f64)
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
            let rate = state.pos() as f64 / state.elapsed().as_secs_f64().max(1e-9);
            put(w, &format!("{} {unit}/s", number(rate)));
        })
        .with_key("left", |state: &ProgressState, w: &mut dyn fmt::Write| {
            let total = state.len().unwrap_or_default();
            if let Some(left) = left(state.pos(), total, state.elapsed().as_secs_f64()) {
                put(w, &format!("{} left", duration(left)));
            }
        })
}

fn put(writer: &mut dyn fmt::Write, text: &str) {
    // Writing to a string cannot fail.
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
    fn line_shows_count_rate_and_time_left_and_is_cleared_at_the_end() {
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
    fn time_left_uses_the_mean_rate() {
        assert_eq!(left(3, 10, 240.0), Some(560.0));
        assert_eq!(left(3, 10, 300.0), Some(700.0));
        assert_eq!(left(0, 10, 300.0), None);
    }

    #[test]
    fn quiet_progress_is_hidden() {
        let quiet = Progress::new("eval", 10, "images", true);
        assert!(quiet.0.is_hidden() && quiet.1.is_none());
    }

    #[test]
    fn plain_line_shows_progress() {
        let progress = Progress::on(ProgressDrawTarget::hidden(), "study", 1200, "cells");
        let line = plain(&progress.0, "cells");
        assert!(line.starts_with("study: 0 of 1,200 cells after 0.0"), "{line}");
        assert!(!line.contains("left") && !line.contains(';'), "{line}");
        progress.add(30);
        progress.note("small, fog 3");
        let line = plain(&progress.0, "cells");
        assert!(line.starts_with("study: 30 of 1,200 cells after "), "{line}");
        assert!(line.contains(", about ") && line.ends_with(" left; small, fog 3"), "{line}");
    }
}
