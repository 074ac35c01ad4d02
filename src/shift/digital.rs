//! Brightness, contrast, elastic transform, pixelation and JPEG.

use super::canvas::{Canvas, reflect, reflect_101};
use super::filter::gaussian;
use super::random::Random;
use mozjpeg::{ColorSpace, Compress, Decompress, qtable};

/// Adds to the value of hue, saturation and value, which keeps hue and saturation; for a grey
/// image, adds to the level.
pub fn brightness(x: Canvas, small: bool, s: usize) -> Canvas {
    let more = match small {
        true => [0.05, 0.1, 0.15, 0.2, 0.3],
        false => [0.1, 0.2, 0.3, 0.4, 0.5],
    }[s];
    x.map(|row, column, channel| {
        let v = x.at(row, column, channel);
        let value = (0..x.c).map(|c| x.at(row, column, c)).fold(0.0, f64::max);
        let brighter = (value + more).min(1.0);
        // Black has no hue and becomes grey.
        if value > 0.0 { v * brighter / value } else { brighter }
    })
}

/// Moves every value towards its channel's mean.
pub fn contrast(x: Canvas, small: bool, s: usize) -> Canvas {
    let kept = match small {
        true => [0.75, 0.5, 0.4, 0.3, 0.15],
        false => [0.4, 0.3, 0.2, 0.1, 0.05],
    }[s];
    let n = (x.h * x.w) as f64;
    let mean = |c: usize| x.values.iter().skip(c).step_by(x.c).sum::<f64>() / n;
    let means: Vec<f64> = (0..x.c).map(mean).collect();
    x.map(|row, column, c| (x.at(row, column, c) - means[c]) * kept + means[c])
}

/// Moves pixels by a smooth random field; small images are first stretched by a random affine map.
pub fn elastic(x: &Canvas, small: bool, s: usize, random: &mut Random) -> Canvas {
    let (h, w) = (x.h as f64, x.w as f64);
    let side = h.min(w);
    // Strength of the field, its smoothness by axis, and the largest shift before smoothing.
    let (strength, smooth, most, corner) = match small {
        true => {
            let (alpha, sigma, corner) = [
                (0.0, 0.0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            ][s];
            (side * alpha, [side * sigma; 2], 1.0, side * corner)
        }
        false => {
            let alpha = 250.0 * [0.05, 0.065, 0.085, 0.1, 0.12][s];
            (alpha, [0.01 * h, 0.01 * w], 0.005 * h, 0.0)
        }
    };
    let stretched = if small { affine(x, corner, random) } else { x.clone() };
    let mut field = || {
        let noise = Canvas::plane(x.h, x.w, |_, _| random.uniform(-most, most));
        gaussian(&noise, smooth, 3.0, reflect)
    };
    let (dx, dy) = (field(), field());
    stretched.map(|row, column, channel| {
        let y = row as f64 + strength * dy.at(row, column, 0);
        stretched.bilinear(y, column as f64 + strength * dx.at(row, column, 0), channel, reflect)
    })
}

/// Moves three points around the centre by up to `most` pixels, and the image with them.
fn affine(x: &Canvas, most: f64, random: &mut Random) -> Canvas {
    let (cy, cx) = ((x.h / 2) as f64, (x.w / 2) as f64);
    let arm = (x.h.min(x.w) / 3) as f64;
    // (x, y) of the points before and after.
    let from = [(cx + arm, cy + arm), (cx + arm, cy - arm), (cx - arm, cy - arm)];
    let to =
        from.map(|(px, py)| (px + random.uniform(-most, most), py + random.uniform(-most, most)));
    let (ux, uy) = (to[1].0 - to[0].0, to[1].1 - to[0].1);
    let (vx, vy) = (to[2].0 - to[0].0, to[2].1 - to[0].1);
    let area = ux * vy - uy * vx;
    // Images of one or two pixels have no triangle to move.
    if area.abs() < 1e-9 {
        return x.clone();
    }
    x.map(|row, column, channel| {
        let (px, py) = (column as f64 - to[0].0, row as f64 - to[0].1);
        let (a, b) = ((px * vy - py * vx) / area, (ux * py - uy * px) / area);
        let source = |at: fn((f64, f64)) -> f64| {
            at(from[0]) + a * (at(from[1]) - at(from[0])) + b * (at(from[2]) - at(from[0]))
        };
        x.bilinear(source(|p| p.1), source(|p| p.0), channel, reflect_101)
    })
}

/// Shrinks by means over boxes (Pillow's `BOX`, rounded after rows and after columns), then repeats
/// pixels.
pub fn pixelate(levels: &[u8], x: &Canvas, small: bool, s: usize) -> Vec<u8> {
    let kept = match small {
        true => [0.95, 0.9, 0.85, 0.75, 0.65],
        false => [0.6, 0.5, 0.4, 0.3, 0.25],
    }[s];
    let size = |n: usize| ((n as f64 * kept) as usize).max(1);
    let (h, w) = (size(x.h), size(x.w));
    let c = x.c;
    // (rows, columns) to (columns', rows): each pass shrinks rows and transposes the image.
    let pass = |levels: &[u8], rows: usize, columns: usize, to: usize| -> Vec<u8> {
        let mut out = vec![0; to * rows * c];
        let boxes: Vec<_> = (0..to).map(|at| shares(columns, to, at)).collect();
        for row in 0..rows {
            for (at, (first, weights)) in boxes.iter().enumerate() {
                for channel in 0..c {
                    let level = |i: usize| levels[(row * columns + first + i) * c + channel];
                    let terms = weights.iter().enumerate().map(|(i, w)| w * f64::from(level(i)));
                    out[(at * rows + row) * c + channel] = (terms.sum::<f64>() + 0.5) as u8;
                }
            }
        }
        out
    };
    let fewer = pass(&pass(levels, x.h, x.w, w), w, x.h, h);
    // Pillow accumulates the steps; a sum just below a whole number is truncated.
    let near = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let next = |at: &mut f64, _| Some(std::mem::replace(at, *at + step));
        (0..to).scan(0.5 * step, next).map(|at| (at as usize).min(from - 1)).collect()
    };
    let (rows, columns) = (near(h, x.h), near(w, x.w));
    let place = |at: usize| fewer[(rows[at / c / x.w] * w + columns[at / c % x.w]) * c + at % c];
    (0..levels.len()).map(place).collect()
}

