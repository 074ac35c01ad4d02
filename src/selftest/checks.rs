//! The identities, and the model's deviation from each.

use crate::line_search::moved;
use crate::models::Layer;
use crate::models::layers::join;
use crate::objective::{Activations, Derivatives, Examples, Objective, Result};
use crate::random::{below, stream};
use crate::vector::{add_scaled, dot, norm, to_cpu};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Step of the central differences, relative to the layer's norm. In f64, truncation and rounding
/// errors are both far below the tolerances.
const EPSILON: f64 = 1e-6;

/// An identity, and the model's deviation from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The identity.
    pub name: String,
    /// `f32`, `f64`, or the type of what is compared.
    pub precision: String,
    /// The largest error found, relative to the norms of what is compared.
    pub error: f64,
    /// Where it was found.
    pub layer: String,
    /// Number of layers checked.
    pub layers: usize,
    /// The largest error allowed.
    pub tolerance: f64,
    /// Whether the error is within it.
    pub passed: bool,
}

impl Check {
    /// A check with a single error.
    pub fn single(name: &str, precision: &str, error: f64, tolerance: f64) -> Check {
        Check::worst(name, precision, tolerance, vec![(String::new(), error)])
    }

    /// The worst error of several layers. NaN counts as the worst.
    fn worst(name: &str, precision: &str, tolerance: f64, errors: Vec<(String, f64)>) -> Check {
        let layers = errors.len();
        let size = |error: f64| if error.is_nan() { f64::INFINITY } else { error };
        let found = errors.into_iter().max_by(|a, b| size(a.1).total_cmp(&size(b.1)));
        let (layer, error) = found.unwrap_or_default();
        let passed = layers > 0 && error <= tolerance;
        let (name, precision) = (name.into(), precision.into());
        Check { name, precision, error, layer, layers, tolerance, passed }
    }
}

/// A model in both precisions, with a few images.
pub struct Subject<'a> {
    /// The model in f32.
    pub single: Objective,
    /// The same weights in f64.
    pub double: Objective,
    /// A few images. The objectives' micro-batch size decides how they are split.
    pub images: &'a dyn Examples,
    /// Layers whose first derivatives are checked.
    pub layers: Vec<Layer>,
    /// Fewer layers for the second derivatives, which cost more.
    pub few: Vec<Layer>,
    /// Seed of the directions.
    pub seed: u64,
}

