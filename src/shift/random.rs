//! Random numbers that are the same on all machines.

use crate::random::{below, unit};
use rand_chacha::ChaCha8Rng;

/// The random stream of one image's corruption.
pub struct Random(pub ChaCha8Rng);

impl Random {
    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * unit(&mut self.0)
    }

    /// An integer in low..high.
    pub fn whole(&mut self, low: isize, high: isize) -> isize {
        low + below(&mut self.0, (high - low).max(0) as u64) as isize
    }

    /// Standard normal, by the Box–Muller method (1958).
    pub fn normal(&mut self) -> f64 {
        // 1 − u lies in (0, 1], whose logarithm is finite.
        let radius = (-2.0 * libm::log(1.0 - unit(&mut self.0))).sqrt();
        radius * libm::cos(std::f64::consts::TAU * unit(&mut self.0))
    }

    /// Poisson with this mean, at most 700, by inversion.
    pub fn poisson(&mut self, mean: f64) -> f64 {
        let u = unit(&mut self.0);
        let mut term = libm::exp(-mean);
        let (mut sum, mut k) = (term, 0.0);
        // Rounding may keep the sum below the largest u; far above the mean, terms add nothing.
        while u > sum && k < 4.0 * mean + 100.0 {
            k += 1.0;
            term *= mean / k;
            sum += term;
        }
        k
    }
}
