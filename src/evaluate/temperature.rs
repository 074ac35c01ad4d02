//! One positive scalar that divides all logits (Guo et al., ICML 2017).

use super::metrics::maximum;
use crate::predictions::Predictions;
use serde::{Deserialize, Serialize};

/// A temperature and its loss on the images that it was fitted on.
///
/// All figures, saved logits and reports use [`Fit::temperature`]. If the loss has no minimum in T,
/// [`Fit::bound`] gives the reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// T > 0; logits are divided by it.
    pub temperature: f64,
    /// Mean cross-entropy at T, in nats; never above the one at T = 1.
    pub nll: f64,
    /// Why T is not a minimum of the loss; `None` if it is one.
    pub bound: Option<Bound>,
}

/// Why no temperature minimises the loss, and which one is used instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No T makes the logits better than guessing: the loss falls as T grows, towards log C. T is the
    /// upper end of the range, where no two logits of an image differ by more than 0.01.
    Guessing,
    /// No image is wrong: the loss falls as T goes to 0. T is 1, because a temperature near 0 would
    /// make one wrong image elsewhere cost hundreds of nats.
    AllRight,
    /// Every image has equal logits, so T changes nothing. T is 1.
    Flat,
    /// There are no other images to fit on. T is 1.
    Unfitted,
}

impl Bound {
    /// A note about the temperature.
    pub fn note(self) -> &'static str {
        match self {
            Bound::Guessing => {
                "no temperature makes the logits better than guessing: the loss falls as T grows, so the \
                 highest temperature of the range is used"
            }
            Bound::AllRight => {
                "no image is wrong, so the loss keeps falling for lower temperatures and none can be \
                 fitted; T = 1 is used"
            }
            Bound::Flat => {
                "all logits of each image are equal, so the temperature has no effect; T = 1 is used"
            }
            Bound::Unfitted => "there is no other image to fit a temperature on; T = 1 is used",
        }
    }
}

/// Range of T for logits of ordinary size.
const RANGE: [f64; 2] = [1e-3, 1e3];

/// Range of T for logits whose largest difference within an image is `spread`: at its upper end no
/// two logits of an image differ by more than 0.01, at its lower end some differ by at least 1000.
fn range(spread: f64) -> [f64; 2] {
    let [low, high] = RANGE;
    [low * spread.min(1.0), high.max(100.0 * spread)]
}

/// Mean loss at β = 1/T and its first two derivatives in β.
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
    let one = |bound| Fit { temperature: 1.0, nll: start.nll, bound };
    let spread = spread(predictions);
    if spread == 0.0 {
        return one(Some(Bound::Flat));
    }
    if start.slope == 0.0 {
        // Where every label's probability rounds to 1, slope and curvature are both 0.
        return one((start.curvature == 0.0).then_some(Bound::AllRight));
    }
    let [coldest, hottest] = range(spread);
    let (mut low, mut high) = (-hottest.ln(), -coldest.ln());
    let last = at(if start.slope > 0.0 { low } else { high });
    if last.slope == 0.0 || (last.slope > 0.0) == (start.slope > 0.0) {
        return match start.slope > 0.0 {
            true => Fit { temperature: hottest, nll: last.nll, bound: Some(Bound::Guessing) },
            false => one(Some(Bound::AllRight)),
        };
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
    // Rounding near a very flat minimum must not give a higher loss than T = 1.
    if point.nll > start.nll {
        return one(None);
    }
    Fit { temperature: (-x).exp(), nll: point.nll, bound: None }
}

