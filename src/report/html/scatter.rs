//! Models as dots: one figure of each against another.

use super::chart::{Axis, Colour, svg};
use super::text::figure;
use crate::evaluate::{Correlation, FEWEST, RESAMPLES, correlation, pearson, spearman};
use crate::format::number;

/// A dot.
#[derive(Clone, Debug)]
pub struct Dot {
    /// What it stands for.
    pub name: String,
    /// Along the bottom.
    pub x: f64,
    /// Along the left.
    pub y: f64,
}

/// Dots of one colour.
#[derive(Clone, Debug)]
pub struct Series {
    /// What they have in common; nothing where there is one series.
    pub name: String,
    /// Their colour.
    pub colour: Colour,
    /// Filled, or rings.
    pub filled: bool,
    /// The dots; those that are no finite numbers are left out.
    pub dots: Vec<Dot>,
}

/// Dots that a description names one by one, at most.
const NAMED: usize = 40;

/// Draws the series and tells how closely x and y go together in each. `diagonal` marks where both
/// are equal, and says what that line means: only where it crosses the chart. Nothing where no series
/// has two dots.
pub fn scatter(
    title: &str,
    [x, y]: [&str; 2],
    diagonal: Option<&str>,
    series: &[Series],
) -> String {
    let finite = |d: &&Dot| d.x.is_finite() && d.y.is_finite();
    let series: Vec<Series> = series
        .iter()
        .map(|s| Series { dots: s.dots.iter().filter(finite).cloned().collect(), ..s.clone() })
        .filter(|s| s.dots.len() > 1)
        .collect();
    if series.is_empty() {
        return String::new();
    }
    let all = || series.iter().flat_map(|s| &s.dots);
    let (xs, ys) = (all().map(|d| d.x), all().map(|d| d.y));
    let horizontal = match decades(xs.clone()) {
        true => Axis::log(x, xs),
        false => Axis::around(x, xs),
    };
    let axes = (horizontal, Axis::around(y, ys));
    let told: Vec<String> = series.iter().map(told).collect();
    let both = |of: fn(&Dot) -> f64| {
        all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
    };
    let ((left, right), (low, high)) = (both(|d| d.x), both(|d| d.y));
    let (from, to) = (left.max(low), right.min(high));
    let equal = diagonal.filter(|_| from < to);
    let drawn = svg((680, 460), (title, &told.join(" ")), axes, 120, |c| {
        c.x_axis();
        c.y_axis();
        if equal.is_some() {
            c.line(&[(from, from), (to, to)], Colour::Dashes, 3);
        }
        for s in &series {
            s.dots.iter().for_each(|d| c.dot(d.x, d.y, s.colour, 9, s.filled));
        }
    });
    let mut remarks: Vec<String> = series.iter().map(together).collect();
    remarks.extend(equal.map(|meaning| format!("dashed: {meaning}")));
    figure(title, &format!("{y}; {}", remarks.join("; ")), &drawn)
}

/// Whether numbers above 0 span a decade.
fn decades(values: impl Iterator<Item = f64>) -> bool {
    let (low, high) =
        values.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
    low > 0.0 && high / low >= 10.0
}

fn told(s: &Series) -> String {
    let dot = |d: &Dot| format!("{} at {} and {}", d.name, number(d.x), number(d.y));
    let named: Vec<String> = s.dots.iter().take(NAMED).map(dot).collect();
    let more = match s.dots.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    let lead = if s.name.is_empty() { String::new() } else { format!("{}: ", s.name) };
    format!("{lead}{}{more}.", named.join("; "))
}

/// Both correlations in words, with the number of dots. Of fewer than [`FEWEST`] none is told: no rank
/// correlation of four dots, however perfect, is beyond chance at 5% (2 of 4! orders).
fn together(s: &Series) -> String {
    let pairs: Vec<(f64, f64)> = s.dots.iter().map(|d| (d.x, d.y)).collect();
    let of = |name: &str, by| correlation(by, &pairs, 0, RESAMPLES).map(|c| words(name, &c));
    let lead = if s.name.is_empty() { String::new() } else { format!("{}: ", s.name) };
    let n = pairs.len();
    if n < FEWEST {
        return format!("{lead}{n} dots, too few for a correlation");
    }
    let found = [of("Spearman", spearman), of("Pearson", pearson)];
    let found: Vec<String> = found.into_iter().flatten().collect();
    match found.is_empty() {
        true => format!("{lead}no correlation is defined ({n} dots)"),
        false => format!("{lead}{} ({n} dots)", found.join(", ")),
    }
}

fn words(name: &str, c: &Correlation) -> String {
    let interval = c.interval.map_or(String::new(), |[l, h]| format!(" [{l:.2}, {h:.2}]"));
    format!("{name} {:.2}{interval}", c.value)
}
