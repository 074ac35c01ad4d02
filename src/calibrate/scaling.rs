//! Maps of logits that a linear head can absorb: temperature scaling, structured vector scaling and
//! structured matrix scaling.
//!
//! With the logits z (C) of an image and the temperature T, let x = (z − mean z)/T. The calibrated
//! logits are
//!
//! - temperature: z/T (Guo et al., ICML 2017);
//! - SVS: x + diag(v) x + b;
//! - SMS: x + diag(v) x + M x + b, where M has a zero diagonal
//!
//! (Berta, Holzmüller, Jordan and Bach, "Structured matrix scaling for multi-class calibration",
//! AISTATS 2026). T is fitted first. Then v, M and b minimise the mean cross-entropy plus
//! λ‖v‖² + λ‖b‖² + λ_M‖M‖², with λ = C/N and λ_M = C(C − 1)/N for N images.
//!
//! The paper's code takes x = log softmax(z/T), which no linear head can compute. The mean of the
//! logits takes the place of the log-sum-exp here. Both make the result independent of a constant
//! that is added to an image's logits.

use super::newton::{SmoothFunction, minimise};
use crate::error::Result;
use crate::evaluate::{Fit, fit};
use crate::predictions::Predictions;
use candle_core::{DType, Device, Result as TensorResult, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which map is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Scaling {
    /// one temperature for all classes; predictions do not change
    #[default]
    Temperature,
    /// structured vector scaling: a temperature, then a factor and an offset for each class
    Svs,
    /// structured matrix scaling: SVS, and a factor for each pair of classes
    Sms,
}

impl Scaling {
    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scaling::Temperature => "temperature",
            Scaling::Svs => "svs",
            Scaling::Sms => "sms",
        }
    }
}

/// A fitted map of logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The temperature, which is fitted first.
    pub temperature: Fit,
    /// v or diag(v) + M, and b; `None` for temperature scaling.
    pub structured: Option<Structured>,
}

/// The part of a map after the temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Structured {
    /// v (C) for SVS; diag(v) + M (C,C), row-major, for SMS.
    pub factors: Vec<f64>,
    /// b (C).
    pub bias: Vec<f64>,
    /// Whether the gradient of the penalised loss vanished.
    pub converged: bool,
}

/// Fits a map on the logits of validation images.
///
/// # Errors
/// Tensor operations.
pub fn fit_scaling(predictions: &Predictions, scaling: Scaling) -> Result<Map> {
    let temperature = fit(predictions);
    let full = match scaling {
        Scaling::Temperature => return Ok(Map { temperature, structured: None }),
        Scaling::Svs => false,
        Scaling::Sms => true,
    };
    let (n, classes) = (predictions.images(), predictions.classes());
    let mut x = predictions.values().to_vec();
    x.par_chunks_exact_mut(classes).for_each(|row| centre(row, temperature.temperature));
    let (c, images) = (classes as f64, n as f64);
    let (ridge, between) = (c / images, c * (c - 1.0) / images);
    let mut penalty = match full {
        false => vec![ridge; classes],
        true => vec![between; classes * classes],
    };
    if full {
        (0..classes).for_each(|i| penalty[i * classes + i] = ridge);
    }
    penalty.extend(vec![ridge; classes]);
    let problem = ScalingProblem {
        x: Tensor::from_vec(x, (n, classes), &Device::Cpu)?,
        labels: predictions.labels(),
        classes,
        full,
        penalty,
    };
    let (mut factors, converged) = minimise(&problem, problem.penalty.len())?;
    let bias = factors.split_off(factors.len() - classes);
    Ok(Map { temperature, structured: Some(Structured { factors, bias, converged }) })
}

/// (z − mean z)/T, in place.
fn centre(row: &mut [f64], temperature: f64) {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|z| *z = (*z - mean) / temperature);
}

impl Map {
    /// The calibrated logits.
    ///
    /// # Errors
    /// Logits that overflow.
    pub fn apply(&self, to: &Predictions) -> Result<Predictions> {
        let (classes, temperature) = (to.classes(), self.temperature.temperature);
        let rows = to.map(|_, row, _| {
            let mut x = row.to_vec();
            match &self.structured {
                None => x.iter_mut().for_each(|z| *z /= temperature),
                Some(structured) => {
                    centre(&mut x, temperature);
                    x = structured.apply(&x);
                }
            }
            x
        });
        Ok(Predictions::new(rows.concat(), classes, to.labels())?)
    }