/// Largest difference between two logits of one image.
fn spread(predictions: &Predictions) -> f64 {
    let of_each = predictions.map(|_, row, _| {
        let least = row.iter().copied().fold(f64::INFINITY, f64::min);
        maximum(row) - least
    });
    of_each.into_iter().fold(0.0, f64::max)
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
        // Margin m, with a fraction q correct: σ(βm) = q, so T = m / log(q / (1 − q)).
        for m in [1e-6, 0.02, 1.0, 60.0, 2000.0, 1e8] {
            let values = [m, 0.0].repeat(4);
            let fit = fit(&Predictions::new(values, 2, &[0, 0, 0, 1]).unwrap());
            assert_eq!(fit.bound, None, "{m}: {fit:?}");
            assert!((fit.temperature * 3f64.ln() / m - 1.0).abs() < 1e-9, "{m}: {fit:?}");
        }
    }

    #[test]
    fn no_temperature_on_a_grid_is_better() {
        use rand_chacha::ChaCha8Rng;
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for scale in [1e-4, 0.1, 1.0, 30.0, 1e4, 1e7] {
            let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let labels: Vec<u32> = (0..40).map(|_| (5.0 * uniform()) as u32 % 5).collect();
            let mut values: Vec<f64> = (0..200).map(|_| scale * uniform()).collect();
            // Half of the images are classified correctly, so that there is a minimum.
            for i in (0..40).step_by(2) {
                values[5 * i + labels[i] as usize] = 1.5 * scale;
            }
            let p = Predictions::new(values, 5, &labels).unwrap();
            let (found, nll) = (fit(&p), |t: f64| mean_stderr(&losses(&p, t)).mean);
            let grid = (-300..=300).map(|i| scale * 10f64.powf(f64::from(i) / 100.0));
            let best = grid.map(nll).fold(f64::INFINITY, f64::min);
            assert!(found.nll <= best + 1e-12 * best, "{scale}: {found:?} against {best}");
            assert!((found.nll / nll(found.temperature) - 1.0).abs() < 1e-12);
            assert_eq!(found.bound, None, "{scale}: {found:?}");
        }
    }

    /// Fits, and checks that the reported loss is that of the images at the fitted temperature.
    fn checked_fit(values: Vec<f64>, classes: usize, labels: &[u32]) -> Fit {
        let p = Predictions::new(values, classes, labels).unwrap();
        let fit = fit(&p);
        let [fitted_nll, plain] = [fit.temperature, 1.0].map(|t| mean_stderr(&losses(&p, t)).mean);
        assert!((fit.nll - fitted_nll).abs() <= 1e-12 * fitted_nll, "{fit:?}: {fitted_nll}");
        assert!(fit.nll <= plain, "{fit:?}: {plain} at T = 1");
        fit
    }

    #[test]
    fn the_loss_of_a_guessing_model_approaches_log_c() {
        let ten_of_each: Vec<u32> = (0..40).map(|i| i % 4).collect();
        // Exactly 1/4 is correct, so the loss decreases for every T.
        for z in [[4.0, 0.0, 0.0, 0.0], [200.0, 0.0, -200.0, 0.0], [1e6, 0.0, 0.0, 3e5]] {
            let fit = checked_fit(z.repeat(40), 4, &ten_of_each);
            assert_eq!(fit.bound, Some(Bound::Guessing));
            assert!((fit.nll - 4f64.ln()).abs() < 1e-4, "{fit:?}");
        }
        let ordinary = checked_fit([4.0, 0.0, 0.0, 0.0].repeat(40), 4, &ten_of_each);
        assert_eq!(ordinary.temperature, 1e3);
        // Worse than guessing: the loss at T is log 2 + 1/(2T) to first order.
        let wrong = checked_fit([1.0, 0.0].repeat(2), 2, &[1, 1]);
        assert_eq!(wrong.bound, Some(Bound::Guessing));
        assert!((wrong.nll - 2f64.ln() - 0.5 / wrong.temperature).abs() < 1e-6, "{wrong:?}");
    }

    #[test]
    fn one_more_correct_image_changes_little() {
        // 25 or 26 images of class 0 and 75 of the others, all with the logits (4, 0, 0, 0). With k
        // of n correct, the minimum is at 4 / log(3k / (n − k)), with the entropy of (k/n, …).
        let labels = |k: usize| [vec![0; k], [1, 2, 3].repeat(25)].concat();
        let guessing = checked_fit([4.0, 0.0, 0.0, 0.0].repeat(100), 4, &labels(25));
        let better = checked_fit([4.0, 0.0, 0.0, 0.0].repeat(101), 4, &labels(26));
        assert_eq!((guessing.bound, better.bound), (Some(Bound::Guessing), None));
        assert!(
            (better.temperature / (4.0 / (78f64 / 75.0).ln()) - 1.0).abs() < 1e-6,
            "{better:?}"
        );
        let q = 26.0 / 101.0;
        let entropy = -q * f64::ln(q) - (1.0 - q) * f64::ln((1.0 - q) / 3.0);
        assert!((better.nll - entropy).abs() < 1e-9, "{better:?}");
        assert!((better.nll - guessing.nll).abs() < 1e-3);
    }

    #[test]
    fn the_temperature_is_one_if_it_cannot_be_fitted() {
        for (values, labels, bound) in [
            ([1.0, 0.0].repeat(2), [0, 0], Bound::AllRight),
            ([1e-5, 0.0].repeat(2), [0, 0], Bound::AllRight),
            ([1e4, 0.0].repeat(2), [0, 0], Bound::AllRight),
            ([3.0, 3.0].repeat(2), [0, 1], Bound::Flat),
        ] {
            let fit = checked_fit(values, 2, &labels);
            assert_eq!((fit.temperature, fit.bound), (1.0, Some(bound)));
        }
    }
}
