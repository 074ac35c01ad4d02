//! Gains of one move, in-sample and cross-fitted, from the logits along α.

use super::findings::{MoveGains, MovePoint, OnV};
use crate::data::folds::stratified_halves;
use crate::evaluate::{Estimate, Fit, fit, hits, losses, mean_stderr, rounding};
use crate::objective::Result;
use crate::predictions::Predictions;

/// Ways to halve V.
const HALVINGS: u64 = 5;

/// Logits of V at one α.
pub(super) type AtAlpha = (f64, Predictions);

/// The model as it is, on V and on its halves.
pub(super) struct Start {
    pub predictions: Predictions,
    pub figures: OnV,
    halvings: Vec<Halving>,
    /// On all of V: losses, losses at the fitted temperature, and hits.
    whole: Losses,
}

/// One way to halve V.
struct Halving {
    halves: [Vec<usize>; 2],
    /// The model as it is on each half, at the temperature fitted on the other.
    start: [Losses; 2],
    /// The smallest NLL of each half over temperatures, and that temperature.
    fits: [Fit; 2],
}

/// Per image.
struct Losses {
    nll: Vec<f64>,
    calibrated: Vec<f64>,
    hits: Vec<f64>,
}

impl Losses {
    fn at(predictions: &Predictions, temperature: f64) -> Self {
        Self {
            nll: losses(predictions, 1.0),
            calibrated: losses(predictions, temperature),
            hits: hits(predictions, 1),
        }
    }
}

impl OnV {
    /// Figures of a model by its logits on V.
    pub fn of(predictions: &Predictions) -> Self {
        let fitted = fit(predictions);
        Self {
            nll: mean_stderr(&losses(predictions, 1.0)).mean,
            calibrated_nll: fitted.nll,
            temperature: fitted.temperature,
            top1: mean_stderr(&hits(predictions, 1)).mean,
        }
    }
}

impl Start {
    /// # Errors
    /// [`crate::objective::Error::NoExamples`] if V cannot be halved.
    pub fn new(predictions: Predictions, seed: u64) -> Result<Self> {
        let halving = |k: u64| -> Result<Halving> {
            let (first, second) = stratified_halves(predictions.labels(), seed.wrapping_add(k));
            if first.is_empty() || second.is_empty() {
                return Err(crate::objective::Error::NoExamples);
            }
            let own = [predictions.subset(&first)?, predictions.subset(&second)?];
            let fits = own.each_ref().map(fit);
            let start = [0, 1].map(|h| Losses::at(&own[h], fits[1 - h].temperature));
            Ok(Halving { halves: [first, second], start, fits })
        };
        let halvings = (0..HALVINGS).map(halving).collect::<Result<_>>()?;
        let figures = OnV::of(&predictions);
        let whole = Losses::at(&predictions, figures.temperature);
        Ok(Self { predictions, figures, halvings, whole })
    }

    /// The points along α, the best α (0 if none is better), and the gains there.
    pub fn gains(&self, path: &[AtAlpha]) -> Result<Gains> {
        let curve: Vec<MovePoint> = path
            .iter()
            .map(|(alpha, logits)| MovePoint { alpha: *alpha, figures: OnV::of(logits) })
            .collect();
        let best = self.best(&curve);
        let in_sample = match best {
            None => self.nothing(),
            Some(i) => {
                let found = Losses::at(&path[i].1, curve[i].figures.temperature);
                let [nll, calibrated, hits] = differences(&self.whole, &found);
                summed(&nll, &calibrated, &hits)
            }
        };
        let images = self.predictions.images();
        let mut found_by: Vec<MoveGains> = Vec::new();
        for Halving { halves, start, fits } in &self.halvings {
            let mut along: Vec<[(Predictions, Fit); 2]> = Vec::new();
            for (_, logits) in path {
                let own = [logits.subset(&halves[0])?, logits.subset(&halves[1])?];
                along.push(own.map(|own| {
                    let fitted = fit(&own);
                    (own, fitted)
                }));
            }
            let mut gains = [vec![0.0; images], vec![0.0; images], vec![0.0; images]];
            for h in 0..2 {
                // The other half chooses α and the temperature.
                let chosen = along
                    .iter()
                    .filter(|point| {
                        point[1 - h].1.nll < fits[1 - h].nll - rounding(fits[1 - h].nll)
                    })
                    .min_by(|a, b| a[1 - h].1.nll.total_cmp(&b[1 - h].1.nll));
                let Some(point) = chosen else { continue };
                let found = Losses::at(&point[h].0, point[1 - h].1.temperature);
                for (all, own) in gains.iter_mut().zip(differences(&start[h], &found)) {
                    halves[h].iter().zip(own).for_each(|(&image, gain)| all[image] = gain);
                }
            }
            let [nll, calibrated, hits] = &gains;
            found_by.push(summed(nll, calibrated, hits));
        }
        let cross_fit = MoveGains {
            nll: combined(&found_by, |gains| gains.nll),
            calibrated_nll: combined(&found_by, |gains| gains.calibrated_nll),
            top1: combined(&found_by, |gains| gains.top1),
        };
        Ok(Gains { alpha: best.map_or(0.0, |i| curve[i].alpha), best, curve, in_sample, cross_fit })
    }

