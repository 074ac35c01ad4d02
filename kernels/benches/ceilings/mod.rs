//! Peak rates of this machine, measured next to every benchmark: a large product and a large copy.

use rayon::prelude::*;
use std::time::Instant;

/// Rows and columns of the product.
const SIDE: usize = 1536;
/// Numbers copied: 64 MiB, more than the private caches of a core hold.
const COPIED: usize = 1 << 24;

/// Buffers of the measurements, allocated once.
pub struct Ceilings {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    from: Vec<f32>,
    to: Vec<f32>,
}

impl Ceilings {
    pub fn new() -> Self {
        let square = SIDE * SIDE;
        Self {
            a: vec![0.5; square],
            b: vec![0.25; square],
            c: vec![1.0; square],
            from: vec![1.0; COPIED],
            to: vec![2.0; COPIED],
        }
    }

    /// Operations per second of one square f32 product on all threads, called as in the kernels.
    pub fn product(&mut self) -> f64 {
        let start = Instant::now();
        let (x, y, z) = (self.c.as_mut_ptr(), self.a.as_ptr(), self.b.as_ptr());
        let (n, s) = (SIDE, SIDE as isize);
        // SAFETY: three buffers of n² numbers with row stride n.
        unsafe {
            let threads = gemm::Parallelism::Rayon(rayon::current_num_threads());
            gemm::gemm(
                n, n, n, x, 1, s, false, y, 1, s, z, 1, s, 0.0, 1.0, false, false, false, threads,
            );
        }
        std::hint::black_box(&self.c);
        2.0 * (n as f64).powi(3) / start.elapsed().as_secs_f64()
    }

    /// Bytes read and written per second by a large copy on all threads.
    pub fn copy(&mut self) -> f64 {
        let start = Instant::now();
        let parts = self.to.par_chunks_mut(1 << 18).zip(self.from.par_chunks(1 << 18));
        parts.for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&self.to);
        8.0 * COPIED as f64 / start.elapsed().as_secs_f64()
    }
}

/// Median.
pub fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// `count` seeded numbers in (−1, 1) (SplitMix64).
pub fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
    let draw = |_| {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..count).map(draw).collect()
}