/// First pixel and weights of one box.
fn shares(from: usize, to: usize, at: usize) -> (usize, Vec<f64>) {
    let scale = from as f64 / to as f64;
    let (centre, half) = ((at as f64 + 0.5) * scale, 0.5 * scale);
    let first = (centre - half + 0.5).max(0.0) as usize;
    let last = ((centre + half + 0.5) as usize).clamp(first + 1, from);
    let inside = |i: usize| {
        let off = (i as f64 + 0.5 - centre) / scale;
        if off > -0.5 && off <= 0.5 { 1.0 } else { 0.0 }
    };
    let weights: Vec<f64> = (first..last).map(inside).collect();
    let sum: f64 = weights.iter().sum();
    (first, weights.iter().map(|w| w / sum).collect())
}

/// Saves as JPEG and decodes: libjpeg's tables and transforms, colour at half resolution.
///
/// # Errors
/// The codec rejects the image.
pub fn jpeg(levels: &[u8], x: &Canvas, small: bool, s: usize) -> std::io::Result<Vec<u8>> {
    let quality = match small {
        true => [80, 65, 58, 50, 40],
        false => [25, 18, 15, 10, 7],
    }[s];
    // The library would panic.
    if x.h.max(x.w) > 65_500 {
        return Err(std::io::Error::other("more than 65500 pixels a side"));
    }
    let colour = if x.c == 1 { ColorSpace::JCS_GRAYSCALE } else { ColorSpace::JCS_RGB };
    let mut jpeg = Compress::new(colour);
    // libjpeg's settings; mozjpeg's would give a different image.
    jpeg.set_fastest_defaults();
    jpeg.set_size(x.w, x.h);
    jpeg.set_quality(quality as f32);
    if quality < 40 {
        // Table entries above a byte are clipped, as in Pillow; `set_quality` would store them in
        // two bytes. The argument gives libjpeg's table factor, an integer percentage.
        let argument = 5000.0 / (5000 / quality) as f32;
        jpeg.set_luma_qtable(&qtable::AnnexK_Luma.scaled(argument, argument));
        jpeg.set_chroma_qtable(&qtable::AnnexK_Chroma.scaled(argument, argument));
    }
    let mut jpeg = jpeg.start_compress(Vec::new())?;
    jpeg.write_scanlines(levels)?;
    let bytes = jpeg.finish()?;
    let read = Decompress::new_mem(&bytes)?;
    match x.c {
        1 => read.grayscale()?.read_scanlines(),
        _ => read.rgb()?.read_scanlines(),
    }
}