    /// Weight (C,D) and bias (C) of a linear head followed by the map, in f32.
    ///
    /// # Errors
    /// Tensor operations.
    pub fn fold(&self, weight: &Tensor, bias: &Tensor) -> TensorResult<[Tensor; 2]> {
        let scale = self.temperature.temperature.recip();
        let columns = [weight.clone(), bias.unsqueeze(1)?];
        let [weight, bias] = columns.map(|columns| -> TensorResult<Tensor> {
            let columns = (columns.to_dtype(DType::F64)? * scale)?;
            let Some(structured) = &self.structured else { return Ok(columns) };
            let centred = columns.broadcast_sub(&columns.mean_keepdim(0)?)?;
            let classes = structured.bias.len();
            let changed = match structured.is_full() {
                false => {
                    let v = Tensor::new(structured.factors.as_slice(), &Device::Cpu)?;
                    centred.broadcast_mul(&v.unsqueeze(1)?)?
                }
                true => {
                    let factors = structured.factors.as_slice();
                    let factors = Tensor::from_slice(factors, (classes, classes), &Device::Cpu)?;
                    factors.matmul(&centred)?
                }
            };
            centred + changed
        });
        let mut bias = bias?.squeeze(1)?;
        if let Some(structured) = &self.structured {
            bias = (bias + Tensor::new(structured.bias.as_slice(), &Device::Cpu)?)?;
        }
        Ok([weight?.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?])
    }
}

impl Structured {
    fn is_full(&self) -> bool {
        self.factors.len() > self.bias.len()
    }

    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let classes = x.len();
        let change = |class: usize| match self.is_full() {
            false => self.factors[class] * x[class],
            true => {
                let row = &self.factors[class * classes..(class + 1) * classes];
                row.iter().zip(x).map(|(w, x)| w * x).sum()
            }
        };
        (0..classes).map(|class| x[class] + change(class) + self.bias[class]).collect()
    }
}

/// The penalised mean cross-entropy as a function of the factors and the bias.
struct ScalingProblem<'a> {
    /// Centred logits (N,C) after the temperature.
    x: Tensor,
    labels: &'a [u32],
    classes: usize,
    /// Whether the factors are a matrix.
    full: bool,
    /// λ of each parameter.
    penalty: Vec<f64>,
}

impl ScalingProblem<'_> {
    /// W x + b for the factors and biases in `parameters`, for all images, row-major (N,C).
    fn image_of(&self, parameters: &[f64]) -> TensorResult<Tensor> {
        let (factors, bias) = parameters.split_at(parameters.len() - self.classes);
        let bias = Tensor::new(bias, &Device::Cpu)?;
        let changed = match self.full {
            false => self.x.broadcast_mul(&Tensor::new(factors, &Device::Cpu)?)?,
            true => {
                let shape = (self.classes, self.classes);
                self.x.matmul(&Tensor::from_slice(factors, shape, &Device::Cpu)?.t()?)?
            }
        };
        changed.broadcast_add(&bias)
    }

    /// The adjoint of [`ScalingProblem::image_of`].
    fn adjoint(&self, d: &Tensor) -> TensorResult<Vec<f64>> {
        let mut out: Vec<f64> = match self.full {
            false => (d * &self.x)?.sum(0)?.to_vec1()?,
            true => d.t()?.matmul(&self.x)?.flatten_all()?.to_vec1()?,
        };
        out.extend(d.sum(0)?.to_vec1::<f64>()?);
        Ok(out)
    }
}

