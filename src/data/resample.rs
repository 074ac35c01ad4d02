//! Image resampling with Pillow's arithmetic (`Image.resize`, Resample.c), identical in every
//! level.
//!
//! Separable: rows first, then columns; each pass is rounded and clipped to levels. Output i
//! weights the input around c = (i + ½)·s, where s is input size over output size, by a filter
//! widened by max(s, 1), so that shrinking averages. Weights are fixed-point integers with 22
//! fractional bits, so results are the same on every machine.
//!
//! Pillow up to version 12 always resamples rows first. Version 13 resamples columns first if the
//! height shrinks much more than the width, which can change the rounding between the passes.
//! Checkpoints were trained with rows first.

use super::Interpolation;

const BITS: u32 = 22;

/// Input of one output value: inputs from `start` on, one weight each.
struct Tap {
    start: usize,
    weights: Vec<i32>,
}

fn filter(interpolation: Interpolation, x: f64) -> f64 {
    let x = x.abs();
    match interpolation {
        Interpolation::Nearest => f64::from(x <= 0.5),
        Interpolation::Bilinear => (1.0 - x).max(0.0),
        // Keys' cubic with a = −1/2.
        Interpolation::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        Interpolation::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        Interpolation::Bicubic => 0.0,
    }
}

fn taps(interpolation: Interpolation, from: usize, to: usize) -> Vec<Tap> {
    if interpolation == Interpolation::Nearest {
        return nearest(from, to);
    }
    let fixed = |w: &f64| (w * f64::from(1 << BITS)).round() as i32;
    let tap = |(start, weights): (usize, Vec<f64>)| Tap {
        start,
        weights: weights.iter().map(fixed).collect(),
    };
    filtered(interpolation, from, to).into_iter().map(tap).collect()
}

/// For each of `to` outputs, the first of its inputs, and their weights, which add up to 1. Torch's
/// antialiased interpolation has the same weights.
pub(crate) fn filtered(
    interpolation: Interpolation,
    from: usize,
    to: usize,
) -> Vec<(usize, Vec<f64>)> {
    let scale = from as f64 / to as f64;
    let widen = scale.max(1.0);
    let radius = match interpolation {
        Interpolation::Nearest => 0.5,
        Interpolation::Bilinear => widen,
        Interpolation::Bicubic => 2.0 * widen,
    };
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        // Casting a negative number gives 0, the first input.
        let start = (centre - radius + 0.5) as usize;
        let end = ((centre + radius + 0.5) as usize).min(from);
        let weights: Vec<f64> = (start..end)
            .map(|x| filter(interpolation, (x as f64 - centre + 0.5) / widen))
            .collect();
        let sum: f64 = weights.iter().sum();
        (start, weights.iter().map(|w| w / sum).collect())
    };
    (0..to).map(one).collect()
}

/// One input per output. Pillow accumulates the centre step by step; if it is a whole number, the
/// rounding of that sum selects one of two inputs.
fn nearest(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let mut centre = 0.5 * scale;
    let tap = |_| {
        let start = (centre as usize).min(from - 1);
        centre += scale;
        Tap { start, weights: vec![1 << BITS] }
    };
    (0..to).map(tap).collect()
}

fn level(sum: i32) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Resizes `image`, `(H,W,C)` levels of height and width `from`, none of them 0, to height and
/// width `to`.
pub(super) fn resample(
    image: &[u8],
    from: [usize; 2],
    to: [usize; 2],
    channels: usize,
    interpolation: Interpolation,
) -> Vec<u8> {
    let rows = if from[1] == to[1] {
        image.to_vec()
    } else {
        let taps = taps(interpolation, from[1], to[1]);
        let mut out = Vec::with_capacity(from[0] * to[1] * channels);
        for row in image.chunks_exact(from[1] * channels) {
            for tap in &taps {
                for c in 0..channels {
                    let values = row.iter().skip(tap.start * channels + c).step_by(channels);
                    let products = values.zip(&tap.weights).map(|(&v, w)| i32::from(v) * w);
                    out.push(level(products.sum()));
                }
            }
        }
        out
    };
    if from[0] == to[0] {
        return rows;
    }
    let stride = to[1] * channels;
    let mut out = Vec::with_capacity(to[0] * stride);
    let mut sums = vec![0i32; stride];
    for tap in taps(interpolation, from[0], to[0]) {
        sums.fill(0);
        for (row, w) in rows.chunks_exact(stride).skip(tap.start).zip(&tap.weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += i32::from(v) * w);
        }
        out.extend(sums.iter().map(|&sum| level(sum)));
    }
    out
}
