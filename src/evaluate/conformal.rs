//! Conformal prediction sets: sets of classes that contain the label with a chosen probability.
//!
//! A score s(x, y) is small where the model finds y likely. Its ⌈(n + 1)(1 − α)⌉-th smallest value
//! on n held-out images is the threshold q. The set of an image holds every class with s ≤ q. If
//! held-out and new images are exchangeable, it contains the label with probability at least 1 − α,
//! over both draws (Vovk et al., "Algorithmic learning in a random world", 2005).
//!
//! With p the probabilities, r(y) the rank of y from 1, and u uniform in [0, 1) for each image:
//!
//! - LAC: s = 1 − p_y (Sadinle, Lei and Wasserman, JASA 2019): the smallest sets on average;
//! - APS: s = Σ over classes ranked before y of p, + u p_y (Romano, Sesia and Candès, NeurIPS 2020):
//!   coverage varies less with an image's difficulty;
//! - RAPS: s = APS + λ max(0, r(y) − k), with λ = 0.01 and k = 5 (Angelopoulos et al., ICLR 2021):
//!   APS with shorter tails.

use super::{Estimate, mean_stderr};
use crate::predictions::Predictions;
use crate::random::{stream, unit};
use serde::{Deserialize, Serialize};

/// λ of RAPS.
const PENALTY: f64 = 0.01;
/// k of RAPS: the largest rank without a penalty.
const FREE_RANK: usize = 5;
/// Classes with fewer test images have no coverage of their own.
const FEWEST_OF_CLASS: usize = 10;

/// A score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// Least ambiguous sets.
    Lac,
    /// Adaptive prediction sets.
    Aps,
    /// Regularised adaptive prediction sets.
    Raps,
}

impl Score {
    /// All scores.
    pub const ALL: [Score; 3] = [Score::Lac, Score::Aps, Score::Raps];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Score::Lac => "LAC",
            Score::Aps => "APS",
            Score::Raps => "RAPS",
        }
    }
}

/// Prediction sets of one score on test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sets {
    /// The score.
    pub score: Score,
    /// q. `None` if there are too few held-out images: every set then holds all classes.
    pub threshold: Option<f64>,
    /// Held-out images behind q.
    pub held_out: usize,
    /// Share of test images whose set contains their label.
    pub coverage: Estimate,
    /// Mean number of classes in a set.
    pub size: Estimate,
    /// Share of empty sets.
    pub empty: f64,
    /// The class of lowest coverage, among those with at least ten test images, and its coverage.
    pub worst_class: Option<(u32, f64)>,
}

/// q of a score on held-out images; `None` if ⌈(n + 1)(1 − α)⌉ > n.
pub fn threshold(held_out: &Predictions, score: Score, alpha: f64, seed: u64) -> Option<f64> {
    let u = draws(seed, "conformal, held out", held_out.images());
    let scores = held_out.map(|image, row, label| scores(row, score, u[image])[label]);
    let n = scores.len();
    // The product is exact to rounding; without the tolerance, 0.9 · 10 could round up to 10.
    let rank = ((n + 1) as f64 * (1.0 - alpha) - 1e-9).ceil() as usize;
    let mut sorted = scores;
    sorted.sort_by(f64::total_cmp);
    sorted.get(rank.max(1) - 1).copied()
}

/// The sets of test images, with a threshold from held-out images.
pub fn sets(
    test: &Predictions,
    held_out: &Predictions,
    score: Score,
    alpha: f64,
    seed: u64,
) -> Sets {
    let q = threshold(held_out, score, alpha, seed);
    let u = draws(seed, "conformal, test", test.images());
    let found = test.map(|image, row, label| match q {
        None => (1.0, row.len() as f64),
        Some(q) => {
            let inside: Vec<bool> =
                scores(row, score, u[image]).into_iter().map(|s| s <= q).collect();
            let size = inside.iter().filter(|inside| **inside).count();
            (if inside[label] { 1.0 } else { 0.0 }, size as f64)
        }
    });
    let covered: Vec<f64> = found.iter().map(|x| x.0).collect();
    let sizes: Vec<f64> = found.iter().map(|x| x.1).collect();
    Sets {
        score,
        threshold: q,
        held_out: held_out.images(),
        coverage: mean_stderr(&covered),
        size: mean_stderr(&sizes),
        empty: sizes.iter().filter(|size| **size == 0.0).count() as f64 / sizes.len() as f64,
        worst_class: worst_class(test, &covered),
    }
}