    /// Position of the point with the lowest calibrated NLL, if it is below that of the model as it
    /// is.
    fn best(&self, curve: &[MovePoint]) -> Option<usize> {
        let nll = |i: &usize| curve[*i].figures.calibrated_nll;
        let least = self.figures.calibrated_nll - rounding(self.figures.calibrated_nll);
        let below = (0..curve.len()).filter(|i| nll(i) < least);
        below.min_by(|a, b| nll(a).total_cmp(&nll(b)))
    }

    fn nothing(&self) -> MoveGains {
        let none = vec![0.0; self.predictions.images()];
        summed(&none, &none, &none)
    }
}

/// The mean of the estimates of all halvings. Its variance is the mean of theirs and of their squared
/// distances from it: each half chooses for the other, so their errors do not average out
/// (Chernozhukov et al., The Econometrics Journal 21, 2018, section 3.4).
fn combined(all: &[MoveGains], of: impl Fn(&MoveGains) -> Estimate) -> Estimate {
    let n = all.len() as f64;
    let mean = all.iter().map(|gains| of(gains).mean).sum::<f64>() / n;
    let variance = all.iter().map(|gains| {
        let one = of(gains);
        one.stderr.map(|stderr| stderr.powi(2) + (one.mean - mean).powi(2))
    });
    let variance: Option<f64> = variance.sum();
    Estimate { mean, stderr: variance.map(|sum| (sum / n).sqrt()) }
}

/// A move's gains.
pub(super) struct Gains {
    pub alpha: f64,
    /// Position in the path of the best point.
    pub best: Option<usize>,
    pub curve: Vec<MovePoint>,
    pub in_sample: MoveGains,
    pub cross_fit: MoveGains,
}

fn differences(start: &Losses, found: &Losses) -> [Vec<f64>; 3] {
    let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
    [
        minus(&start.nll, &found.nll),
        minus(&start.calibrated, &found.calibrated),
        minus(&found.hits, &start.hits),
    ]
}

