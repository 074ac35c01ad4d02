//! bf16 and f32 products at the shapes of a ViT-B/16: verified first, then timed.
//!
//! `cargo bench -p planish-kernels --bench bf16 [-- THREADS]`. Prints best and median GFLOP/s of
//! bf16 products, as fractions of the micro-kernel on cached data with the same number of threads.
//! Also prints the rates of the same product in f32 with vector instructions, and with tiles if the
//! processor has them (`planish_kernels::bf16::split`). All are measured alternately. The bf16
//! instructions are measured even if the library prefers f32 with rounded operands; the first line
//! then says so. `benches/pytorch/operations.py` prints PyTorch's rates at these shapes.

#[path = "../../src/bin/planish/allocator.rs"]
mod allocator;

use planish_kernels::bf16::{Unit, micro_kernel, multiply_with, split};
use planish_kernels::product::{Start, View, multiply};
use rayon::prelude::*;
use std::error::Error;
use std::time::Instant;

/// Runs per measurement.
const RUNS: usize = 15;
/// Both use the same operands and K is at most 3152; see `planish_kernels::bf16` for the bound.
const TOLERANCE: f64 = 1e-5;

/// Seeded numbers in (−1.5, 1.5) (SplitMix64).
fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let draw = |_| {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        3.0 * ((z >> 40) as f32) / (1 << 24) as f32 - 1.5
    };
    (0..count).map(draw).collect()
}

/// A product: its name and the layout of its operands.
struct Case {
    name: &'static str,
    a: View,
    b: View,
}

impl Case {
    fn measure(&self) -> Result<(), Box<dyn Error>> {
        let (va, vb) = (self.a, self.b);
        let [outer, inner] = va.batch;
        let v = View::batched(outer, inner, va.rows, vb.cols);
        let count = outer * inner;
        let size = |v: &View| count * v.rows * v.cols;
        let (a, b) = (numbers(size(&va), 1), numbers(size(&vb), 2));
        let mut c = vec![0f32; size(&v)];
        let mut expected = c.clone();
        let unit = measured();
        multiply_with(Unit::Portable, (&mut expected, v), Start::Zero, (&a, va), (&b, vb), 1.0);
        multiply_with(unit, (&mut c, v), Start::Zero, (&a, va), (&b, vb), 1.0);
        self.verify(unit, &c, &expected)?;
        let tiles = split::available();
        if tiles {
            multiply((&mut expected, v), Start::Zero, (&a, va), (&b, vb), 1.0);
            split::multiply((&mut c, v), Start::Zero, (&a, va), (&b, vb), 1.0);
            self.verify(unit, &c, &expected)?;
        }
        let flops = 2.0 * (count * va.rows * va.cols * vb.cols) as f64;
        let (mut rates, mut shares, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let (mut on_tiles, mut tile_shares) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            if tiles {
                let best = ceiling(unit, 3);
                let start = Instant::now();
                split::multiply((&mut c, v), Start::Zero, (&a, va), (&b, vb), 1.0);
                let rate = flops / start.elapsed().as_secs_f64();
                on_tiles.push(rate);
                tile_shares.push(rate / best);
            }
            let best = ceiling(unit, 1);
            let start = Instant::now();
            multiply_with(unit, (&mut c, v), Start::Zero, (&a, va), (&b, vb), 1.0);
            let rate = flops / start.elapsed().as_secs_f64();
            rates.push(rate);
            shares.push(rate / best);
            let start = Instant::now();
            multiply((&mut c, v), Start::Zero, (&a, va), (&b, vb), 1.0);
            plain.push(flops / start.elapsed().as_secs_f64());
        }
        let (best, share) = (rates.iter().fold(0.0f64, |x, &y| x.max(y)), median(shares));
        let f32 = match tiles {
            false => String::new(),
            true => format!(
                "{:.0} on tiles, {:.0} % of the micro-kernel, and ",
                median(on_tiles) / 1e9,
                100.0 * median(tile_shares)
            ),
        };
        println!(
            "{:<16}{count:>3} × {:>4} × {:>4} × {:>4} {:>6.0} GFLOP/s, best {:>5.0}, {:>3.0} % of \
             the micro-kernel; f32 {f32}{:.0} on vectors",
            self.name,
            va.rows,
            va.cols,
            vb.cols,
            median(rates) / 1e9,
            best / 1e9,
            100.0 * share,
            median(plain) / 1e9,
        );
        Ok(())
    }

    /// Fails if the two differ by more than rounding.
    fn verify(&self, unit: Unit, found: &[f32], expected: &[f32]) -> Result<(), Box<dyn Error>> {
        let square = |x: f64| x * x;
        let norm: f64 = expected.iter().map(|&x| square(x.into())).sum();
        let pairs = found.iter().zip(expected);
        let error: f64 = pairs.map(|(&x, &y)| square(f64::from(x) - f64::from(y))).sum();
        let error = (error / norm).sqrt();
        if error.is_nan() || error >= TOLERANCE {
            return Err(format!("{}: {unit:?} differs by {error:e}", self.name).into());
        }
        Ok(())
    }
}

/// The fastest bf16 instructions, or f32 with rounded operands if there are none.
fn measured() -> Unit {
    let all = Unit::available();
    all.iter().rfind(|unit| **unit != Unit::Portable).copied().unwrap_or(Unit::Portable)
}

/// Operations per second of the micro-kernel alone, on all threads, for operands in `parts` parts.
fn ceiling(unit: Unit, parts: usize) -> f64 {
    let threads = rayon::current_num_threads();
    let start = Instant::now();
    let flops: usize =
        (0..threads).into_par_iter().map(|_| micro_kernel((unit, parts), 8, 2000)).sum();
    flops as f64 / start.elapsed().as_secs_f64()
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// y = x Wᵀ, gx = gy W, gW = gyᵀ x.
fn linear(rows: usize, inputs: usize, outputs: usize) -> [Case; 3] {
    let (x, w) = (View::matrix(rows, inputs), View::matrix(outputs, inputs));
    let y = View::matrix(rows, outputs);
    [
        Case { name: "linear", a: x, b: w.t() },
        Case { name: "linear, gx", a: y, b: w },
        Case { name: "linear, gW", a: y.t(), b: x },
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().skip(1).find_map(|x| x.parse().ok()).unwrap_or(0);
    allocator::keep_pages();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let unit = measured();
    println!(
        "{} threads, {unit:?}, micro-kernel {:.0} GFLOP/s; products take {:?}",
        rayon::current_num_threads(),
        ceiling(unit, 1) / 1e9,
        Unit::best(),
    );
    for (rows, inputs, outputs) in [
        (197, 768, 2304),
        (197, 768, 768),
        (197, 768, 3072),
        (1576, 768, 2304),
        (1576, 768, 768),
        (1576, 768, 3072),
        (1576, 3072, 768),
        (3152, 768, 3072),
    ] {
        linear(rows, inputs, outputs).iter().try_for_each(Case::measure)?;
    }
    let (q, p) = (View::batched(8, 12, 197, 64), View::batched(8, 12, 197, 197));
    for case in [
        Case { name: "scores", a: q, b: q.t() },
        Case { name: "mix", a: p, b: q },
        Case { name: "mix, gp", a: q, b: q.t() },
        Case { name: "mix, gv", a: p.t(), b: q },
    ] {
        case.measure()?;
    }
    Ok(())
}
