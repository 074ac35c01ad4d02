//! How the learning rate changes over a run.

use std::f64::consts::PI;

/// A learning rate for every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    steps: usize,
    warm_up: usize,
    cosine: bool,
}

impl Schedule {
    /// From `peak` to 0 along half a cosine over `steps` steps (Loshchilov & Hutter, ICLR 2017,
    /// without restarts), after `warm_up` of them that rise linearly to the peak:
    /// rate(t) = peak · (1 + cos(π (t − w)/(n − w)))/2 for t ≥ w.
    pub fn cosine(peak: f64, steps: usize, warm_up: usize) -> Self {
        Self { peak, steps, warm_up, cosine: true }
    }

    /// `peak` throughout, after a linear warm-up.
    pub fn constant(peak: f64, steps: usize, warm_up: usize) -> Self {
        Self { peak, steps, warm_up, cosine: false }
    }

    /// The rate of step `t`, from 0.
    pub fn rate(&self, t: usize) -> f64 {
        if t < self.warm_up {
            return self.peak * (t + 1) as f64 / self.warm_up as f64;
        }
        if !self.cosine {
            return self.peak;
        }
        let left = self.steps.saturating_sub(self.warm_up).max(1);
        let done = (t - self.warm_up).min(left) as f64 / left as f64;
        self.peak * 0.5 * (1.0 + (PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_falls_from_peak_to_nothing() {
        let s = Schedule::cosine(0.2, 100, 0);
        assert_eq!(s.rate(0), 0.2);
        assert!((s.rate(50) - 0.1).abs() < 1e-15);
        assert!(s.rate(99) < 1e-4 && s.rate(100).abs() < 1e-15);
    }

    #[test]
    fn warm_up_rises_linearly_to_the_peak() {
        let s = Schedule::cosine(1.0, 20, 4);
        assert_eq!([0, 1, 2, 3, 4].map(|t| s.rate(t)), [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(Schedule::constant(1.0, 20, 0).rate(19), 1.0);
    }
}
