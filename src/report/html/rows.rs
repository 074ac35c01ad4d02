//! Named rows with dots and error bars: the chart of everything that is told layer by layer or
//! method by method.

use super::chart::{Axis, Colour, svg};

/// A dot with its 95% interval, or without one.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Place.
    pub value: f64,
    /// Half the interval.
    pub half: Option<f64>,
    /// Colour.
    pub colour: Colour,
    /// Filled, or a ring.
    pub filled: bool,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Whether it is named in a stronger colour.
    pub strong: bool,
    /// What is in it.
    pub marks: Vec<Mark>,
}

/// Draws the rows from the top; `title` and `description` are for those who do not see it.
pub fn rows(named: (&str, &str), label: &str, rows: &[Row], log: bool) -> String {
    let reach = |m: &Mark| {
        let half = m.half.filter(|half| half.is_finite()).unwrap_or(0.0);
        [m.value - half, m.value + half]
    };
    let marks = rows.iter().flat_map(|row| &row.marks);
    let x = match log {
        true => Axis::log(label, marks.map(|m| m.value)),
        false => Axis::around(label, marks.flat_map(reach).chain([0.0])),
    };
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let left = (longest as i32 * 13 + 34).clamp(110, 400);
    let height = (rows.len() as u32).saturating_mul(46).saturating_add(110);
    let y = Axis::exact("", -(rows.len() as f64), 0.0);
    svg((960, height), named, (x, y), left, |chart| {
        chart.x_axis();
        let [low, high] = [0.0, -(rows.len() as f64)];
        if !log {
            chart.line(&[(0.0, low), (0.0, high)], Colour::Muted, 3);
        }
        for (i, row) in rows.iter().enumerate() {
            let middle = -(i as f64) - 0.5;
            let colour = if row.strong { Colour::Ink } else { Colour::Muted };
            chart.name(middle, &row.name, colour);
            for (k, mark) in row.marks.iter().enumerate() {
                // Marks of one row stand a little apart, that bars can be told from one another.
                let y = middle - 0.22 * (k as f64 - 0.5 * (row.marks.len() as f64 - 1.0));
                if !mark.value.is_finite() {
                    continue;
                }
                if mark.half.is_some() {
                    let [low, high] = reach(mark);
                    chart.line(&[(low, y), (high, y)], mark.colour, 4);
                }
                chart.dot(mark.value, y, mark.colour, 8, mark.filled);
            }
        }
    })
}
