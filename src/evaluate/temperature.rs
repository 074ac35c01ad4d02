//! One positive scalar that divides all logits (Guo et al., ICML 2017).

use super::Predictions;
use super::metrics::maximum;

/// A temperature and what it does on the images it was fitted on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// T, between 10⁻³ and 10³; logits are divided by it.
    pub temperature: f64,
    /// Mean cross-entropy at T, in nats; never above the one at T = 1.
    pub nll: f64,
    /// Whether the loss has no minimum inside the range, so that T is not a measured temperature:
    /// 10⁻³ where no image is wrong and colder is ever better, 10³ where logits are no better than
    /// guessing, 1 where no temperature makes a difference.
    pub at_bound: bool,
}

impl Fit {
    /// The temperature to score other images at: T, or 1 where T is at a bound and so was not
    /// measured (on images that are all right colder is ever better, and one wrong image elsewhere
    /// would then cost hundreds of nats).
    pub fn usable(&self) -> f64 {
        if self.at_bound { 1.0 } else { self.temperature }
    }
}

/// Range of β = 1/T.
const RANGE: [f64; 2] = [1e-3, 1e3];

/// Mean loss at β and its first two derivatives in β.
#[derive(Clone, Copy)]
struct Point {
    nll: f64,
    slope: f64,
    curvature: f64,
}

/// The temperature that minimises the mean cross-entropy.
///
/// The loss is convex in β = 1/T: with p = softmax(βz), l′ = E_p(z) − z_y and l″ = Var_p(z). The
/// root of l′ is found by Newton steps in log β, bisecting where a step leaves the bracket or fails
/// to halve the one before.
pub fn fit(predictions: &Predictions) -> Fit {
    let at = |log_beta: f64| evaluate(predictions, log_beta.exp());
    let start = at(0.0);
    let done = |log_beta: f64, nll: f64, at_bound| {
        // Rounding near a very flat minimum must not make matters worse than leaving T alone.
        if nll > start.nll {
            return Fit { temperature: 1.0, nll: start.nll, at_bound: false };
        }
        Fit { temperature: (-log_beta).exp(), nll, at_bound }
    };
    if start.slope == 0.0 {
        return done(0.0, start.nll, start.curvature == 0.0);
    }
    let [mut low, mut high] = RANGE.map(f64::ln);
    let end = if start.slope > 0.0 { low } else { high };
    let last = at(end);
    if last.slope == 0.0 || (last.slope > 0.0) == (start.slope > 0.0) {
        return done(end, last.nll, true);
    }
    let (mut x, mut point, mut step) = (0.0, start, high - low);
    for _ in 0..200 {
        if point.slope > 0.0 {
            high = x
        } else {
            low = x
        }
        let newton = x - point.slope / (x.exp() * point.curvature);
        let trusted = newton >= low && newton <= high && (newton - x).abs() < 0.5 * step;
        let next = if trusted { newton } else { 0.5 * (low + high) };
        step = (next - x).abs();
        (x, point) = (next, at(next));
        if step < 1e-12 || point.slope == 0.0 {
            break;
        }
    }
    done(x, point.nll, false)
}

fn evaluate(predictions: &Predictions, beta: f64) -> Point {
    let parts = predictions.map(|_, row, label| {
        let max = maximum(row);
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for d in row.iter().map(|z| z - max) {
            let e = (beta * d).exp();
            // e = 0 with d = −∞ would make 0 · ∞.
            if e > 0.0 {
                sum += e;
                first += e * d;
                second += e * d * d;
            }
        }
        let (mean, own) = (first / sum, row[label] - max);
        (sum.ln() - beta * own, mean - own, (second / sum - mean * mean).max(0.0))
    });
    let n = parts.len() as f64;
    let total = parts.iter().fold((0.0, 0.0, 0.0), |t, p| (t.0 + p.0, t.1 + p.1, t.2 + p.2));
    Point { nll: total.0 / n, slope: total.1 / n, curvature: total.2 / n }
}

#[cfg(test)]
mod tests {
    use super::super::{losses, mean_stderr};
    use super::*;

    #[test]
    fn derivatives_agree_with_differences() {
        let values = vec![2.0, -1.0, 0.5, 0.1, 3.0, -2.0];
        let p = Predictions::new(values, 3, &[2, 1]).unwrap();
        for beta in [0.1, 1.0, 2.5] {
            let (h, at) = (1e-5, evaluate(&p, beta));
            let (up, down) = (evaluate(&p, beta + h), evaluate(&p, beta - h));
            assert!(((up.nll - down.nll) / (2.0 * h) - at.slope).abs() < 1e-9);
            assert!(((up.slope - down.slope) / (2.0 * h) - at.curvature).abs() < 1e-8);
            assert!((at.nll - mean_stderr(&losses(&p, 1.0 / beta)).mean).abs() < 1e-14);
        }
    }

    #[test]
    fn two_logits_have_a_closed_form() {
        // Margin m, a share q right: σ(βm) = q, so T = m / log(q / (1 − q)).
        for m in [0.02, 1.0, 60.0, 2000.0] {
            let values = [m, 0.0].repeat(4);
            let fit = fit(&Predictions::new(values, 2, &[0, 0, 0, 1]).unwrap());
            let expected = m / 3f64.ln();
            let inside = expected < 1e3;
            assert_eq!(fit.at_bound, !inside);
            let expected = expected.min(1e3);
            assert!((fit.temperature / expected - 1.0).abs() < 1e-9, "{m}: {fit:?}");
        }
    }

    #[test]
    fn no_temperature_on_a_grid_does_better() {
        use rand_chacha::ChaCha8Rng;
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for scale in [1e-4, 0.1, 1.0, 30.0, 1e4, 1e7] {
            let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let labels: Vec<u32> = (0..40).map(|_| (5.0 * uniform()) as u32 % 5).collect();
            let mut values: Vec<f64> = (0..200).map(|_| scale * uniform()).collect();
            // Half of the images are right, so that the minimum is inside for middling scales.
            for i in (0..40).step_by(2) {
                values[5 * i + labels[i] as usize] = 1.5 * scale;
            }
            let p = Predictions::new(values, 5, &labels).unwrap();
            let (found, nll) = (fit(&p), |t: f64| mean_stderr(&losses(&p, t)).mean);
            let grid = (-300..=300).map(|i| 10f64.powf(f64::from(i) / 100.0));
            let best = grid.map(nll).fold(f64::INFINITY, f64::min);
            assert!(found.nll <= best + 1e-12 * best, "{scale}: {found:?} against {best}");
            assert!((found.nll / nll(found.temperature) - 1.0).abs() < 1e-12);
            assert_eq!(found.at_bound, !(0.1..1e4).contains(&scale), "{scale}: {found:?}");
        }
    }

    #[test]
    fn bounds_are_flagged() {
        let fit_of = |z: f64, labels: &[u32]| {
            fit(&Predictions::new([z, 0.0].repeat(labels.len()), 2, labels).unwrap())
        };
        let right = fit_of(1.0, &[0, 0]);
        assert!(right.at_bound && (right.temperature - 1e-3).abs() < 1e-15, "{right:?}");
        let wrong = fit_of(1.0, &[1, 1]);
        assert!(wrong.at_bound && (wrong.temperature - 1e3).abs() < 1e-9, "{wrong:?}");
        let flat = fit_of(0.0, &[0, 1]);
        assert!(flat.at_bound && flat.temperature == 1.0, "{flat:?}");
        let sure = fit_of(1e4, &[0, 0]);
        assert!(sure.at_bound && sure.nll == 0.0, "{sure:?}");
    }
}
