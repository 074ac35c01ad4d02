//! Snow, frost and fog.

use super::canvas::Canvas;
use super::filter::motion;
use super::random::Random;

/// Snow flakes: normal noise, enlarged, thresholded and motion-blurred, added to a whitened image
/// once as it is and once rotated by 180°.
pub fn snow(x: Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    // Mean and spread of the noise, enlargement, threshold, radius and spread of the motion,
    // fraction kept.
    let (mean, spread, factor, least, radius, sigma, kept) = match small {
        true => [
            (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
        ],
        false => [
            (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
        ],
    }[s];
    let noise = Canvas::plane(x.h, x.w, |_, _| mean + spread * random.normal());
    let mut flakes = noise.zoomed(factor);
    for v in &mut flakes.values {
        *v = if *v < least { 0.0 } else { v.min(1.0) };
    }
    let flakes = motion(&flakes, radius, sigma, random.uniform(-135.0, -45.0));
    let flakes = flakes.map(|row, column, _| (flakes.at(row, column, 0) * 255.0).round() / 255.0);
    x.map(|row, column, channel| {
        let v = x.at(row, column, channel);
        let grey = match x.c {
            1 => v,
            // ITU-R 601.
            _ => {
                let part = |channel| x.at(row, column, channel);
                0.299 * part(0) + 0.587 * part(1) + 0.114 * part(2)
            }
        };
        let white = kept * v + (1.0 - kept) * v.max(1.5 * grey + 0.5);
        white + flakes.at(row, column, 0) + flakes.at(x.h - 1 - row, x.w - 1 - column, 0)
    })
}

/// Measured colour and contrast of the five frost photographs that the authors paste (two are
/// identical): means of red, green and blue, and the spread.
const FROST: [([f64; 3], f64); 5] = [
    ([0.305, 0.585, 0.650], 0.08),
    ([0.787, 0.805, 0.841], 0.09),
    ([0.787, 0.805, 0.841], 0.09),
    ([0.540, 0.599, 0.648], 0.11),
    ([0.441, 0.484, 0.528], 0.17),
];

/// Darkens the image and adds a layer of frost.
///
/// The authors crop one of five photographs, which may not be redistributed. Here the layer is
/// generated from two plasma fractals, one of them folded at its middle value into ridges, scaled
/// to a photograph's mean colour and spread. Brightness and strength match theirs; the crystals do
/// not.
pub fn frost(x: Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let (kept, layer) = match small {
        true => [(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        false => [(1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    }[s];
    let (colour, spread) = FROST[random.whole(0, FROST.len() as isize) as usize];
    let (clouds, ridges) = (plasma(x.h, x.w, 2.0, random), plasma(x.h, x.w, 1.6, random));
    let mut texture = clouds.map(|row, column, _| {
        clouds.at(row, column, 0) - (2.0 * ridges.at(row, column, 0) - 1.0).abs()
    });
    let n = texture.values.len() as f64;
    let mean = texture.values.iter().sum::<f64>() / n;
    let square: f64 = texture.values.iter().map(|v| (v - mean).powi(2)).sum();
    // A single pixel has no spread.
    let scale = (square / n).sqrt().max(1e-6).recip();
    texture.values.iter_mut().for_each(|v| *v = (*v - mean) * scale);
    let grey = colour.iter().sum::<f64>() / 3.0;
    x.map(|row, column, channel| {
        let tint = if x.c == 1 { grey } else { colour[channel] };
        let frost = (tint + spread * texture.at(row, column, 0)).clamp(0.0, 1.0);
        kept * x.at(row, column, channel) + layer * frost
    })
}

/// Adds a plasma fractal of this strength, and rescales so that the maximum value is unchanged.
pub fn fog(x: Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let (strength, decay) = match small {
        true => [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)],
        false => [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)],
    }[s];
    let top = x.values.iter().copied().fold(0.0, f64::max);
    let clouds = plasma(x.h, x.w, decay, random);
    x.map(|row, column, channel| {
        let v = x.at(row, column, channel) + strength * clouds.at(row, column, 0);
        v * top / (top + strength)
    })
}

/// A plasma fractal between 0 and 1, by the diamond-square algorithm (Fournier, Fussell and
/// Carpenter, CACM 25, 1982) on the next power of two, with periodic edges. Each halving divides
/// the square root of the displacement by `decay`.
fn plasma(h: usize, w: usize, decay: f64, random: &mut Random) -> Canvas {
    let side = h.max(w).next_power_of_two();
    let mut map = vec![0.0; side * side];
    let (mut step, mut wibble) = (side, 100.0);
    let mut place = |map: &mut [f64], [y, x]: [usize; 2], around: [[usize; 2]; 4], wibble: f64| {
        let of = |[y, x]: [usize; 2]| map[(y % side) * side + x % side];
        let mean = around.map(of).iter().sum::<f64>() / 4.0;
        map[y * side + x] = mean + wibble * random.uniform(-wibble, wibble);
    };
    while step >= 2 {
        let half = step / 2;
        let starts = || (0..side).step_by(step);
        for y in starts() {
            for x in starts() {
                let corners = [[y, x], [y + step, x], [y, x + step], [y + step, x + step]];
                place(&mut map, [y + half, x + half], corners, wibble);
            }
        }
        for y in starts() {
            for x in starts() {
                // The midpoints of the upper and of the left edge.
                let up = [[y, x], [y, x + step], [y + half, x + half], [y + side - half, x + half]];
                place(&mut map, [y, x + half], up, wibble);
                let left =
                    [[y, x], [y + step, x], [y + half, x + half], [y + half, x + side - half]];
                place(&mut map, [y + half, x], left, wibble);
            }
        }
        step = half;
        wibble /= decay;
    }
    let low = map.iter().copied().fold(f64::INFINITY, f64::min);
    let range = map.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
    let scale = if range > 0.0 { range.recip() } else { 0.0 };
    Canvas::plane(h, w, |y, x| (map[y * side + x] - low) * scale)
}