fn worst_class(test: &Predictions, covered: &[f64]) -> Option<(u32, f64)> {
    let mut sums = vec![(0usize, 0.0); test.classes()];
    for (&label, covered) in test.labels().iter().zip(covered) {
        let sum = &mut sums[label as usize];
        *sum = (sum.0 + 1, sum.1 + covered);
    }
    let of_class = |(class, (n, sum)): (usize, (usize, f64))| (class as u32, sum / n as f64);
    let enough = sums.into_iter().enumerate().filter(|(_, (n, _))| *n >= FEWEST_OF_CLASS);
    enough.map(of_class).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Scores of all classes of one image.
fn scores(row: &[f64], score: Score, u: f64) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|z| (z - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    if score == Score::Lac {
        return powers.iter().map(|p| 1.0 - p / sum).collect();
    }
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let (mut out, mut before) = (vec![0.0; row.len()], 0.0);
    for (i, class) in order.into_iter().enumerate() {
        let p = powers[class] / sum;
        let beyond = (i + 1).saturating_sub(FREE_RANK) as f64;
        let penalty = if score == Score::Raps { PENALTY * beyond } else { 0.0 };
        out[class] = before + u * p + penalty;
        before += p;
    }
    out
}

fn draws(seed: u64, name: &str, n: usize) -> Vec<f64> {
    let mut rng = stream(seed, name);
    (0..n).map(|_| unit(&mut rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of probabilities.
    fn predictions(rows: &[&[f64]], labels: &[u32]) -> Predictions {
        let values = rows.iter().flat_map(|row| row.iter().map(|p| p.ln())).collect();
        Predictions::new(values, rows[0].len(), labels).unwrap()
    }

    #[test]
    fn scores_follow_their_definitions() {
        let row: Vec<f64> = [0.2, 0.5, 0.3].iter().map(|p: &f64| p.ln()).collect();
        let close = |found: Vec<f64>, expected: [f64; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        };
        close(scores(&row, Score::Lac, 0.5), [0.8, 0.5, 0.7]);
        // Ranks 3, 1, 2: sums before are 0.8, 0, 0.5.
        close(scores(&row, Score::Aps, 0.5), [0.9, 0.25, 0.65]);
        close(scores(&row, Score::Raps, 0.5), [0.9, 0.25, 0.65]);
        let uniform = vec![0.0; 8];
        // The eighth class has rank 8, 3 above 5.
        let last = scores(&uniform, Score::Raps, 0.0)[7];
        assert!((last - (7.0 / 8.0 + 0.03)).abs() < 1e-12, "{last}");
    }

    #[test]
    fn the_threshold_is_the_stated_order_statistic() {
        // Nine images with scores 0.1 … 0.9 of LAC: ⌈10 · 0.8⌉ = 8.
        let rows: Vec<[f64; 2]> =
            (1..10).map(|i| [1.0 - i as f64 / 10.0, i as f64 / 10.0]).collect();
        let rows: Vec<&[f64]> = rows.iter().map(|row| row.as_slice()).collect();
        let p = predictions(&rows, &[0; 9]);
        for (alpha, expected) in [(0.2, 0.8), (0.5, 0.5), (0.1, 0.9)] {
            let q = threshold(&p, Score::Lac, alpha, 0).unwrap();
            assert!((q - expected).abs() < 1e-12, "{alpha}: {q}");
        }
        // ⌈10 · 0.95⌉ = 10 of 9 images.
        assert_eq!(threshold(&p, Score::Lac, 0.05, 0), None);
        let all = sets(&p, &p, Score::Lac, 0.05, 0);
        assert_eq!((all.coverage.mean, all.size.mean, all.threshold), (1.0, 2.0, None));
    }

    /// Images with labels drawn from the model's own probabilities, or from flatter ones.
    fn simulated(rng: &mut rand_chacha::ChaCha8Rng, n: usize, sharper: f64) -> Predictions {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let z: Vec<f64> = (0..6).map(|_| 3.0 * (unit(rng) + unit(rng) - 1.0)).collect();
            let p: Vec<f64> = z.iter().map(|z| z.exp()).collect();
            let mut left = unit(rng) * p.iter().sum::<f64>();
            let label = p.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            labels.push(label.unwrap_or(5) as u32);
            values.extend(z.iter().map(|z| sharper * z));
        }
        Predictions::new(values, 6, &labels).unwrap()
    }

    #[test]
    fn sets_cover_as_claimed_on_simulated_splits() {
        // Whether or not the model is calibrated, mean coverage lies in [1 − α, 1 − α + 1/(n + 1)].
        let (alpha, n, m, splits) = (0.1, 99, 60, 300);
        for sharper in [1.0, 4.0] {
            for score in Score::ALL {
                let found: Vec<f64> = (0..splits)
                    .map(|seed| {
                        let mut rng = stream(seed, "simulated splits");
                        let held_out = simulated(&mut rng, n, sharper);
                        let test = simulated(&mut rng, m, sharper);
                        sets(&test, &held_out, score, alpha, seed).coverage.mean
                    })
                    .collect();
                let Estimate { mean, stderr } = mean_stderr(&found);
                let slack = 3.5 * stderr.unwrap();
                let most = 1.0 - alpha + 1.0 / (n + 1) as f64;
                assert!(
                    mean > 1.0 - alpha - slack && mean < most + slack,
                    "{score:?}, {sharper}: {mean} ± {stderr:?}"
                );
            }
        }
    }

    #[test]
    fn the_worst_class_needs_ten_images() {
        let rows: Vec<&[f64]> = vec![&[0.9, 0.1]; 19];
        // Class 1 has 9 images, class 0 has 10.
        let labels: Vec<u32> = [vec![0; 10], vec![1; 9]].concat();
        let p = predictions(&rows, &labels);
        let covered: Vec<f64> = (0..19).map(|i| if i < 8 { 1.0 } else { 0.0 }).collect();
        assert_eq!(worst_class(&p, &covered), Some((0, 0.8)));
    }
}
