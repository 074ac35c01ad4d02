//! Finds where a model overfits: ΔL and κ of every layer, with standard errors, ties and a plan.
//!
//! ΔL_ℓ = φ(0) − φ(α*) for φ(α) = L^V(w_ℓ − α g_ℓ), where α* is the first local minimum of φ; κ_ℓ =
//! ΔL_ℓ/‖Δw‖². The line along the gradient is that of PoF's Fig. 1, restricted to one layer (Sato
//! et al., ICML 2022).
//!
//! V is split into two stratified folds. Direction and α* come from one fold, the gap is measured
//! on the other, and both assignments are averaged. This is repeated with other halves.

mod assemble;
pub mod cross_fit;
pub mod findings;
mod fold;
mod forecast;
mod groups;
pub mod halvings;
mod measurer;
mod newton;
mod options;
pub mod plan;
mod plan_file;
pub mod ranking;
mod sampling;
mod session;
pub mod spectrum;
mod summary;

pub use forecast::post_training;
pub use measurer::Measurer;
pub use newton::Estimator;
pub use options::{DiagnoseOptions, EstimatorName, REPEATS};
pub use plan_file::{Error as PlanError, SCHEMA as DIAGNOSIS, read_plan};
pub use session::{DiagnoseSession, Diagnosed};

use crate::curvature::Result;
use crate::diagnose::findings::Findings;
use crate::diagnose::halvings::Halvings;
use crate::diagnose::spectrum::Spectrum;
use crate::evaluate::losses;
use crate::models::Layer;
use crate::models::layers::join;
use crate::objective::{Activations, Examples, LayerVectors, Matrix, Objective};
use crate::predictions::Predictions;
use crate::vector;
use assemble::{assemble, model_loss};
use candle_core::Tensor;
use fold::{Direction, Fold, Measured, mean, measure};

/// Images and the layers to measure on them.
pub struct Request<'a> {
    /// The model at w*.
    pub objective: &'a Objective,
    /// V, as pixels.
    pub validation: &'a dyn Examples,
    /// Training images, to report their loss next to V's.
    pub training: Option<&'a dyn Examples>,
    /// The layers, from input to output.
    pub layers: &'a [Layer],
    /// Seed of the folds.
    pub seed: u64,
    /// How layers are measured.
    pub options: MeasureOptions,
}

/// How layers are measured.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureOptions {
    /// How each layer's Δw is found.
    pub estimator: Estimator,
    /// Ways to halve V, at least 1 and at most [`halvings::MOST_REPEATS`].
    pub repeats: usize,
    /// Which spectral quantities to measure, if any.
    pub spectrum: Option<spectrum::SpectrumOptions>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self { estimator: Estimator::default(), repeats: REPEATS, spectrum: None }
    }
}

impl MeasureOptions {
    /// The same options, reduced to the largest eigenvalue of the first matrix.
    pub fn only_top(&self) -> Self {
        let spectrum = self.spectrum.clone().map(|s| spectrum::SpectrumOptions {
            matrices: s.matrices.into_iter().take(1).collect(),
            largest: 1,
            whole: false,
            density: false,
            ..s
        });
        Self { spectrum, ..self.clone() }
    }
}

impl<'a> Request<'a> {
    /// Measures layers on V along their gradients.
    pub fn new(
        objective: &'a Objective,
        validation: &'a dyn Examples,
        layers: &'a [Layer],
        seed: u64,
    ) -> Self {
        let options = MeasureOptions::default();
        Self { objective, validation, training: None, layers, seed, options }
    }
}

/// Both folds' measurements of one layer in one halving.
type Pair = [Measured; 2];

/// All results of one layer.
struct Found {
    layer: Layer,
    /// One pair per halving. The first also has curvatures and the searched line.
    pairs: Vec<Pair>,
    spectra: Vec<Spectrum>,
}

/// Measures every layer. Operands of matrix products are not rounded, whatever the objective's
/// precision. Calls `done` with a layer's name after measuring it.
///
/// # Errors
/// Those of evaluating the model; [`crate::objective::Error::NoExamples`] if a fold is empty.
pub fn diagnose(request: &Request, done: &mut dyn FnMut(&str)) -> Result<Findings> {
    diagnose_within(request, groups::MOST, done)
}

