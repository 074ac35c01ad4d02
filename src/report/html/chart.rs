//! Charts as inline SVG, drawn by plotters.
//!
//! Charts are drawn at twice their displayed size, because plotters uses whole pixels. Colours are
//! replaced by CSS classes, so that the style sheet can define light and dark themes.

use super::text::escape;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    DrawingBackend, FontTransform, IntoFont, RGBColor, SVGBackend, ShapeStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, TextStyle};

/// Font size.
pub const FONT: u32 = 22;

/// Space below the plotted area.
pub const FOOT: u32 = 46;
/// Space below the plotted area if the axis has a label.
pub const FOOT_WITH_LABEL: u32 = 78;

/// Colours by their names in the style sheet. The palette is that of Okabe and Ito, darkened or
/// lightened for contrast with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Text.
    Ink,
    /// Text of axes.
    Muted,
    /// Grid lines.
    Rule,
    /// First series.
    Blue,
    /// Second series.
    Orange,
    /// Third.
    Green,
    /// Fourth.
    Purple,
    /// A dashed line.
    Dashes,
}

impl Colour {
    /// Colours of series, in order.
    pub const SERIES: [Self; 4] = [Self::Blue, Self::Orange, Self::Green, Self::Purple];
    const ALL: [Self; 8] = [
        Self::Ink,
        Self::Muted,
        Self::Rule,
        Self::Blue,
        Self::Orange,
        Self::Green,
        Self::Purple,
        Self::Dashes,
    ];

    /// Its name in the style sheet.
    pub fn name(self) -> &'static str {
        ["ink", "muted", "rule", "blue", "orange", "green", "purple", "dashes"][self as usize]
    }

    /// A placeholder colour for plotters, replaced afterwards.
    fn stand_in(self) -> RGBColor {
        RGBColor(1, 2, self as u8 + 1)
    }
}

/// An axis: maps numbers to positions.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Its label.
    pub label: String,
}

impl Axis {
    /// A linear axis that covers all finite `values`.
    pub fn around(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = ends(values);
        let space = if high > low { 0.04 * (high - low) } else { high.abs().max(1.0) * 0.5 };
        Self { low: low - space, high: high + space, log: false, label: label.into() }
    }

    /// A logarithmic axis, or a linear axis unless all values are positive.
    pub fn log(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        let (low, high) = ends(values.iter().copied());
        if low <= 0.0 || !low.is_normal() {
            return Self::around(label, values);
        }
        Self { low: low.log10() - 0.08, high: high.log10() + 0.08, log: true, label: label.into() }
    }

    /// From `low` to `high`, exactly.
    pub fn exact(label: &str, low: f64, high: f64) -> Self {
        Self { low, high, log: false, label: label.into() }
    }

