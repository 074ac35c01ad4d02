//! An image of floating-point numbers.

/// Values in units of the full scale, `(H,W,C)`.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// One number per channel of each pixel, row by row.
    pub values: Vec<f64>,
}

impl Canvas {
    /// Levels divided by 255.
    pub fn new(levels: &[u8], h: usize, w: usize, c: usize) -> Self {
        Self { h, w, c, values: levels.iter().map(|&l| f64::from(l) / 255.0).collect() }
    }

    /// One channel with values `f(row, column)`.
    pub fn plane(h: usize, w: usize, mut f: impl FnMut(usize, usize) -> f64) -> Self {
        let values = (0..h * w).map(|at| f(at / w, at % w)).collect();
        Self { h, w, c: 1, values }
    }

    /// One value; the position must lie inside.
    pub fn at(&self, y: usize, x: usize, channel: usize) -> f64 {
        self.values[(y * self.w + x) * self.c + channel]
    }

    /// The same shape with values `f(row, column, channel)`.
    pub fn map(&self, mut f: impl FnMut(usize, usize, usize) -> f64) -> Self {
        let (w, c) = (self.w, self.c);
        let value = |at: usize| f(at / c / w, at / c % w, at % c);
        Self { values: (0..self.values.len()).map(value).collect(), ..*self }
    }

    /// Levels, clipped to the scale and rounded down, like numpy's cast to bytes.
    pub fn levels(&self) -> Vec<u8> {
        self.values.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0) as u8).collect()
    }

    /// Bilinear interpolation; `fold` maps indices outside to indices inside.
    pub fn bilinear(&self, y: f64, x: f64, channel: usize, fold: fn(isize, usize) -> usize) -> f64 {
        let (y0, x0) = (y.floor(), x.floor());
        let (fy, fx) = (y - y0, x - x0);
        let at = |dy: isize, dx: isize| {
            let row = fold(y0 as isize + dy, self.h);
            self.at(row, fold(x0 as isize + dx, self.w), channel)
        };
        let top = at(0, 0) * (1.0 - fx) + at(0, 1) * fx;
        let bottom = at(1, 0) * (1.0 - fx) + at(1, 1) * fx;
        top * (1.0 - fy) + bottom * fy
    }

    /// The centre of the image enlarged to the image's size, with linear interpolation that maps
    /// corner pixels to corners: `clipped_zoom` of the authors' programs, with scipy's `zoom` of
    /// order 1.
    pub fn zoomed(&self, factor: f64) -> Self {
        let part = |n: usize| ((n as f64 / factor).ceil() as usize).clamp(1, n);
        let (ch, cw) = (part(self.h), part(self.w));
        let (top, left) = ((self.h - ch) / 2, (self.w - cw) / 2);
        // Rounded as in Python, halves to even.
        let size =
            |n: usize, least: usize| ((n as f64 * factor).round_ties_even() as usize).max(least);
        let (zh, zw) = (size(ch, self.h), size(cw, self.w));
        let (ty, tx) = ((zh - self.h) / 2, (zw - self.w) / 2);
        let source = |at: usize, part: usize, whole: usize| match whole {
            0 | 1 => 0.0,
            _ => at as f64 * (part - 1) as f64 / (whole - 1) as f64,
        };
        self.map(|y, x, channel| {
            let y = top as f64 + source(y + ty, ch, zh);
            let x = left as f64 + source(x + tx, cw, zw);
            self.bilinear(y, x, channel, nearest)
        })
    }
}

/// Repeats the edge pixel: `a a | a b c | c c`.
pub fn nearest(i: isize, n: usize) -> usize {
    i.clamp(0, n as isize - 1) as usize
}

/// Mirrored at the edge between pixels: `b a | a b c | c b` (scipy's `reflect`).
pub fn reflect(i: isize, n: usize) -> usize {
    let n = n as isize;
    let i = i.rem_euclid(2 * n);
    (if i < n { i } else { 2 * n - 1 - i }) as usize
}

/// Mirrored at the last pixel: `c b | a b c | b a` (OpenCV's `BORDER_REFLECT_101`).
pub fn reflect_101(i: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let i = i.rem_euclid(period);
    (if i < n as isize { i } else { period - i }) as usize
}
