//! Finds where a model overfits: ΔL and κ of every layer, with standard errors, ties and a plan.
//!
//! ΔL_ℓ = φ(0) − φ(α*) for φ(α) = L^V(w_ℓ − α g_ℓ), where α* is the first local minimum of φ; κ_ℓ =
//! ΔL_ℓ/‖Δw‖². The line along the gradient is that of PoF's Fig. 1, restricted to one layer (Sato
//! et al., ICML 2022).
//!
//! V is split into two stratified folds. Direction and α* come from one fold, the gap is measured
//! on the other, and both assignments are averaged.

mod assemble;
pub mod findings;
mod fold;
mod forecast;
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
pub use options::{DiagnoseOptions, EstimatorName};
pub use plan_file::{Error as PlanError, SCHEMA as DIAGNOSIS, read_plan};
pub use session::{DiagnoseSession, Diagnosed};

use crate::curvature::Result;
use crate::data::folds::stratified_halves;
use crate::diagnose::findings::Findings;
use crate::diagnose::spectrum::Spectrum;
use crate::evaluate::losses;
use crate::models::Layer;
use crate::models::layers::join;
use crate::objective::{Examples, LayerVectors, Matrix, Objective};
use crate::predictions::Predictions;
use assemble::{assemble, model_loss};
use candle_core::Tensor;
use fold::{Fold, Measured, mean, measure};

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasureOptions {
    /// How each layer's Δw is found.
    pub estimator: Estimator,
    /// Which spectral quantities to measure, if any.
    pub spectrum: Option<spectrum::SpectrumOptions>,
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

/// Both folds' measurements of one layer.
type Pair = [Measured; 2];

/// All results of one layer.
struct Found<'a> {
    layer: &'a Layer,
    pair: Pair,
    spectra: Vec<Spectrum>,
}

/// Measures every layer. Operands of matrix products are not rounded, whatever the objective's
/// precision. Calls `done` with a layer's name after measuring it.
///
/// # Errors
/// Those of evaluating the model; [`crate::objective::Error::NoExamples`] if a fold is empty.
pub fn diagnose(request: &Request, done: &mut dyn FnMut(&str)) -> Result<Findings> {
    let &Request { validation, layers, ref options, .. } = request;
    // Differences of losses along a line are smaller than bf16 rounding.
    let objective = &request.objective.exact();
    let halves = stratified_halves(validation.labels(), request.seed);
    let folds = [halves.0, halves.1];
    if folds.iter().any(Vec::is_empty) {
        return Err(crate::objective::Error::NoExamples.into());
    }
    let mut fold_of = vec![0; validation.len()];
    folds[1].iter().for_each(|&i| fold_of[i] = 1);

    let mut order: Vec<&Layer> = layers.iter().collect();
    order.sort_by_key(|l| l.first_stage);
    let lowest = order.first().map_or(0, |layer| layer.first_stage);
    let mut at = objective.activations_on_device(validation, lowest)?;
    let base = objective.predict(&at)?;
    let parts = [at.select(&folds[0])?, at.select(&folds[1])?];
    let bases = [subset(&base, &folds[0])?, subset(&base, &folds[1])?];
    // One backward pass per fold gives every layer's direction, another its curvature.
    let joint = join(layers);
    let (mut directions, mut curvatures) = (Vec::with_capacity(2), Vec::with_capacity(2));
    for part in &parts {
        let gradient = objective.gradient(part, &joint)?.gradient;
        let of_layers = directions_of(&order, &joint, &gradient);
        curvatures.push(curvatures_along(objective, part, &order, &of_layers)?);
        directions.push(of_layers);
    }
    drop(parts);

    let mut results = Vec::new();
    for (l, layer) in order.into_iter().enumerate() {
        if layer.first_stage > at.stage {
            // One forward pass per image serves all layers.
            at = objective.activations_on_device(&at, layer.first_stage)?;
        }
        let parts = [at.select(&folds[0])?, at.select(&folds[1])?];
        let one = |own: usize| -> Result<Measured> {
            let fold = Fold {
                own: &parts[own],
                other: &parts[1 - own],
                own_base: &bases[own],
                other_base: &bases[1 - own],
            };
            let along = (&directions[own][l][..], curvatures[own][l]);
            measure(objective, layer, &fold, along, options.estimator)
        };
        let pair = [one(0)?, one(1)?];
        drop(parts);
        let mut spectra = Vec::new();
        if let Some(settings) = &options.spectrum {
            for &matrix in &settings.matrices {
                spectra.push(spectrum::spectrum(objective, &at, layer, matrix, settings)?);
            }
        }
        results.push(Found { layer, pair, spectra });
        done(&layer.name);
    }
    let training = match request.training {
        Some(examples) => {
            let loss = mean(&losses(&objective.predict(examples)?, 1.0));
            Some((loss, examples.len()))
        }
        None => None,
    };
    let loss = model_loss(&base, &bases, &fold_of, &folds, training);
    assemble(objective, results, loss, &folds, &fold_of)
}

/// Splits the gradient of `joint` into one gradient per layer.
fn directions_of(layers: &[&Layer], joint: &Layer, gradient: &[Tensor]) -> Vec<Vec<Tensor>> {
    let own = |layer: &&Layer| {
        let places = layer.tensors.iter().filter_map(|i| joint.tensors.binary_search(i).ok());
        places.map(|k| gradient[k].clone()).collect()
    };
    layers.iter().map(own).collect()
}

/// gᵀHg of every layer along its direction.
fn curvatures_along(
    objective: &Objective,
    examples: &dyn Examples,
    layers: &[&Layer],
    directions: &[Vec<Tensor>],
) -> crate::objective::Result<Vec<f64>> {
    let blocks = directions
        .iter()
        .map(|d| d.iter().map(|t| t.unsqueeze(0)).collect())
        .collect::<candle_core::Result<Vec<Vec<Tensor>>>>()?;
    let requests =
        layers.iter().zip(&blocks).map(|(&layer, vectors)| LayerVectors { layer, vectors });
    objective.quadratic_forms(examples, &requests.collect::<Vec<_>>(), Matrix::Hessian)
}

fn subset(all: &Predictions, of: &[usize]) -> crate::objective::Result<Predictions> {
    Ok(all.subset(of)?)
}
