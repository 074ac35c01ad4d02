//! A mean difference between two models over training seeds and images, with all that is said about it.

use super::verdict::{equivalence, interval, smallest_visible, verdict};
use super::{Crossed, Estimate, FEW, FEWEST_SEEDS, Verdict, rounding};
use serde::{Deserialize, Serialize};

/// A mean difference over training seeds and images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The mean; positive is better.
    pub mean: f64,
    /// Its standard error over seeds and images. `None` for one seed or one image.
    pub stderr: Option<f64>,
    /// Degrees of freedom of the error.
    pub degrees_of_freedom: Option<f64>,
    /// 95% interval by Student's t.
    pub interval: Option<[f64; 2]>,
    /// The smallest true effect that this experiment would find with 80% power in a two-sided test at 5%.
    pub smallest_visible: Option<f64>,
    /// p of two one-sided tests that the effect is beyond
    /// [`EQUIVALENT_NATS`](super::EQUIVALENT_NATS). `None` for figures that are not in nats.
    pub equivalence_p: Option<f64>,
    /// The verdict. `None` with fewer than [`FEWEST_SEEDS`] seeds or [`FEW`] images.
    pub verdict: Option<Verdict>,
}

impl Effect {
    /// Tests a mean over `seeds` × `images`, against `margin` if the figure has one.
    pub fn of(found: Crossed, margin: Option<f64>, [seeds, images]: [usize; 2]) -> Self {
        let Crossed { mean, stderr, degrees_of_freedom } = found;
        let error = stderr.zip(degrees_of_freedom);
        let interval = error.map(|(stderr, df)| interval(mean, stderr, df));
        let equal = |margin| error.map(|(stderr, df)| equivalence(mean, stderr, df, margin));
        let equivalence_p = margin.and_then(equal);
        let enough = seeds >= FEWEST_SEEDS && images >= FEW;
        Self {
            mean,
            stderr,
            degrees_of_freedom,
            interval,
            smallest_visible: error.map(|(stderr, df)| smallest_visible(stderr, df)),
            equivalence_p,
            // Means over seeds and images of losses, which are near 1.
            verdict: interval
                .filter(|_| enough)
                .map(|ends| verdict(ends, equivalence_p, rounding(1.0))),
        }
    }

    /// The mean with its standard error.
    pub fn estimate(&self) -> Estimate {
        Estimate { mean: self.mean, stderr: self.stderr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_seeds_or_images_give_an_interval_without_a_verdict() {
        let found = Crossed { mean: 1.0, stderr: Some(0.01), degrees_of_freedom: Some(1.0) };
        let of = |counts| Effect::of(found, None, counts);
        assert_eq!(of([FEWEST_SEEDS, FEW]).verdict, Some(Verdict::Better));
        for counts in [[2, 1000], [5, FEW - 1]] {
            let found = of(counts);
            assert_eq!((found.verdict, found.equivalence_p), (None, None));
            // t₀.₉₇₅ is 12.706 for one degree of freedom.
            let [low, high] = found.interval.unwrap();
            assert!((low - 0.87294).abs() < 1e-5 && (high - 1.12706).abs() < 1e-5);
        }
        let one = Crossed { mean: 1.0, stderr: None, degrees_of_freedom: None };
        let one = Effect::of(one, Some(0.005), [1, 1000]);
        let none = (one.interval, one.smallest_visible, one.equivalence_p, one.verdict);
        assert_eq!(none, (None, None, None, None));
    }
}