/// The same with at most `most` numbers of gradients held at a time.
fn diagnose_within(request: &Request, most: usize, done: &mut dyn FnMut(&str)) -> Result<Findings> {
    let &Request { validation, layers, ref options, .. } = request;
    // Differences of losses along a line are smaller than bf16 rounding.
    let objective = &request.objective.exact();
    let halvings = Halvings::new(validation.labels(), options.repeats, request.seed)
        .ok_or(crate::objective::Error::NoExamples)?;
    let lowest = layers.iter().map(|layer| layer.first_stage).min().unwrap_or(0);
    let mut at = objective.activations_on_device(validation, lowest)?;
    let base = objective.predict(&at)?;
    let mut results = Vec::new();
    for group in groups::groups(&objective.network, layers, options.repeats, most) {
        let directions = Directions::new(objective, &at, &group, &halvings)?;
        for (l, layer) in group.into_iter().enumerate() {
            if layer.first_stage > at.stage {
                // One forward pass per image serves all layers.
                at = objective.activations_on_device(&at, layer.first_stage)?;
            }
            let mut pairs: Vec<Pair> = Vec::with_capacity(halvings.repeats());
            for r in 0..halvings.repeats() {
                let folds = halvings.halves(r);
                let parts = [at.select(&folds[0])?, at.select(&folds[1])?];
                let bases = [subset(&base, &folds[0])?, subset(&base, &folds[1])?];
                let alpha = pairs.first().and_then(usual_step);
                let one = |half: usize| -> Result<Measured> {
                    let fold = Fold {
                        own: &parts[half],
                        other: &parts[1 - half],
                        own_base: &bases[half],
                        other_base: &bases[1 - half],
                    };
                    let gradient = directions.of(&layer, &halvings, r, half)?;
                    let curvature = (r == 0).then_some(directions.curvatures[half][l]);
                    let direction = Direction { gradient: &gradient, curvature, alpha };
                    measure(objective, &layer, &fold, direction, options.estimator)
                };
                pairs.push([one(0)?, one(1)?]);
            }
            let mut spectra = Vec::new();
            if let Some(settings) = &options.spectrum {
                for &matrix in &settings.matrices {
                    spectra.push(spectrum::spectrum(objective, &at, &layer, matrix, settings)?);
                }
            }
            done(&layer.name);
            results.push(Found { layer, pairs, spectra });
        }
    }
    let training = match request.training {
        Some(examples) => {
            let loss = mean(&losses(&objective.predict(examples)?, 1.0));
            Some((loss, examples.len()))
        }
        None => None,
    };
    let [a, b] = halvings.halves(0);
    let loss = model_loss(&base, &[subset(&base, &a)?, subset(&base, &b)?], training);
    assemble(objective, results, loss, &halvings)
}

/// The mean of both folds' α*, if both moved.
fn usual_step(pair: &Pair) -> Option<f64> {
    let moved = pair.iter().all(|m| m.minimum.alpha > 0.0);
    moved.then(|| (pair[0].minimum.alpha + pair[1].minimum.alpha) / 2.0)
}

/// The gradients of some layers on each block of V, and gᵀHg of each layer on both folds of the first
/// halving.
struct Directions {
    joint: Layer,
    of_blocks: Vec<Vec<Tensor>>,
    curvatures: Vec<Vec<f64>>,
}

impl Directions {
    /// One backward pass gives the gradients of all layers, and another, with tangents, their curvatures.
    fn new(
        objective: &Objective,
        at: &Activations,
        layers: &[Layer],
        halvings: &Halvings,
    ) -> Result<Self> {
        let joint = join(layers);
        let mut of_blocks = Vec::with_capacity(halvings.blocks.len());
        for block in &halvings.blocks {
            of_blocks.push(objective.gradient(&at.select(block)?, &joint)?.gradient);
        }
        let mut found = Self { joint, of_blocks, curvatures: Vec::with_capacity(2) };
        for (half, fold) in halvings.halves(0).iter().enumerate() {
            let directions = layers.iter().map(|layer| found.of(layer, halvings, 0, half));
            let directions = directions.collect::<crate::objective::Result<Vec<_>>>()?;
            let part = at.select(fold)?;
            found.curvatures.push(curvatures_along(objective, &part, layers, &directions)?);
        }
        Ok(found)
    }

    /// A layer's gradient over one half of V: the mean of its blocks' gradients, weighted by their
    /// sizes.
    fn of(
        &self,
        layer: &Layer,
        halvings: &Halvings,
        r: usize,
        half: usize,
    ) -> crate::objective::Result<Vec<Tensor>> {
        let blocks = halvings.blocks_of(r, half);
        let size = |b: usize| halvings.blocks[b].len() as f64;
        let all: f64 = blocks.iter().map(|&b| size(b)).sum();
        let of_block = |b: usize| -> Vec<Tensor> {
            let joint = &self.joint.tensors;
            let places = layer.tensors.iter().filter_map(|i| joint.binary_search(i).ok());
            places.map(|k| self.of_blocks[b][k].clone()).collect()
        };
        match blocks.as_slice() {
            [only] => Ok(of_block(*only)),
            [first, rest @ ..] => {
                let mut sum = vector::scaled(&of_block(*first), size(*first) / all)?;
                for &b in rest {
                    sum = vector::add_scaled(&sum, size(b) / all, &of_block(b))?;
                }
                Ok(sum)
            }
            [] => Err(crate::objective::Error::NoExamples),
        }
    }
}

/// gᵀHg of every layer along its direction.
fn curvatures_along(
    objective: &Objective,
    examples: &dyn Examples,
    layers: &[Layer],
    directions: &[Vec<Tensor>],
) -> crate::objective::Result<Vec<f64>> {
    let blocks = directions
        .iter()
        .map(|d| d.iter().map(|t| t.unsqueeze(0)).collect())
        .collect::<candle_core::Result<Vec<Vec<Tensor>>>>()?;
    let requests =
        layers.iter().zip(&blocks).map(|(layer, vectors)| LayerVectors { layer, vectors });
    objective.quadratic_forms(examples, &requests.collect::<Vec<_>>(), Matrix::Hessian)
}

fn subset(all: &Predictions, of: &[usize]) -> crate::objective::Result<Predictions> {
    Ok(all.subset(of)?)
}