impl Subject<'_> {
    /// Runs all checks and calls `after` with each result.
    ///
    /// # Errors
    /// Those of evaluating the model, in particular a non-finite loss.
    pub fn run(&self, after: &mut dyn FnMut(&Check)) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        let mut add = |found: Vec<Check>| {
            found.iter().for_each(&mut *after);
            checks.extend(found);
        };
        add(vec![self.repeatable()?]);
        add(self.first_order()?);
        add(self.second_order()?);
        Ok(checks)
    }

    /// Loss, gradient and Hessian-vector product, repeated and on one thread: must be
    /// bit-identical.
    fn repeatable(&self) -> Result<Check> {
        let model = &self.single;
        let mut errors = Vec::new();
        if let Some(layer) = self.few.get(self.few.len() / 2) {
            let v = self.direction(model, layer, "repeatable", None)?;
            let once = || at_hand(model.hvp(self.images, layer, &v)?);
            let first = once()?;
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
            let again = [once()?, alone.map_or_else(|_| once(), |pool| pool.install(once))?];
            let mut differs = false;
            for other in again {
                differs |= first.loss.to_bits() != other.loss.to_bits()
                    || !same(&first.gradient, &other.gradient)?
                    || !same(&first.hvp, &other.hvp)?;
            }
            errors.push((layer.name.clone(), f64::from(u8::from(differs))));
        }
        Ok(Check::worst("the same bits twice, and on one thread", "f32", 0.0, errors))
    }

    /// Compares gradients with differences of the loss, and with the derivative of the logits.
    fn first_order(&self) -> Result<Vec<Check>> {
        let (mut differences, mut adjoint, mut adjoint_single) = (vec![], vec![], vec![]);
        let (double, single) = (&self.double, &self.single);
        // One backward pass gives every layer's gradient, one forward pass every layer's inputs.
        let all = join(&self.layers);
        let whole = to_cpu(&double.gradient(self.images, &all)?.gradient)?;
        let whole_single = to_cpu(&single.gradient(self.images, &all)?.gradient)?;
        let mut at = double.activations(self.images, self.images.stage())?;
        let mut at_single = single.activations(self.images, self.images.stage())?;
        for layer in &self.layers {
            if layer.first_stage > at.stage {
                at = double.activations(&at, layer.first_stage)?;
                at_single = single.activations(&at_single, layer.first_stage)?;
            }
            let g = part(&whole, &all, layer);
            let v = self.direction(double, layer, "gradient", Some(&g))?;
            let scale = norm(&g)? * norm(&v)?;
            let loss = |side: f64| loss(&moved(double, layer, &v, -side * EPSILON)?, &at);
            let (up, down) = rayon::join(|| loss(1.0), || loss(-1.0));
            let slope = (up? - down?) / (2.0 * EPSILON);
            differences.push((layer.name.clone(), relative(slope - dot(&g, &v)?, scale)));
            adjoint.push((layer.name.clone(), self.adjoint(double, layer, &at, &v, &g)?));

            let (v, g) = (convert(&v, DType::F32)?, part(&whole_single, &all, layer));
            let error = self.adjoint(single, layer, &at_single, &v, &g)?;
            adjoint_single.push((layer.name.clone(), error));
        }
        let name = "⟨Jᵀȳ, v⟩ = ⟨ȳ, Jv⟩";
        Ok(vec![
            Check::worst("gradient = differences of the loss", "f64", 1e-6, differences),
            Check::worst(name, "f64", 1e-11, adjoint),
            Check::worst(name, "f32", 1e-4, adjoint_single),
        ])
    }

    /// Compares ⟨g, v⟩, from the backward pass, with (1/N) Σ ⟨p − y, J v⟩, from the forward pass.
    fn adjoint(
        &self,
        model: &Objective,
        layer: &Layer,
        examples: &Activations,
        v: &[Tensor],
        g: &[Tensor],
    ) -> Result<f64> {
        let (logits, slopes) = model.predict_along(examples, layer, v)?;
        let numbers = |x: Tensor| x.to_dtype(DType::F64)?.to_vec2::<f64>();
        let (logits, slopes) = (numbers(logits)?, numbers(slopes)?);
        let mut forward = 0.0;
        for ((z, dz), &label) in logits.iter().zip(&slopes).zip(examples.labels()) {
            let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let e: Vec<f64> = z.iter().map(|z| (z - largest).exp()).collect();
            let sum: f64 = e.iter().sum();
            let mean: f64 = e.iter().zip(dz).map(|(e, dz)| e / sum * dz).sum();
            forward += mean - dz.get(label as usize).copied().unwrap_or(f64::NAN);
        }
        let error = forward / logits.len() as f64 - dot(g, v)?;
        Ok(relative(error, norm(g)? * norm(v)?))
    }

    /// Compares products with differences of the gradient, with each other, and f32 with f64.
    fn second_order(&self) -> Result<Vec<Check>> {
        let (mut differences, mut symmetry, mut single) = (vec![], vec![], vec![]);
        for layer in &self.few {
            let model = &self.double;
            let examples = model.activations(self.images, layer.first_stage)?;
            let g = to_cpu(&model.gradient(&examples, layer)?.gradient)?;
            let u = self.direction(model, layer, "u", Some(&g))?;
            let v = self.direction(model, layer, "v", Some(&g))?;
            let product = |v: &[Tensor]| at_hand(model.hvp(&examples, layer, v)?);
            let (hu, hv) = rayon::join(|| product(&u), || product(&v));
            let (hu, hv) = (hu?.hvp, hv?.hvp);
            let at = |side: f64| -> Result<Vec<Tensor>> {
                let there = moved(model, layer, &v, -side * EPSILON)?;
                Ok(to_cpu(&there.gradient(&examples, layer)?.gradient)?)
            };
            let (up, down) = rayon::join(|| at(1.0), || at(-1.0));
            let slope = add_scaled(&up?, -1.0, &down?)?;
            let error = norm(&add_scaled(&scaled(&slope, 0.5 / EPSILON)?, -1.0, &hv)?)?;
            differences.push((layer.name.clone(), relative(error, norm(&hv)?)));
            let error = dot(&u, &hv)? - dot(&v, &hu)?;
            let size = norm(&u)? * norm(&hv)? + norm(&v)? * norm(&hu)?;
            symmetry.push((layer.name.clone(), relative(error, size)));

            let v = convert(&v, DType::F32)?;
            let examples = self.single.activations(self.images, layer.first_stage)?;
            let short = to_cpu(&self.single.hvp(&examples, layer, &v)?.hvp)?;
            let error = norm(&add_scaled(&convert(&short, DType::F64)?, -1.0, &hv)?)?;
            single.push((layer.name.clone(), relative(error, norm(&hv)?)));
        }
        Ok(vec![
            Check::worst("Hv = differences of the gradient", "f64", 1e-5, differences),
            Check::worst("uᵀHv = vᵀHu", "f64", 1e-11, symmetry),
            Check::worst("Hv in f32 = Hv in f64", "f32", 1e-3, single),
        ])
    }

    /// A direction as long as the layer's weights: random signs, or half random signs and half the
    /// gradient's direction. The loss changes most along the gradient; the signs cover every
    /// tensor.
    fn direction(
        &self,
        model: &Objective,
        layer: &Layer,
        name: &str,
        gradient: Option<&[Tensor]>,
    ) -> Result<Vec<Tensor>> {
        let weights: Vec<Tensor> =
            layer.tensors.iter().map(|&i| model.weights.tensor(i).clone()).collect();
        let mut rng = stream(self.seed, &format!("selftest {name} {}", layer.name));
        let mut signs = Vec::with_capacity(weights.len());
        for w in &weights {
            let values: Vec<f64> =
                (0..w.elem_count()).map(|_| below(&mut rng, 2) as f64 * 2.0 - 1.0).collect();
            signs.push(Tensor::from_vec(values, w.dims(), &Device::Cpu)?.to_dtype(w.dtype())?);
        }
        let length = norm(&weights)?.max(1.0);
        let share = |x: &[Tensor]| -> Result<f64> {
            let size = norm(x)?;
            Ok(if size > 0.0 { 0.5 * length / size } else { 0.0 })
        };
        let random = scaled(&signs, share(&signs)?)?;
        match gradient {
            Some(g) => Ok(add_scaled(&random, share(g)?, g)?),
            None => Ok(random),
        }
    }
}

