//! Blur of the lens, of the glass before it, and of movement.

use super::canvas::Canvas;
use super::filter::{blur, correlate, motion as move_along};
use super::random::Random;

/// Correlation with a disk of a radius in pixels, smoothed by a Gaussian of three pixels' width, or
/// five for radii above 8.
pub fn defocus(x: &Canvas, small: bool, s: usize) -> Canvas {
    let (radius, sigma) = match small {
        true => [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)],
        false => [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)],
    }[s];
    correlate(x, &disk(radius, sigma))
}

fn disk(radius: f64, sigma: f64) -> Canvas {
    let (half, taps) = if radius <= 8.0 { (8, 1) } else { (radius as isize, 2) };
    let side = 2 * half as usize + 1;
    let mut disk = Canvas::plane(side, side, |y, x| {
        let (y, x) = ((y as isize - half) as f64, (x as isize - half) as f64);
        if x * x + y * y <= radius * radius { 1.0 } else { 0.0 }
    });
    let sum: f64 = disk.values.iter().sum();
    disk.values.iter_mut().for_each(|v| *v /= sum);
    let weight = |i: isize| libm::exp(-((i * i) as f64) / (2.0 * sigma * sigma));
    let total: f64 = (-taps..=taps).map(weight).sum();
    let width = 2 * taps as usize + 1;
    let place = |at: usize| weight(at as isize - taps) / total;
    correlate(&disk, &Canvas::plane(width, width, |y, x| place(y) * place(x)))
}

/// Blurs, copies pixels from nearby positions, as often as the settings require, and blurs again.
/// (The authors' programs intend to swap pixels, but numpy's views make it a copy, and their images
/// were made this way.)
pub fn glass(x: &Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let (sigma, reach, times) = match small {
        true => [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        false => [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    }[s];
    let first = blur(x, sigma);
    let mut out = Canvas::new(&first.levels(), x.h, x.w, x.c);
    for _ in 0..times {
        for row in (reach + 1..=x.h.saturating_sub(reach)).rev() {
            for column in (reach + 1..=x.w.saturating_sub(reach)).rev() {
                let d = reach as isize;
                let (dx, dy) = (random.whole(-d, d), random.whole(-d, d));
                // For row = H − reach, dy < reach keeps the source inside.
                let from = (row.saturating_add_signed(dy)) * x.w + column.saturating_add_signed(dx);
                let to = row * x.w + column;
                for channel in 0..x.c {
                    out.values[to * x.c + channel] = out.values[from * x.c + channel];
                }
            }
        }
    }
    blur(&out, sigma)
}

/// Movement at an angle within 45° of the rows.
pub fn motion(x: &Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let (radius, sigma) = match small {
        true => [(6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)],
        false => [(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)],
    }[s];
    move_along(x, radius, sigma, random.uniform(-45.0, 45.0))
}

/// The mean of the image and its enlargements.
pub fn zoom(x: &Canvas, small: bool, s: usize) -> Canvas {
    // Steps and their number as in numpy.arange; the first factor is 1.
    let (step, count) = match small {
        true => [(0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)],
        false => [(0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)],
    }[s];
    let mut sum = x.values.clone();
    // numpy's step is the difference of the first two factors; sizes depend on its last bit.
    let step = (1.0 + step) - 1.0;
    for i in 0..count {
        let layer = x.zoomed(1.0 + f64::from(i) * step);
        sum.iter_mut().zip(&layer.values).for_each(|(sum, v)| *sum += v);
    }
    let n = f64::from(count) + 1.0;
    Canvas { values: sum.iter().map(|v| v / n).collect(), ..*x }
}
