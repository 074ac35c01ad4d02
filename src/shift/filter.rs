//! Convolutions.

use super::canvas::{Canvas, nearest, reflect_101};

/// Gaussian filter with standard deviations `[σ_y, σ_x]` pixels, truncated after `truncate` standard
/// deviations, as scipy's `gaussian_filter`; `fold` extends the edges.
pub fn gaussian(
    x: &Canvas,
    [sy, sx]: [f64; 2],
    truncate: f64,
    fold: fn(isize, usize) -> usize,
) -> Canvas {
    let along = |x: &Canvas, sigma: f64, down: bool| {
        let radius = (truncate * sigma + 0.5) as isize;
        if radius == 0 {
            return x.clone();
        }
        let weight = |i: isize| libm::exp(-0.5 * (i * i) as f64 / (sigma * sigma));
        let sum: f64 = (-radius..=radius).map(weight).sum();
        let kernel: Vec<f64> = (-radius..=radius).map(|i| weight(i) / sum).collect();
        x.map(|row, column, channel| {
            let at = |(k, i): (&f64, isize)| match down {
                true => k * x.at(fold(row as isize + i, x.h), column, channel),
                false => k * x.at(row, fold(column as isize + i, x.w), channel),
            };
            kernel.iter().zip(-radius..).map(at).sum()
        })
    };
    along(&along(x, sy, true), sx, false)
}

/// Gaussian filter as scikit-image's `gaussian` with defaults: edges repeated, cut off at 4 σ.
pub fn blur(x: &Canvas, sigma: f64) -> Canvas {
    gaussian(x, [sigma; 2], 4.0, nearest)
}

/// Correlation with a square kernel of odd side, edges mirrored, as OpenCV's `filter2D`.
pub fn correlate(x: &Canvas, kernel: &Canvas) -> Canvas {
    let (ry, rx) = (kernel.h as isize / 2, kernel.w as isize / 2);
    // Most of the square around a disk is 0.
    let taps: Vec<(isize, isize, f64)> = (0..kernel.h * kernel.w)
        .map(|at| {
            let (i, j) = (at / kernel.w, at % kernel.w);
            (i as isize - ry, j as isize - rx, kernel.at(i, j, 0))
        })
        .filter(|tap| tap.2 != 0.0)
        .collect();
    x.map(|row, column, channel| {
        let tap = |&(dy, dx, weight): &(isize, isize, f64)| {
            let y = reflect_101(row as isize + dy, x.h);
            weight * x.at(y, reflect_101(column as isize + dx, x.w), channel)
        };
        taps.iter().map(tap).sum()
    })
}

/// Motion blur: a mean of shifted copies of the image along a line at `degrees`, weighted by one
/// side of a Gaussian of `sigma` pixels; edges are repeated. As in the package imagecorruptions,
/// which stops where a shift leaves the image.
pub fn motion(x: &Canvas, radius: usize, sigma: f64, degrees: f64) -> Canvas {
    let width = 2 * radius + 1;
    let weight = |i: usize| libm::exp(-((i * i) as f64) / (2.0 * sigma * sigma));
    let sum: f64 = (0..width).map(weight).sum();
    let angle = degrees.to_radians();
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    let mut out = Canvas { values: vec![0.0; x.values.len()], ..*x };
    for i in 0..width {
        let step = |part: f64| -(i as f64 * part - 0.5).ceil() as isize;
        let (dy, dx) = (step(sin), step(cos));
        if dy.unsigned_abs() >= x.h || dx.unsigned_abs() >= x.w {
            break;
        }
        let moved = x.map(|row, column, channel| {
            let y = nearest(row as isize - dy, x.h);
            x.at(y, nearest(column as isize - dx, x.w), channel)
        });
        let weight = weight(i) / sum;
        out.values.iter_mut().zip(&moved.values).for_each(|(out, v)| *out += weight * v);
    }
    out
}
