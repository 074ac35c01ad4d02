//! Resizing of a position embedding to another patch grid, as a matrix.

use serde::Serialize;
use std::sync::Arc;

/// How a network resizes its position embedding to the grid of its images, in every pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PositionResize {
    /// Rows and columns of the stored embedding.
    pub grid: [usize; 2],
    /// Whether the filter widens when the grid shrinks.
    pub antialias: bool,
}

/// The matrix, row-major, that resizes a position embedding from grid `from` to grid `to` by bicubic
/// interpolation: (P + H'·W', P + H·W) for P prefix rows, which are kept.
///
/// As in PyTorch's `interpolate(…, mode="bicubic", align_corners=False)`: without `antialias`, four
/// taps with a = −3/4, and positions beyond the border are those at the border; with it, a = −1/2, a
/// filter that is wider by the factor by which the grid shrinks, and weights that add up to 1.
pub fn matrix(prefix: usize, from: [usize; 2], to: [usize; 2], antialias: bool) -> Arc<[f64]> {
    let columns = prefix + from[0] * from[1];
    let mut out = vec![0.0; (prefix + to[0] * to[1]) * columns];
    for i in 0..prefix {
        out[i * columns + i] = 1.0;
    }
    let axis = |axis: usize| weights(from[axis], to[axis], antialias);
    let (down, across) = (axis(0), axis(1));
    for (r, rows) in down.iter().enumerate() {
        for (c, cols) in across.iter().enumerate() {
            let row = &mut out[(prefix + r * to[1] + c) * columns + prefix..][..from[0] * from[1]];
            for &(i, down) in rows {
                for &(j, across) in cols {
                    row[i * from[1] + j] += down * across;
                }
            }
        }
    }
    out.into()
}

/// For each of `to` outputs, inputs and their weights. An input at the border may be listed twice.
fn weights(from: usize, to: usize, antialias: bool) -> Vec<Vec<(usize, f64)>> {
    let scale = from as f64 / to as f64;
    let one = |i: usize| -> Vec<(usize, f64)> {
        let centre = (i as f64 + 0.5) * scale;
        if !antialias {
            let first = (centre - 0.5).floor();
            let tap = |k: i32| {
                let at = first + f64::from(k);
                let input = at.clamp(0.0, from as f64 - 1.0) as usize;
                (input, cubic(at + 0.5 - centre, -0.75))
            };
            return (-1..=2).map(tap).collect();
        }
        let widen = scale.max(1.0);
        // Casting a negative number gives 0, the first input.
        let start = (centre - 2.0 * widen + 0.5) as usize;
        let end = ((centre + 2.0 * widen + 0.5) as usize).min(from);
        let weight = |x: usize| cubic((x as f64 - centre + 0.5) / widen, -0.5);
        let sum: f64 = (start..end).map(weight).sum();
        (start..end).map(|x| (x, weight(x) / sum)).collect()
    };
    (0..to).map(one).collect()
}

/// The cubic convolution kernel with parameter a (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((x - 5.0) * x + 8.0) * x * a - 4.0 * a,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/reference/make_position.py` wrote: PyTorch's own interpolation.
    #[derive(serde::Deserialize)]
    struct Case {
        antialias: bool,
        from: [usize; 2],
        to: [usize; 2],
        input: Vec<f64>,
        output: Vec<f64>,
    }

    #[test]
    fn resizing_equals_pytorch() {
        let text = include_str!("../../tests/reference/bicubic.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 14);
        for Case { antialias, from, to, input, output } in cases {
            for prefix in [0, 1] {
                let found = matrix(prefix, from, to, antialias);
                let x: Vec<f64> = [9.0; 1][..prefix].iter().chain(&input).copied().collect();
                let product = |row: &[f64]| row.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
                let found: Vec<f64> = found.chunks(x.len()).map(product).collect();
                assert_eq!(found.len(), prefix + output.len());
                assert!(found[..prefix].iter().all(|&kept| kept == 9.0));
                for (found, expected) in found[prefix..].iter().zip(&output) {
                    assert!((found - expected).abs() < 1e-13, "{antialias} {from:?} {to:?}");
                }
            }
        }
    }
}
