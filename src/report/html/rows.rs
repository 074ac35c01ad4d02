//! A chart with named rows of dots and error bars, for figures by layer or by method.

use super::chart::{Axis, Colour, FOOT, FOOT_WITH_LABEL, svg};

/// A dot, optionally with a bar.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Position.
    pub value: f64,
    /// Half width of the bar.
    pub half: Option<f64>,
    /// Colour.
    pub colour: Colour,
    /// Whether it is filled.
    pub filled: bool,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Whether its name has the stronger colour.
    pub strong: bool,
    /// Its dots.
    pub marks: Vec<Mark>,
}

/// Range of the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All marks and 0.
    WithZero,
    /// All marks.
    Close,
    /// All marks, logarithmic if all are positive.
    Log,
}

/// Draws the rows from the top. `title` and `description` are the accessible name and description.
pub fn rows(named: (&str, &str), label: &str, rows: &[Row], scale: Scale) -> String {
    let reach = |m: &Mark| {
        let half = m.half.filter(|half| half.is_finite()).unwrap_or(0.0);
        [m.value - half, m.value + half]
    };
    let marks = rows.iter().flat_map(|row| &row.marks);
    let x = match scale {
        Scale::Log => Axis::log(label, marks.map(|m| m.value)),
        Scale::Close => Axis::around(label, marks.flat_map(reach)),
        Scale::WithZero => Axis::around(label, marks.flat_map(reach).chain([0.0])),
    };
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let left = (longest as i32 * 12 + 30).clamp(90, 340);
    let foot = if label.is_empty() { FOOT } else { FOOT_WITH_LABEL };
    let height = (rows.len() as u32).saturating_mul(44).saturating_add(18 + foot);
    let y = Axis::exact("", -(rows.len() as f64), 0.0);
    svg((760, height), named, (x, y), left, |chart| {
        chart.x_axis();
        let [low, high] = [0.0, -(rows.len() as f64)];
        if scale == Scale::WithZero {
            chart.line(&[(0.0, low), (0.0, high)], Colour::Muted, 3);
        }
        for (i, row) in rows.iter().enumerate() {
            let middle = -(i as f64) - 0.5;
            let colour = if row.strong { Colour::Ink } else { Colour::Muted };
            chart.name(middle, &row.name, colour);
            for (k, mark) in row.marks.iter().enumerate() {
                // Marks of one row are offset, so that their bars do not overlap.
                let y = middle - 0.22 * (k as f64 - 0.5 * (row.marks.len() as f64 - 1.0));
                if !mark.value.is_finite() {
                    continue;
                }
                if mark.half.is_some() {
                    let [low, high] = reach(mark);
                    chart.line(&[(low, y), (high, y)], mark.colour, 4);
                }
                chart.dot(mark.value, y, mark.colour, 7, mark.filled);
            }
        }
    })
}
