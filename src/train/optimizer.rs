//! Optimizers: from gradients to new weights.

use super::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

/// Numbers that one thread handles at a time: large enough to be worth a thread, small enough to
/// stay in its cache.
const CHUNK: usize = 1 << 14;

/// How a gradient moves the weights, at rate η.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// b ← μ b + g (b = g at the first step); w ← w − η b, or w − η (g + μ b) with Nesterov's
    /// look-ahead, as in `torch.optim.SGD` without dampening. Weight decay λ is coupled: g + λ w
    /// takes the place of g.
    Sgd {
        /// μ.
        momentum: f64,
        /// Whether to look ahead (Sutskever et al., ICML 2013).
        nesterov: bool,
    },
    /// m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; w ← w − η m̂ / (√v̂ + ε) with
    /// m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), as in `torch.optim.AdamW`. Weight decay λ is
    /// decoupled: w ← (1 − η λ) w first (Loshchilov and Hutter, ICLR 2019).
    AdamW {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε.
        eps: f64,
    },
}

/// A rule and what it remembers of each tensor. Arithmetic is in f32.
///
/// Weight decay acts on every tensor alike, biases and norms included, as torch's optimizers do
/// unless told otherwise.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    steps: f64,
    /// Per tensor the momentum and the second moment, the latter touched by AdamW alone: zeroed
    /// pages that nobody writes take no memory.
    state: Vec<[Vec<f32>; 2]>,
}

/// Moves weights by their gradients, given two runs of state.
type Update = dyn Fn(&mut [f32], &[f32], &mut [f32], &mut [f32]) + Sync;

impl Optimizer {
    /// An optimizer that has made no step yet.
    pub fn new(rule: Rule, weight_decay: f64) -> Self {
        Self { rule, weight_decay, steps: 0.0, state: Vec::new() }
    }

    /// The weights after one step at learning rate `rate`. State is kept by position: every step
    /// takes the same tensors in the same order.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if numbers or shapes differ from the gradients' or from the first
    /// step's, or a tensor is not f32.
    pub fn step(
        &mut self,
        weights: &[Tensor],
        gradients: &[Tensor],
        rate: f64,
    ) -> Result<Vec<Tensor>> {
        self.check(weights, gradients)?;
        self.steps += 1.0;
        let update = self.update(rate);
        let pairs = weights.iter().zip(gradients).zip(&mut self.state);
        pairs
            .map(|((weight, gradient), [first, second])| {
                let mut w: Vec<f32> = weight.flatten_all()?.to_vec1()?;
                with_values(gradient, |g| {
                    w.par_chunks_mut(CHUNK)
                        .zip(g.par_chunks(CHUNK))
                        .zip(first.par_chunks_mut(CHUNK))
                        .zip(second.par_chunks_mut(CHUNK))
                        .for_each(|(((w, g), first), second)| update(w, g, first, second));
                })?;
                Ok(Tensor::from_vec(w, weight.shape(), &Device::Cpu)?)
            })
            .collect()
    }

    fn check(&mut self, weights: &[Tensor], gradients: &[Tensor]) -> Result<()> {
        let fail = |place: String, expected: String, found: String| {
            Err(Error::Mismatch { place, expected, found })
        };
        let expected = if self.steps == 0.0 { weights.len() } else { self.state.len() };
        for found in [weights.len(), gradients.len()] {
            if found != expected {
                let place = "number of tensors".into();
                return fail(place, expected.to_string(), found.to_string());
            }
        }
        for (i, (w, g)) in weights.iter().zip(gradients).enumerate() {
            if w.dims() != g.dims() {
                let place = format!("gradient {i}");
                return fail(place, format!("{:?}", w.dims()), format!("{:?}", g.dims()));
            }
            if let Some(other) = [w, g].into_iter().find(|t| t.dtype() != DType::F32) {
                return fail(format!("tensor {i}"), "F32".into(), format!("{:?}", other.dtype()));
            }
            let kept = self.state.get(i).map_or(w.elem_count(), |[first, _]| first.len());
            if kept != w.elem_count() {
                let found = format!("{} numbers", w.elem_count());
                return fail(format!("tensor {i}"), format!("{kept} numbers"), found);
            }
        }
        if self.steps == 0.0 {
            let zeros = |w: &Tensor| [vec![0.0; w.elem_count()], vec![0.0; w.elem_count()]];
            self.state = weights.iter().map(zeros).collect();
        }
        Ok(())
    }

    /// What happens to a run of weights, gradients and state. Scalars are formed in f64 and
    /// rounded once.
    fn update(&self, rate: f64) -> Box<Update> {
        let decay = self.weight_decay;
        match self.rule {
            Rule::Sgd { momentum, nesterov } => {
                let (rate, decay) = (rate as f32, decay as f32);
                // A buffer of zeros makes the first step's b = g by itself.
                let momentum = momentum as f32;
                Box::new(move |w, g, b, _| {
                    for ((w, &g), b) in w.iter_mut().zip(g).zip(b) {
                        let g = g + decay * *w;
                        *b = momentum * *b + g;
                        *w -= rate * if nesterov { g + momentum * *b } else { *b };
                    }
                })
            }
            Rule::AdamW { beta1, beta2, eps } => {
                let (a1, a2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
                let (keep, b2, eps) = ((1.0 - rate * decay) as f32, beta2 as f32, eps as f32);
                let scale = (rate / (1.0 - libm::pow(beta1, self.steps))) as f32;
                let root = (1.0 - libm::pow(beta2, self.steps)).sqrt() as f32;
                Box::new(move |w, g, m, v| {
                    for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                        *m += a1 * (g - *m);
                        *v = b2 * *v + a2 * g * g;
                        *w = keep * *w - scale * *m / (v.sqrt() / root + eps);
                    }
                })
            }
        }
    }
}