impl SmoothFunction for ScalingProblem<'_> {
    /// Probabilities (N,C), row-major.
    type Point = Vec<f64>;

    fn evaluate(&self, parameters: &[f64]) -> TensorResult<(f64, Vec<f64>, Vec<f64>)> {
        let z = (&self.x + self.image_of(parameters)?)?;
        let mut p: Vec<f64> = z.flatten_all()?.to_vec1()?;
        let n = self.labels.len() as f64;
        let rows = p.par_chunks_exact_mut(self.classes).zip(self.labels);
        let losses: Vec<f64> = rows
            .map(|(row, &label)| {
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let own = row[label as usize] - max;
                row.iter_mut().for_each(|z| *z = (*z - max).exp());
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|p| *p /= sum);
                sum.ln() - own
            })
            .collect();
        let mut d = p.clone();
        for (row, &label) in d.chunks_exact_mut(self.classes).zip(self.labels) {
            row[label as usize] -= 1.0;
            row.iter_mut().for_each(|d| *d /= n);
        }
        let d = Tensor::from_vec(d, self.x.shape(), &Device::Cpu)?;
        let mut gradient = self.adjoint(&d)?;
        let mut loss = losses.iter().sum::<f64>() / n;
        for ((g, &theta), &lambda) in gradient.iter_mut().zip(parameters).zip(&self.penalty) {
            *g += 2.0 * lambda * theta;
            loss += lambda * theta * theta;
        }
        Ok((loss, gradient, p))
    }

    fn product(&self, p: &Vec<f64>, v: &[f64]) -> TensorResult<Vec<f64>> {
        let n = self.labels.len() as f64;
        let mut d: Vec<f64> = self.image_of(v)?.flatten_all()?.to_vec1()?;
        // The Hessian of the cross-entropy in the logits: diag(p) − p pᵀ.
        d.par_chunks_exact_mut(self.classes).zip(p.par_chunks_exact(self.classes)).for_each(
            |(d, p)| {
                let mean: f64 = d.iter().zip(p).map(|(d, p)| d * p).sum();
                d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean) / n);
            },
        );
        let d = Tensor::from_vec(d, self.x.shape(), &Device::Cpu)?;
        let mut out = self.adjoint(&d)?;
        for ((out, &v), &lambda) in out.iter_mut().zip(v).zip(&self.penalty) {
            *out += 2.0 * lambda * v;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        classes: usize,
        logits: Vec<f64>,
        labels: Vec<u32>,
        temperature: f64,
        svs: Expected,
        sms: Expected,
    }

    #[derive(Deserialize)]
    struct Expected {
        factors: Vec<f64>,
        bias: Vec<f64>,
        probmetrics: Parameters,
    }

    #[derive(Deserialize)]
    struct Parameters {
        factors: Vec<f64>,
        bias: Vec<f64>,
    }

    fn cases() -> Vec<(Predictions, Case)> {
        let text = include_str!("../../tests/reference/scaling.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        let read = |c: Case| (Predictions::new(c.logits.clone(), c.classes, &c.labels).unwrap(), c);
        cases.into_iter().map(read).collect()
    }

    fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn fits_equal_scipy_and_probmetrics() {
        for (p, case) in cases() {
            for (scaling, expected) in [(Scaling::Svs, &case.svs), (Scaling::Sms, &case.sms)] {
                let map = fit_scaling(&p, scaling).unwrap();
                let t = map.temperature.temperature;
                // SciPy minimises over log T by values, so T is right to the root of rounding.
                assert!((t / case.temperature - 1.0).abs() < 1e-7, "{}: {t}", case.name);
                let found = map.structured.unwrap();
                assert!(found.converged, "{}, {scaling:?}", case.name);
                let off = largest_difference(&found.factors, &expected.factors)
                    .max(largest_difference(&found.bias, &expected.bias));
                assert!(off < 1e-6, "{}, {scaling:?}: {off}", case.name);
                // probmetrics stops at a gradient of 1e-5.
                let theirs = &expected.probmetrics;
                let off = largest_difference(&found.factors, &theirs.factors)
                    .max(largest_difference(&found.bias, &theirs.bias));
                assert!(off < 5e-4, "{}, {scaling:?}: {off}", case.name);
            }
        }
    }

    #[test]
    fn a_folded_head_gives_the_mapped_logits() {
        let (n, d, c) = (7, 4, 5);
        let numbers = |len: usize, step: f32| -> Vec<f32> {
            (0..len).map(|i| ((i as f32 + 1.0) * step).sin()).collect()
        };
        let x = Tensor::from_vec(numbers(n * d, 0.7), (n, d), &Device::Cpu).unwrap();
        let weight = Tensor::from_vec(numbers(c * d, 1.3), (c, d), &Device::Cpu).unwrap();
        let bias = Tensor::from_vec(numbers(c, 2.1), c, &Device::Cpu).unwrap();
        let logits = |weight: &Tensor, bias: &Tensor| -> Vec<f64> {
            let z = x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(bias).unwrap();
            z.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let given = Predictions::new(logits(&weight, &bias), c, &[0; 7]).unwrap();
        let temperature = Fit { temperature: 2.5, nll: 0.0, bound: None };
        for len in [0, c, c * c] {
            let factors: Vec<f64> = (0..len).map(|i| 0.1 * (i as f64).cos()).collect();
            let bias_of_map: Vec<f64> = (0..c).map(|i| 0.2 * i as f64).collect();
            let structured = Structured { factors, bias: bias_of_map, converged: true };
            let map = Map { temperature, structured: (len > 0).then_some(structured) };
            let [w, b] = map.fold(&weight, &bias).unwrap();
            let off = largest_difference(&logits(&w, &b), map.apply(&given).unwrap().values());
            // Four products in f32.
            assert!(off < 1e-6, "{len}: {off}");
        }
    }

    #[test]
    fn products_are_differences_of_gradients() {
        let (p, case) = cases().remove(0);
        let (n, c) = (p.images(), case.classes);
        for full in [false, true] {
            let len = if full { c * c } else { c } + c;
            let problem = ScalingProblem {
                x: Tensor::from_slice(p.values(), (n, c), &Device::Cpu).unwrap(),
                labels: &case.labels,
                classes: c,
                full,
                penalty: (0..len).map(|i| 0.01 * (i + 1) as f64).collect(),
            };
            let at: Vec<f64> = (0..len).map(|i| 0.05 * (i as f64).sin()).collect();
            let v: Vec<f64> = (0..len).map(|i| (0.3 * i as f64).cos()).collect();
            let h = 1e-5;
            let along = |s: f64| {
                let moved: Vec<f64> = at.iter().zip(&v).map(|(x, v)| x + s * v).collect();
                problem.evaluate(&moved).unwrap()
            };
            let ((up, above, _), (down, below, _)) = (along(h), along(-h));
            let (_, gradient, point) = along(0.0);
            let slope: f64 = gradient.iter().zip(&v).map(|(g, v)| g * v).sum();
            assert!(((up - down) / (2.0 * h) - slope).abs() < 1e-7 * slope.abs().max(1.0));
            let central: Vec<f64> =
                above.iter().zip(&below).map(|(a, b)| (a - b) / (2.0 * h)).collect();
            let product = problem.product(&point, &v).unwrap();
            let off = largest_difference(&product, &central);
            assert!(off < 1e-6 * product.iter().fold(1.0, |m, x| x.abs().max(m)), "{off}");
        }
    }
}
