//! Scatter plots of one figure against another.

use super::chart::{Axis, Colour, svg};
use super::text::figure;
use crate::evaluate::{Correlation, FEWEST, RESAMPLES, correlation, pearson, spearman};
use crate::format::number;

/// A dot.
#[derive(Clone, Debug)]
pub struct Dot {
    /// Its name.
    pub name: String,
    /// Horizontal coordinate.
    pub x: f64,
    /// Vertical coordinate.
    pub y: f64,
}

/// Dots of one colour.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name of the series; empty for a single series.
    pub name: String,
    /// Their colour.
    pub colour: Colour,
    /// Whether the dots are filled.
    pub filled: bool,
    /// The dots. Dots that are not finite are skipped.
    pub dots: Vec<Dot>,
}

/// Maximum number of dots with labels in the chart.
const LABELLED: usize = 12;
/// Maximum number of dots listed in a description.
const NAMED: usize = 40;

/// Draws the series and states the correlation of x and y in each. `diagonal` labels the line x =
/// y, which is drawn if it crosses the chart. Empty if no series has two dots.
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
            if all().count() <= LABELLED {
                s.dots.iter().for_each(|d| c.beside(d.x, d.y, &d.name));
            }
        }
    });
    let mut remarks: Vec<String> = series.iter().map(together).collect();
    remarks.extend(equal.map(|meaning| format!("dashed: {meaning}")));
    figure(title, &format!("{y}; {}", remarks.join("; ")), &drawn)
}

/// Whether positive numbers span at least a decade.
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

/// Both correlations as text, with the number of dots. With fewer than [`FEWEST`] dots there is
/// none: even a perfect rank correlation of four dots is not significant at 5% (2 of 4! orders).
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