/// Gradients scaled by min(1, `max_norm` / (‖g‖ + 10⁻⁶)), as in torch's `clip_grad_norm_`, and
/// ‖g‖ before it: the Euclidean norm over all tensors together.
///
/// # Errors
/// A gradient that is not f32.
pub fn clip(gradients: Vec<Tensor>, max_norm: f64) -> Result<(Vec<Tensor>, f64)> {
    let norm = norm(&gradients)?;
    let factor = max_norm / (norm + 1e-6);
    if factor >= 1.0 || !norm.is_finite() {
        return Ok((gradients, norm));
    }
    let scaled = gradients.iter().map(|g| Ok(g.affine(factor, 0.0)?)).collect::<Result<_>>()?;
    Ok((scaled, norm))
}

/// Euclidean norm over all tensors together, summed in f64 in a fixed order.
///
/// # Errors
/// A tensor that is not f32.
pub fn norm(tensors: &[Tensor]) -> Result<f64> {
    let mut squares = 0.0;
    for tensor in tensors {
        with_values(tensor, |values| {
            let sum = |part: &[f32]| part.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            // Partial sums are added in order, whatever the number of threads.
            let parts: Vec<f64> = values.par_chunks(CHUNK).map(sum).collect();
            squares += parts.iter().sum::<f64>();
        })?;
    }
    Ok(squares.sqrt())
}

/// Lends the numbers of an f32 tensor.
fn with_values(tensor: &Tensor, f: impl FnOnce(&[f32])) -> Result<()> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => {
            f(values.get(from..to).unwrap_or_default());
            Ok(())
        }
        _ => Err(Error::Mismatch {
            place: "values".into(),
            expected: "F32 on the CPU".into(),
            found: format!("{:?}", tensor.dtype()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn reference() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/optimizers.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn numbers(value: &Value) -> Vec<Vec<f32>> {
        let rows = value.as_array().unwrap().iter();
        rows.map(|row| {
            let row = row.as_array().unwrap().iter();
            row.map(|x| x.as_f64().unwrap() as f32).collect()
        })
        .collect()
    }

    fn tensors(value: &Value) -> Vec<Tensor> {
        let shapes: [&[usize]; 2] = [&[3, 4], &[5]];
        let make = |(row, shape)| Tensor::from_vec(row, shape, &Device::Cpu).unwrap();
        numbers(value).into_iter().zip(shapes).map(make).collect()
    }

    /// Largest difference: a few roundings of numbers near 1, 6e-8 each.
    fn assert_close(found: &[Tensor], expected: &Value, what: &str) {
        for (found, expected) in found.iter().zip(numbers(expected)) {
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{what}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn steps_agree_with_torch() {
        for case in reference()["cases"].as_array().unwrap() {
            let number = |key: &str| case["settings"][key].as_f64().unwrap();
            let rule = match case["rule"].as_str().unwrap() {
                "sgd" => Rule::Sgd {
                    momentum: number("momentum"),
                    nesterov: case["settings"]["nesterov"].as_bool().unwrap(),
                },
                _ => Rule::AdamW {
                    beta1: case["settings"]["betas"][0].as_f64().unwrap(),
                    beta2: case["settings"]["betas"][1].as_f64().unwrap(),
                    eps: number("eps"),
                },
            };
            let mut optimizer = Optimizer::new(rule, number("weight_decay"));
            let mut weights = tensors(&case["weights"]);
            for (i, step) in case["steps"].as_array().unwrap().iter().enumerate() {
                let rate = step["rate"].as_f64().unwrap();
                weights = optimizer.step(&weights, &tensors(&step["gradients"]), rate).unwrap();
                assert_close(&weights, &step["weights"], &format!("{}, step {i}", case["name"]));
            }
        }
    }

    #[test]
    fn clipping_agrees_with_torch() {
        let case = &reference()["clip"];
        let max_norm = case["max_norm"].as_f64().unwrap();
        let (clipped, before) = clip(tensors(&case["gradients"]), max_norm).unwrap();
        assert!((before / case["norm"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert_close(&clipped, &case["clipped"], "clip");
        let (kept, _) = clip(tensors(&case["gradients"]), 1e3).unwrap();
        assert_close(&kept, &case["gradients"], "no clip");
    }

    #[test]
    fn tensors_that_do_not_belong_together_are_refused() {
        let w = |n: usize, dtype| Tensor::zeros(n, dtype, &Device::Cpu).unwrap();
        let (w3, w4) = (w(3, DType::F32), w(4, DType::F32));
        let rule = Rule::Sgd { momentum: 0.9, nesterov: true };
        let mut optimizer = Optimizer::new(rule, 0.0);
        let mut fails = |weights: &[Tensor], gradients: &[Tensor]| {
            matches!(optimizer.step(weights, gradients, 0.1), Err(Error::Mismatch { .. }))
        };
        assert!(fails(std::slice::from_ref(&w3), &[]));
        assert!(fails(std::slice::from_ref(&w3), std::slice::from_ref(&w4)));
        assert!(fails(std::slice::from_ref(&w3), &[w(3, DType::F64)]));
        assert!(!fails(std::slice::from_ref(&w3), std::slice::from_ref(&w3)));
        assert!(fails(std::slice::from_ref(&w4), std::slice::from_ref(&w4)));
        assert!(fails(&[w3.clone(), w4.clone()], &[w3, w4]));
    }
}
