//! The bandit of SL-SAM: learns from gradient norms how often to draw each arm.
//!
//! Arm i is drawn with probability pᵢ, independently of the others. The expected number of drawn arms is
//! s n: Σ pᵢ = s n, pᵢ ≤ 1, and pᵢ = s at the start. A drawn arm with gradient norm aᵢ has the reward
//! rᵢ = (aᵢ/pᵢ)², which weights arms that are rarely drawn more. The update is that of EXP3 with the loss
//! lᵢ = max r − rᵢ: wᵢ = pᵢ exp(−η lᵢ/pᵢ) for drawn arms, wᵢ = pᵢ for the others. The next pᵢ are
//! proportional to wᵢ, but at most 1: the largest are set to 1 until the rest, scaled to the remaining sum,
//! are below 1.

/// η, as in the authors' code.
const RATE: f64 = 0.001;
/// Smallest probability, as in the authors' code.
const LEAST: f64 = 1e-8;
/// Smallest sum of weights that probabilities are scaled from, as in the authors' code.
const LEAST_SUM: f64 = 1e-5;

/// Probabilities of arms.
#[derive(Clone, Debug)]
pub struct Bandit {
    share: f64,
    probabilities: Vec<f64>,
}

impl Bandit {
    /// A bandit with `arms` arms, of which a share s, above 0 and at most 1, is drawn on average.
    pub fn new(arms: usize, share: f64) -> Self {
        Self { share, probabilities: vec![share; arms] }
    }

    /// pᵢ.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// The drawn arms, ascending. If none is drawn, all are drawn again. `uniform` gives numbers in [0, 1),
    /// one for each arm.
    pub fn draw(&self, uniform: &mut dyn FnMut() -> f64) -> Vec<usize> {
        loop {
            let all = self.probabilities.iter().enumerate();
            let drawn: Vec<usize> = all.filter(|(_, p)| uniform() < **p).map(|(i, _)| i).collect();
            if !drawn.is_empty() || self.probabilities.is_empty() {
                return drawn;
            }
        }
    }

    /// Learns from the gradient norms of the drawn arms.
    pub fn learn(&mut self, drawn: &[usize], norms: &[f64]) {
        let reward = |(&i, &a): (&usize, &f64)| (a / self.probabilities[i]).powi(2);
        let rewards: Vec<f64> = drawn.iter().zip(norms).map(reward).collect();
        let most = rewards.iter().copied().fold(0.0, f64::max);
        let mut weights = self.probabilities.clone();
        for (&i, reward) in drawn.iter().zip(rewards) {
            weights[i] *= libm::exp(-RATE * (most - reward) / self.probabilities[i]);
        }
        self.probabilities = capped(&weights, self.share * weights.len() as f64);
    }
}

/// Numbers in (0, 1] with this sum, proportional to the weights as far as they are below 1.
fn capped(weights: &[f64], sum: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let (mut out, mut left) = (vec![1.0; weights.len()], sum);
    for (place, &i) in order.iter().enumerate() {
        let rest: f64 = order[place..].iter().map(|&i| weights[i]).sum();
        let rest = rest.max(LEAST_SUM);
        if weights[i] * left <= rest {
            for &i in &order[place..] {
                out[i] = (weights[i] * left / rest).clamp(LEAST, 1.0);
            }
            break;
        }
        left -= 1.0;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{stream, unit};

    fn near(found: &[f64], expected: &[f64]) {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(found.len() == expected.len() && close, "{found:?} {expected:?}");
    }

    #[test]
    fn probabilities_have_the_sum_and_at_most_1() {
        // Half of four arms: 1, 1, 1, 1 → 1/2 each; 5, 1, 1, 1 → 10/8 > 1, so 1 and a third of 1 each.
        near(&capped(&[1.0; 4], 2.0), &[0.5; 4]);
        near(&capped(&[1.0, 5.0, 1.0, 1.0], 2.0), &[1.0 / 3.0, 1.0, 1.0 / 3.0, 1.0 / 3.0]);
        near(&capped(&[0.2, 0.3], 2.0), &[1.0, 1.0]);
        near(&capped(&[0.0, 1.0, 1.0], 1.0), &[LEAST, 0.5, 0.5]);
    }

    /// By hand: p = 1/2, norms 30 and 10 of arms 0 and 2, so rewards 3600 and 400, losses 0 and 3200,
    /// weights 1/2 and exp(−6.4)/2.
    #[test]
    fn an_update_is_that_of_exp3() {
        let mut bandit = Bandit::new(4, 0.5);
        bandit.learn(&[0, 2], &[30.0, 10.0]);
        let low = 0.5 * (-6.4f64).exp();
        let scale = 2.0 / (1.5 + low);
        let expected = [0.5 * scale, 0.5 * scale, low * scale, 0.5 * scale];
        near(bandit.probabilities(), &expected);
        let sum: f64 = bandit.probabilities().iter().sum();
        assert!((sum - 2.0).abs() < 1e-12);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut rng = stream(0, "draws");
        let bandit = Bandit { share: 0.5, probabilities: vec![1.0, 0.3, 0.2] };
        let mut counts = [0usize; 3];
        for _ in 0..4000 {
            for i in bandit.draw(&mut || unit(&mut rng)) {
                counts[i] += 1;
            }
        }
        // Five standard deviations of a binomial(4000, 0.3) are 145.
        let near = |n: usize, expected: usize| n.abs_diff(expected) < 145;
        assert!(counts[0] == 4000 && near(counts[1], 1200) && near(counts[2], 800), "{counts:?}");
        // At least one is drawn.
        let rare = Bandit::new(2, 0.01);
        assert!((0..50).all(|_| !rare.draw(&mut || unit(&mut rng)).is_empty()));
    }

    /// An arm with a large gradient is drawn more and more often.
    #[test]
    fn the_arm_with_the_largest_gradient_wins() {
        let mut rng = stream(1, "draws");
        let mut bandit = Bandit::new(10, 0.2);
        for _ in 0..300 {
            let drawn = bandit.draw(&mut || unit(&mut rng));
            let norms: Vec<f64> = drawn.iter().map(|&i| if i == 3 { 3.0 } else { 1.0 }).collect();
            bandit.learn(&drawn, &norms);
        }
        let p = bandit.probabilities();
        assert!(p[3] > 0.5 && p.iter().enumerate().all(|(i, q)| i == 3 || *q < p[3]), "{p:?}");
    }
}