    fn share(&self, x: f64) -> f64 {
        let x = if self.log { x.max(f64::MIN_POSITIVE).log10() } else { x };
        ((x - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Ticks at round numbers, with their labels.
    fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        if self.log && self.high - self.low >= 1.0 {
            // Few decades also have ticks between the powers of ten.
            let decades = self.high - self.low;
            let (within, every): (&[f64], i32) = match decades {
                ..2.0 => (&[1.0, 2.0, 5.0], 1),
                2.0..3.0 => (&[1.0, 3.0], 1),
                _ => (&[1.0], (decades / most as f64).ceil() as i32),
            };
            return (self.low.floor() as i32..=self.high.floor() as i32)
                .filter(|power| power.rem_euclid(every) == 0)
                .flat_map(|power| within.iter().map(move |x| x * 10f64.powi(power)))
                .filter(|x| (self.low..=self.high).contains(&x.log10()))
                .map(|x| (x, plain(x, x)))
                .collect();
        }
        let power = |x: f64| if self.log { 10f64.powf(x) } else { x };
        let (low, high) = (power(self.low), power(self.high));
        let points = RangedCoordf64::from(low..high).key_points(most);
        let step = points.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
        let zero = |x: f64| if x.abs() < 1e-9 * step { 0.0 } else { x };
        points.into_iter().map(|x| (zero(x), plain(zero(x), step))).collect()
    }
}

/// Formats a tick with the number of decimals that the tick spacing needs.
fn plain(x: f64, step: f64) -> String {
    if x != 0.0 && !(1e-6..1e6).contains(&x.abs()) {
        return format!("{x:.0e}");
    }
    let places = (-(step.abs().log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize;
    format!("{x:.places$}")
}

fn ends(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let finite = values.into_iter().filter(|x| x.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// A chart being drawn.
pub struct Chart<'a> {
    backend: SVGBackend<'a>,
    x: Axis,
    y: Axis,
    /// Left, top, right, bottom of the plotted area.
    area: [i32; 4],
}

/// Draws a chart of this size. `title` and `description` are its accessible name and description.
pub fn svg(
    (width, height): (u32, u32),
    (title, description): (&str, &str),
    (x, y): (Axis, Axis),
    left: i32,
    draw: impl FnOnce(&mut Chart),
) -> String {
    let mut drawn = String::new();
    let foot = if x.label.is_empty() { FOOT } else { FOOT_WITH_LABEL };
    let (right, bottom) = (width as i32 - 24, height as i32 - foot as i32);
    let backend = SVGBackend::with_string(&mut drawn, (width, height));
    let mut chart = Chart { backend, x, y, area: [left, 18, right, bottom] };
    draw(&mut chart);
    // Writing to a string cannot fail.
    let _ = chart.backend.present();
    drop(chart);
    inline(&drawn, (width, height), title, description)
}

/// Prepares the SVG for embedding: no namespace, an accessible name and description, CSS classes
/// for colours.
fn inline(drawn: &str, (width, height): (u32, u32), title: &str, description: &str) -> String {
    let (title, description) = (escape(title), escape(description));
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title><desc>{description}</desc>\n"
    );
    out += drawn.split_once('\n').map_or("", |(_, inside)| inside);
    for colour in Colour::ALL {
        let RGBColor(r, g, b) = colour.stand_in();
        let code = format!("#{r:02X}{g:02X}{b:02X}");
        let name = colour.name();
        out = out
            .replace(&format!("fill=\"{code}\""), &format!("class=\"{name}-f\""))
            .replace(&format!("stroke=\"{code}\""), &format!("class=\"{name}-s\""));
    }
    // Redundant: set by the style sheet, or the default.
    for idle in [" opacity=\"1\"", " font-family=\"sans-serif\"", " stroke=\"none\""] {
        out = out.replace(idle, "");
    }
    out
}

impl Chart<'_> {
    fn at(&self, x: f64, y: f64) -> (i32, i32) {
        let [left, top, right, bottom] = self.area.map(f64::from);
        let place =
            (left + self.x.share(x) * (right - left), bottom - self.y.share(y) * (bottom - top));
        (place.0.round() as i32, place.1.round() as i32)
    }

    /// Grid lines and numbers along the bottom.
    pub fn x_axis(&mut self) {
        let [left, top, right, bottom] = self.area;
        for (x, text) in self.x.ticks(if right - left > 400 { 6 } else { 4 }) {
            let place = self.at(x, self.y.low).0;
            if (left..=right).contains(&place) {
                self.stroke(&[(place, top), (place, bottom)], Colour::Rule, 2);
                self.words(&text, (place, bottom + 12), Colour::Muted, (HPos::Center, VPos::Top));
            }
        }
        let label = self.x.label.clone();
        self.words(&label, (right, bottom + 44), Colour::Ink, (HPos::Right, VPos::Top));
    }

    /// Grid lines and numbers along the left, and the axis label, rotated.
    pub fn y_axis(&mut self) {
        let [left, top, right, bottom] = self.area;
        for (y, text) in self.y.ticks(5) {
            let place = self.at(self.x.low, y).1;
            if (top..=bottom).contains(&place) {
                self.stroke(&[(left, place), (right, place)], Colour::Rule, 2);
                self.words(&text, (left - 10, place), Colour::Muted, (HPos::Right, VPos::Center));
            }
        }
        if !self.y.label.is_empty() {
            let font = ("sans-serif", FONT).into_font().transform(FontTransform::Rotate270);
            let color = Colour::Ink.stand_in();
            let style = TextStyle::from(font).color(&color).pos(Pos::new(HPos::Right, VPos::Top));
            let _ = self.backend.draw_text(&self.y.label, &style, (2, top));
        }
    }

    /// A line through these points, in axis units.
    pub fn line(&mut self, points: &[(f64, f64)], colour: Colour, width: u32) {
        let points: Vec<_> = points.iter().map(|&(x, y)| self.at(x, y)).collect();
        self.stroke(&points, colour, width);
    }

    /// A dot, filled or open.
    pub fn dot(&mut self, x: f64, y: f64, colour: Colour, radius: u32, filled: bool) {
        let place = self.at(x, y);
        let style = ShapeStyle { color: colour.stand_in().to_rgba(), filled, stroke_width: 3 };
        let _ = self.backend.draw_circle(place, radius, &style, filled);
    }

    /// A label beside a dot: on its right, or in the right third of the area on its left.
    pub fn beside(&mut self, x: f64, y: f64, text: &str) {
        let place = self.at(x, y);
        let right = self.x.share(x) > 2.0 / 3.0;
        let (shift, side) = if right { (-14, HPos::Right) } else { (14, HPos::Left) };
        self.words(text, (place.0 + shift, place.1), Colour::Muted, (side, VPos::Center));
    }

    /// A label at a position on the y axis.
    pub fn name(&mut self, y: f64, text: &str, colour: Colour) {
        let place = (self.area[0] - 14, self.at(self.x.low, y).1);
        self.words(text, place, colour, (HPos::Right, VPos::Center));
    }

    fn stroke(&mut self, points: &[(i32, i32)], colour: Colour, width: u32) {
        let color = colour.stand_in().to_rgba();
        let style = ShapeStyle { color, filled: false, stroke_width: width };
        let _ = self.backend.draw_path(points.iter().copied(), &style);
    }

    fn words(&mut self, text: &str, at: (i32, i32), colour: Colour, (h, v): (HPos, VPos)) {
        let color = colour.stand_in();
        let style =
            TextStyle::from(("sans-serif", FONT).into_font()).color(&color).pos(Pos::new(h, v));
        let _ = self.backend.draw_text(text, &style, at);
    }
}