fn summed(nll: &[f64], calibrated: &[f64], hits: &[f64]) -> MoveGains {
    MoveGains {
        nll: mean_stderr(nll),
        calibrated_nll: mean_stderr(calibrated),
        top1: mean_stderr(hits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{stream, unit};
    use rand_chacha::ChaCha8Rng;

    const CLASSES: usize = 4;

    /// A standard normal number (Box and Muller).
    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        let (u, v) = (1.0 - unit(rng), unit(rng));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Noise of the logits at share α of a path that first helps: signal 1 + α, noise growing with
    /// α².
    fn draw(
        rng: &mut ChaCha8Rng,
        images: usize,
        help: f64,
        grid: &[f64],
    ) -> (Predictions, Vec<AtAlpha>) {
        let labels: Vec<u32> = (0..images).map(|i| (i % CLASSES) as u32).collect();
        let noise = |rng: &mut ChaCha8Rng| -> Vec<f64> {
            (0..images * CLASSES).map(|_| normal(rng)).collect()
        };
        let (base, other) = (noise(rng), noise(rng));
        let at = |alpha: f64| {
            let values = (0..images * CLASSES).map(|k| {
                let own = f64::from(u8::from(k % CLASSES == labels[k / CLASSES] as usize));
                2.0 * ((1.0 + help * alpha) * own + base[k] + alpha * alpha * other[k])
            });
            Predictions::new(values.collect(), CLASSES, &labels).unwrap()
        };
        (at(0.0), grid.iter().map(|&alpha| (alpha, at(alpha))).collect())
    }

    #[test]
    fn cross_fitted_intervals_cover_the_gain_on_new_images() {
        let grid = [0.2, 0.4, 0.6];
        for help in [0.0, 0.5] {
            let mut rng = stream(7, "coverage");
            let runs = 200;
            let (mut covered, mut bias, mut in_sample) = (0, 0.0, 0.0);
            // Calibrated losses on many images, by α and temperature, are the truth.
            let (start, path) = draw(&mut rng, 40_000, help, &grid);
            for _ in 0..runs {
                let (own, along) = draw(&mut rng, 400, help, &grid);
                let here = Start::new(own, 0).unwrap();
                let found = here.gains(&along).unwrap();
                let mut truth = 0.0;
                for Halving { halves, fits, .. } in &here.halvings {
                    for h in 0..2 {
                        let t = fits[1 - h];
                        let mut best = (t.nll, &start, t.temperature);
                        for ((_, logits), (_, whole)) in along.iter().zip(&path) {
                            let other = fit(&logits.subset(&halves[1 - h]).unwrap());
                            if other.nll < best.0.min(t.nll - rounding(t.nll)) {
                                best = (other.nll, whole, other.temperature);
                            }
                        }
                        let mean = |p: &Predictions, t: f64| mean_stderr(&losses(p, t)).mean;
                        truth += mean(&start, t.temperature) - mean(best.1, best.2);
                    }
                }
                truth /= 2.0 * HALVINGS as f64;
                let gain = found.cross_fit.calibrated_nll;
                covered +=
                    usize::from((gain.mean - truth).abs() <= 1.96 * gain.stderr.unwrap() + 1e-12);
                bias += (gain.mean - truth) / runs as f64;
                in_sample += (found.in_sample.calibrated_nll.mean - truth) / runs as f64;
            }
            // A binomial count of 200 at 95% is 190 ± 3.1.
            assert!(covered >= 181, "{help}: {covered} of {runs}");
            assert!(bias.abs() < 0.003, "{help}: {bias}");
            // In-sample gains are never below what was chosen.
            assert!(in_sample > bias, "{help}: {in_sample} {bias}");
        }
    }

    #[test]
    fn a_path_that_only_harms_stays_at_zero() {
        let mut rng = stream(1, "harm");
        let (start, path) = draw(&mut rng, 200, -1.0, &[0.5, 1.0]);
        let found = Start::new(start, 3).unwrap().gains(&path).unwrap();
        assert_eq!((found.alpha, found.best), (0.0, None));
        let zero = Estimate { mean: 0.0, stderr: Some(0.0) };
        assert_eq!((found.in_sample.nll, found.in_sample.top1), (zero, zero));
        assert!(found.cross_fit.calibrated_nll.mean.abs() < 1e-12);
    }

    #[test]
    fn a_rescaling_of_logits_gains_nothing_after_a_temperature() {
        let mut rng = stream(2, "scale");
        let (start, _) = draw(&mut rng, 200, 0.0, &[]);
        let halved = start.values().iter().map(|z| 0.5 * z).collect();
        let halved = Predictions::new(halved, CLASSES, start.labels()).unwrap();
        let found = Start::new(start, 3).unwrap().gains(&[(0.5, halved)]).unwrap();
        assert!(found.cross_fit.calibrated_nll.mean.abs() < 1e-9);
        assert!(found.in_sample.calibrated_nll.mean.abs() < 1e-9);
    }
}