/// Derivatives in CPU memory.
fn at_hand(found: Derivatives) -> Result<Derivatives> {
    let (gradient, hvp) = (to_cpu(&found.gradient)?, to_cpu(&found.hvp)?);
    Ok(Derivatives { gradient, hvp, ..found })
}

/// A layer's part of a joint layer's tensors.
fn part(whole: &[Tensor], joint: &Layer, layer: &Layer) -> Vec<Tensor> {
    let places = layer.tensors.iter().filter_map(|i| joint.tensors.binary_search(i).ok());
    places.map(|k| whole[k].clone()).collect()
}

/// The layers on which second derivatives are checked: the first, a middle and the last block, the
/// final norm and the head; also the embedding, unless `heavy`.
pub fn few(layers: &[Layer], heavy: bool) -> Vec<Layer> {
    let last = layers.len().saturating_sub(1);
    let mut places = vec![1, last / 2, last.saturating_sub(2), last.saturating_sub(1), last];
    if !heavy {
        places.insert(0, 0);
    }
    places.dedup();
    places.into_iter().filter_map(|i| layers.get(i).cloned()).collect()
}

fn loss(model: &Objective, examples: &Activations) -> Result<f64> {
    let losses = crate::evaluate::losses(&model.predict(examples)?, 1.0);
    Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
}

/// An error relative to a size; 0 if both are 0.
fn relative(error: f64, size: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error.abs() / size }
}

fn scaled(x: &[Tensor], factor: f64) -> Result<Vec<Tensor>> {
    Ok(x.iter().map(|x| x * factor).collect::<candle_core::Result<_>>()?)
}

fn convert(x: &[Tensor], dtype: DType) -> Result<Vec<Tensor>> {
    Ok(x.iter().map(|x| x.to_dtype(dtype)).collect::<candle_core::Result<_>>()?)
}

fn same(a: &[Tensor], b: &[Tensor]) -> Result<bool> {
    for (a, b) in a.iter().zip(b) {
        let bits = |x: &Tensor| -> candle_core::Result<Vec<u32>> {
            Ok(x.flatten_all()?.to_vec1::<f32>()?.iter().map(|x| x.to_bits()).collect())
        };
        if bits(a)? != bits(b)? {
            return Ok(false);
        }
    }
    Ok(a.len() == b.len())
}
