//! Correlation of two figures over several models.

use crate::random::{below, stream};
use serde::{Deserialize, Serialize};

/// Minimum number of pairs for an interval: resamples of fewer are mostly degenerate.
pub const FEWEST: usize = 5;

/// A correlation with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// From −1 to 1.
    pub value: f64,
    /// 95% bootstrap interval over pairs; `None` for fewer than [`FEWEST`] pairs.
    pub interval: Option<[f64; 2]>,
}

/// Pearson's r = Σ(x − x̄)(y − ȳ)/√(Σ(x − x̄)² Σ(y − ȳ)²); `None` if x or y does not vary, or for
/// fewer than two pairs.
pub fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    let (first, rest) = pairs.split_first()?;
    // Check the values themselves: their mean is rounded, so deviations from it may not be exactly
    // 0.
    let varies = |of: fn(&(f64, f64)) -> f64| rest.iter().any(|pair| of(pair) != of(first));
    if !varies(|p| p.0) || !varies(|p| p.1) {
        return None;
    }
    let n = pairs.len() as f64;
    let (sx, sy) = pairs.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - sx / n, y - sy / n);
        (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
    }
    let r = xy / (xx.sqrt() * yy.sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's ρ: Pearson's r of the ranks; equal values get their mean rank.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    let x = ranks(pairs.iter().map(|p| p.0));
    let y = ranks(pairs.iter().map(|p| p.1));
    pearson(&x.into_iter().zip(y).collect::<Vec<_>>())
}

fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same = |&&i: &&usize| values[i] == values[order[from]];
        let to = from + order[from..].iter().take_while(same).count().max(1);
        let mean = (from + to + 1) as f64 / 2.0;
        order[from..to].iter().for_each(|&i| ranks[i] = mean);
        from = to;
    }
    ranks
}

/// The correlation of these pairs, with the 2.5% and 97.5% points of `resamples` draws of as many
/// pairs with replacement (Efron and Tibshirani, "An introduction to the bootstrap", 1993). Draws
/// without a defined correlation are ignored.
pub fn correlation(
    of: fn(&[(f64, f64)]) -> Option<f64>,
    pairs: &[(f64, f64)],
    seed: u64,
    resamples: usize,
) -> Option<Correlation> {
    let value = of(pairs)?;
    if pairs.len() < FEWEST {
        return Some(Correlation { value, interval: None });
    }
    let mut rng = stream(seed, "correlation");
    let mut draw = || -> Vec<(f64, f64)> {
        (0..pairs.len()).map(|_| pairs[below(&mut rng, pairs.len() as u64) as usize]).collect()
    };
    let mut found: Vec<f64> = (0..resamples).filter_map(|_| of(&draw())).collect();
    found.sort_by(f64::total_cmp);
    let at =
        |share: f64| found.get((share * found.len().saturating_sub(1) as f64).round() as usize);
    let interval = at(0.025).copied().zip(at(0.975).copied());
    Some(Correlation { value, interval: interval.map(|(low, high)| [low, high]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::unit;

    #[test]
    fn values_match_scipy() {
        // From SciPy 1.17.1, pearsonr and spearmanr. Both variables have ties.
        let x = [1.0, 2.0, 2.0, 4.5, 7.0, 7.0, 9.0];
        let y = [0.3, 0.1, 0.5, 0.5, 0.2, 0.9, 1.4];
        let pairs: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        let (r, rho) = (pearson(&pairs).unwrap(), spearman(&pairs).unwrap());
        assert!((r - 0.7054912144462049).abs() < 1e-14, "{r}");
        assert!((rho - 0.5780059766913394).abs() < 1e-14, "{rho}");
    }

    #[test]
    fn constants_have_no_correlation_and_lines_have_one() {
        let of = |f: fn(f64) -> f64| (0..9).map(|i| (i as f64, f(i as f64))).collect::<Vec<_>>();
        assert_eq!(
            (pearson(&[]), pearson(&[(1.0, 2.0)]), pearson(&of(|_| 3.0))),
            (None, None, None)
        );
        assert!((pearson(&of(|x| 2.0 - x)).unwrap() + 1.0).abs() < 1e-15);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-14;
        assert!(near(spearman(&of(|x| x.powi(5))).unwrap(), 1.0));
        assert_eq!(correlation(pearson, &of(|x| x)[..4], 0, 100).unwrap().interval, None);
        // A monotonic relation has rank correlation 1 in every resample.
        let line = correlation(spearman, &of(f64::exp), 0, 100).unwrap();
        assert!(near(line.value, 1.0) && line.interval.unwrap().iter().all(|&end| near(end, 1.0)));
        // The mean of several 0.05 is rounded; the variance must still be 0.
        assert_eq!(pearson(&of(|_| 0.05)), None);
    }

    #[test]
    fn intervals_have_approximately_nominal_coverage() {
        // x normal, y = x/2 + √¾ e, so the true r is ½. Over samples of 40 pairs, a percentile
        // interval covers slightly less than 95%. At least 88% must cover, but not all.
        let mut rng = stream(5, "correlation test");
        let mut normal = || {
            let (u, v) = (1.0 - unit(&mut rng), unit(&mut rng));
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        let mut covered = 0;
        for seed in 0..200 {
            let pairs: Vec<(f64, f64)> = (0..40)
                .map(|_| {
                    let x = normal();
                    (x, 0.5 * x + 0.75f64.sqrt() * normal())
                })
                .collect();
            let found = correlation(pearson, &pairs, seed, 400).unwrap();
            let [low, high] = found.interval.unwrap();
            assert!(low <= found.value && found.value <= high);
            covered += usize::from(low <= 0.5 && 0.5 <= high);
        }
        println!("95% intervals contain the true correlation in {covered} of 200 samples");
        assert!((176..200).contains(&covered), "{covered}");
    }
}
