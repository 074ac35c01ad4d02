//! Selective prediction: how well confidence ranks correct images before errors.

use super::{Estimate, Scores, jackknife};

/// Area under the risk-coverage curve, AURC: the mean over k = 1 … N of the error rate among the k
/// most confident images. It is 0 without errors, the error rate if confidence is uninformative,
/// and 1 if all answers are wrong. Lower is better. Geifman and El-Yaniv, NeurIPS 2017; the sum as
/// in Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation", ICLR 2019.
///
/// Equal confidences count with their mean error, which is the expectation over their orders. The
/// standard error is the jackknife's.
pub fn aurc(scores: &Scores) -> Estimate {
    let n = scores.confidence.len();
    let blocks = blocks(scores);
    // An error at rank j is counted in the means over k = j … N, each 1/k:
    // AURC = (1/N) Σⱼ eⱼ (h(N) − h(j − 1)), h(m) = Σ 1/k for k ≤ m.
    let mut h = vec![0.0; n + 1];
    let mut sums = vec![0.0; n + 1];
    for k in 1..=n {
        h[k] = h[k - 1] + (k as f64).recip();
        sums[k] = sums[k - 1] + h[k - 1];
    }
    // Σ over ranks from + 1 ..= to of h(last) − h(j − 1).
    let weight = |from: usize, to: usize, last: usize| {
        (to - from) as f64 * h[last] - (sums[to] - sums[from])
    };
    let own = |b: &Block, last: usize| b.rate() * weight(b.from, b.to, last);
    let total: f64 = blocks.iter().map(|b| own(b, n)).sum();
    let estimate = |stderr| Estimate { mean: total / n as f64, stderr };
    if n < 2 {
        return estimate(None);
    }
    // Without one image, blocks above it keep their ranks and those below move up by one.
    let above: Vec<f64> = running(blocks.iter().map(|b| own(b, n - 1)));
    let moved = |b: &Block| match b.from {
        0 => 0.0,
        from => b.rate() * weight(from - 1, b.to - 1, n - 1),
    };
    let below: Vec<f64> = running(blocks.iter().map(moved));
    let all_below = below.last().copied().unwrap_or(0.0);
    let without: Vec<f64> = blocks
        .iter()
        .enumerate()
        .flat_map(|(i, b)| {
            let others = above[i] + all_below - below[i + 1];
            let left = |error: f64| match b.to - b.from - 1 {
                0 => 0.0,
                m => (b.errors - error) / m as f64 * weight(b.from, b.to - 1, n - 1),
            };
            let value = |error: f64| (others + left(error)) / (n - 1) as f64;
            let (wrong, images) = (b.errors as usize, b.to - b.from);
            let wrong_ones = std::iter::repeat_n(value(1.0), wrong);
            wrong_ones.chain(std::iter::repeat_n(value(0.0), images - wrong))
        })
        .collect();
    estimate(jackknife::stderr(&without))
}

/// Images of one confidence: ranks `from` + 1 to `to`, the most confident first.
struct Block {
    from: usize,
    to: usize,
    errors: f64,
}

impl Block {
    fn rate(&self) -> f64 {
        self.errors / (self.to - self.from) as f64
    }
}

fn blocks(scores: &Scores) -> Vec<Block> {
    let p = &scores.confidence;
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut from = 0;
    let tied = order.chunk_by(|&a, &b| p[a] == p[b]);
    tied.map(|images| {
        let errors = images.iter().map(|&i| 1.0 - scores.top1[i]).sum();
        let block = Block { from, to: from + images.len(), errors };
        from = block.to;
        block
    })
    .collect()
}

/// Sums of none, one, two, … of the values.
fn running(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sums = vec![0.0];
    for (i, value) in values.enumerate() {
        sums.push(sums[i] + value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(outcomes: &[(f64, bool)]) -> Scores {
        let correct = |&(_, correct): &(f64, bool)| if correct { 1.0 } else { 0.0 };
        let top1: Vec<f64> = outcomes.iter().map(correct).collect();
        let confidence = outcomes.iter().map(|o| o.0).collect();
        let none = Vec::new;
        Scores { nll: none(), top5: none(), brier: none(), entropy: none(), confidence, top1 }
    }

    /// The definition, averaged over all orders of ties.
    fn naive(outcomes: &[(f64, bool)]) -> f64 {
        let mut sorted = outcomes.to_vec();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let n = sorted.len();
        let mean_error = |i: usize| {
            let tied: Vec<_> = sorted.iter().filter(|o| o.0 == sorted[i].0).collect();
            tied.iter().filter(|o| !o.1).count() as f64 / tied.len() as f64
        };
        let risk = |k: usize| (0..k).map(mean_error).sum::<f64>() / k as f64;
        (1..=n).map(risk).sum::<f64>() / n as f64
    }

    #[test]
    fn aurc_and_its_jackknife_match_the_definition() {
        let outcomes = [
            (0.9, true),
            (0.3, false),
            (0.8, true),
            (0.8, false),
            (0.6, true),
            (0.8, true),
            (0.3, false),
        ];
        let found = aurc(&scores(&outcomes));
        assert!((found.mean - naive(&outcomes)).abs() < 1e-15);
        let without = |i: usize| {
            let mut rest = outcomes.to_vec();
            rest.remove(i);
            naive(&rest)
        };
        let expected = jackknife::stderr(&(0..7).map(without).collect::<Vec<_>>());
        assert!((found.stderr.unwrap() - expected.unwrap()).abs() < 1e-14);
    }

    #[test]
    fn best_and_worst_scores() {
        let of = |outcomes: &[(f64, bool)]| aurc(&scores(outcomes));
        assert_eq!(of(&[(0.5, true)]), Estimate { mean: 0.0, stderr: None });
        assert_eq!(of(&[(0.5, false)]), Estimate { mean: 1.0, stderr: None });
        assert_eq!(of(&[(0.5, true), (0.7, true)]), Estimate { mean: 0.0, stderr: Some(0.0) });
        let wrong = of(&[(0.5, false), (0.7, false), (0.7, false)]);
        assert!((wrong.mean - 1.0).abs() < 1e-15 && wrong.stderr.unwrap() < 1e-15);
        // The least confident of four is wrong: a quarter of the last mean.
        let last = of(&[(0.9, true), (0.8, true), (0.7, true), (0.6, false)]);
        assert!((last.mean - 1.0 / 16.0).abs() < 1e-15);
    }
}
