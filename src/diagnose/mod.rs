//! Finds where a model overfits: ΔL and κ of every layer, with standard errors, ties and a plan.
//!
//! ΔL_ℓ = φ(0) − φ(α*) for φ(α) = L^V(w_ℓ − α g_ℓ), where α* is the first local minimum of φ; κ_ℓ =
//! ΔL_ℓ/‖Δw‖². The line along the gradient is that of PoF's Fig. 1, restricted to one layer (Sato
//! et al., ICML 2022).
//!
//! V is split into two stratified folds. Direction and α* come from one fold, the gap is measured
//! on the other, and both assignments are averaged. This is repeated with other halves.
//!
//! By default, a temperature T is fitted on a fold and folded into the head (W/T, b/T) before the layer is
//! moved: [`Basis::Calibrated`]. ΔL is then what the layer adds to a temperature.

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
pub use options::{Basis, DiagnoseOptions, EstimatorName, REPEATS};
pub use plan_file::{Error as PlanError, SCHEMA as DIAGNOSIS, read_plan};
pub use session::{DiagnoseSession, Diagnosed};

use crate::curvature::Result;
use crate::diagnose::findings::Findings;
use crate::diagnose::halvings::Halvings;
use crate::diagnose::spectrum::Spectrum;
use crate::evaluate::{fit, losses};
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
    /// The loss that layers are measured by. [`Basis::Raw`] is used where the head is not linear.
    pub basis: Basis,
    /// With [`Basis::Calibrated`], whether the raw loss is measured too, in one halving.
    pub raw_too: bool,
    /// How each layer's Δw is found.
    pub estimator: Estimator,
    /// Ways to halve V, at least 1 and at most [`halvings::MOST_REPEATS`].
    pub repeats: usize,
    /// Which spectral quantities to measure, if any.
    pub spectrum: Option<spectrum::SpectrumOptions>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        let (basis, estimator) = (Basis::default(), Estimator::default());
        Self { basis, raw_too: true, estimator, repeats: REPEATS, spectrum: None }
    }
}

impl MeasureOptions {
    /// Whether the raw loss is measured beside that of the basis.
    fn measures_raw_too(&self, basis: Basis) -> bool {
        self.raw_too && basis == Basis::Calibrated
    }

    /// How many gradients of each layer are held: one per half of every halving, and those of the raw loss.
    fn gradient_sets(&self, basis: Basis) -> usize {
        2 * (self.repeats + usize::from(self.measures_raw_too(basis)))
    }

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
    /// The raw loss in the first halving, if `pairs` are of another.
    raw: Option<Pair>,
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
    let basis = usable(options.basis, objective);
    let all = |r: usize| halvings.halves(r);
    let models = Models::new(objective, basis, &base, (0..halvings.repeats()).map(all).collect())?;
    let raw_models = match options.measures_raw_too(basis) {
        true => Some(Models::new(objective, Basis::Raw, &base, vec![all(0)])?),
        false => None,
    };
    let mut results = Vec::new();
    let sets = options.gradient_sets(basis);
    for group in groups::groups(&objective.network, layers, sets, most) {
        let directions = Directions::new(&models, &at, &group, true)?;
        let raw_directions = match &raw_models {
            Some(models) => Some(Directions::new(models, &at, &group, false)?),
            None => None,
        };
        for (l, layer) in group.into_iter().enumerate() {
            if layer.first_stage > at.stage {
                // One forward pass per image serves all layers.
                at = objective.activations_on_device(&at, layer.first_stage)?;
            }
            let measure = |models: &Models, directions: &Directions, r, length| {
                let direction = |half| directions.of((l, &layer), (r, half), length);
                models.measure(&at, &layer, r, [direction(0), direction(1)], options.estimator)
            };
            let mut pairs: Vec<Pair> = Vec::with_capacity(halvings.repeats());
            for r in 0..halvings.repeats() {
                let length = pairs.first().and_then(usual_length);
                pairs.push(measure(&models, &directions, r, length)?);
            }
            let raw = match (&raw_models, &raw_directions) {
                (Some(models), Some(directions)) => {
                    Some(measure(models, directions, 0, usual_length(&pairs[0]))?)
                }
                _ => None,
            };
            let mut spectra = Vec::new();
            if let Some(settings) = &options.spectrum {
                for &matrix in &settings.matrices {
                    spectra.push(spectrum::spectrum(objective, &at, &layer, matrix, settings)?);
                }
            }
            done(&layer.name);
            results.push(Found { layer, pairs, raw, spectra });
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
    let model = at_temperature(objective, basis.temperature(&base))?;
    let mut findings = assemble(&model, results, loss, &halvings, basis)?;
    findings.warnings.extend(few(validation.labels(), objective.network.classes(), &findings));
    if basis != options.basis {
        findings.warnings.push(
            "the head is not one linear layer with a bias, so a temperature cannot be folded into it; ΔL and κ are \
             measured without temperature scaling"
                .into(),
        );
    }
    Ok(findings)
}

/// Fewest images that a plan is made from without a warning.
const ENOUGH: usize = 200;

/// Warnings about a V that is too small, or that lacks classes.
fn few(labels: &[u32], classes: usize, findings: &Findings) -> Vec<String> {
    let mut out = Vec::new();
    let found: std::collections::HashSet<u32> = labels.iter().copied().collect();
    if found.len() < classes {
        let of = found.len();
        out.push(format!(
            "these images cover only {of} of the model's {classes} classes; the figures do not apply to the others"
        ));
    }
    if labels.len() < ENOUGH && findings.plan.is_some() {
        out.push(format!(
            "the plan is based on only {} images and may change with `seed`; use {ENOUGH} or more",
            labels.len()
        ));
    }
    out
}

/// The basis asked for, or [`Basis::Raw`] if a temperature cannot be folded into the head.
fn usable(basis: Basis, objective: &Objective) -> Basis {
    match objective.network.linear_head() {
        Some(_) => basis,
        None => Basis::Raw,
    }
}

/// The model with a temperature folded into its head: weight and bias of the head divided by T.
fn at_temperature(objective: &Objective, temperature: f64) -> Result<Objective> {
    if temperature == 1.0 {
        return Ok(objective.clone());
    }
    let mut changes = Vec::new();
    for i in objective.network.linear_head().into_iter().flatten().flatten() {
        let scaled = vector::scaled(&[objective.weights.tensor(i).clone()], 1.0 / temperature);
        let scaled = scaled.map_err(crate::objective::Error::from)?;
        changes.extend(scaled.into_iter().map(|tensor| (i, tensor)));
    }
    Ok(objective.at(objective.weights.with(&changes)))
}

/// The mean of both folds' ‖Δw‖, if both moved.
fn usual_length(pair: &Pair) -> Option<f64> {
    let moved = pair.iter().all(|m| m.displacement > 0.0);
    moved.then(|| (pair[0].displacement + pair[1].displacement) / 2.0)
}

/// The model on one basis, for both halves of each halving.
struct Models<'a> {
    objective: &'a Objective,
    base: &'a Predictions,
    /// Images of both halves, by halving.
    halves: Vec<[Vec<usize>; 2]>,
    /// Temperature of both halves, by halving.
    temperatures: Vec<[f64; 2]>,
}

impl<'a> Models<'a> {
    fn new(
        objective: &'a Objective,
        basis: Basis,
        base: &'a Predictions,
        halves: Vec<[Vec<usize>; 2]>,
    ) -> Result<Self> {
        let mut temperatures = Vec::with_capacity(halves.len());
        for [a, b] in &halves {
            let of = |half| -> Result<f64> { Ok(basis.temperature(&subset(base, half)?)) };
            temperatures.push([of(a)?, of(b)?]);
        }
        Ok(Self { objective, base, halves, temperatures })
    }

    /// Measures a layer in halving r, along the directions of both halves.
    fn measure(
        &self,
        at: &Activations,
        layer: &Layer,
        r: usize,
        directions: [Direction; 2],
        estimator: Estimator,
    ) -> Result<Pair> {
        let folds = &self.halves[r];
        let parts = [at.select(&folds[0])?, at.select(&folds[1])?];
        let bases = [subset(self.base, &folds[0])?, subset(self.base, &folds[1])?];
        let one = |half: usize, direction| -> Result<Measured> {
            let temperature = self.temperatures[r][half];
            let fold = Fold {
                own: &parts[half],
                other: &parts[1 - half],
                own_base: &bases[half],
                other_base: &bases[1 - half],
                temperature,
            };
            measure(
                &at_temperature(self.objective, temperature)?,
                layer,
                &fold,
                direction,
                estimator,
            )
        };
        let [a, b] = directions;
        Ok([one(0, a)?, one(1, b)?])
    }
}

impl Basis {
    /// The temperature that these logits are divided by.
    fn temperature(self, predictions: &Predictions) -> f64 {
        match self {
            Basis::Calibrated => fit(predictions).temperature,
            Basis::Raw => 1.0,
        }
    }
}

/// The gradients of some layers on both halves of each halving, and gᵀHg of each layer on those of the
/// first.
struct Directions {
    joint: Layer,
    /// By halving and half.
    gradients: Vec<[Vec<Tensor>; 2]>,
    /// By half and layer; empty if not requested.
    curvatures: Vec<Vec<f64>>,
}

impl Directions {
    /// One backward pass per half gives the gradients of all layers. Another with tangents, over the halves
    /// of the first halving, gives their curvatures.
    fn new(models: &Models, at: &Activations, layers: &[Layer], curved: bool) -> Result<Self> {
        let joint = join(layers);
        let (mut gradients, mut curvatures) = (Vec::new(), Vec::new());
        for (r, (folds, temperatures)) in models.halves.iter().zip(&models.temperatures).enumerate()
        {
            let mut of_half = |half: usize| -> Result<Vec<Tensor>> {
                let model = at_temperature(models.objective, temperatures[half])?;
                let part = at.select(&folds[half])?;
                let gradient = model.gradient(&part, &joint)?.gradient;
                if curved && r == 0 {
                    let own = |layer| of_layer(&joint, layer, &gradient);
                    let directions: Vec<Vec<Tensor>> = layers.iter().map(own).collect();
                    curvatures.push(curvatures_along(&model, &part, layers, &directions)?);
                }
                Ok(gradient)
            };
            gradients.push([of_half(0)?, of_half(1)?]);
        }
        Ok(Self { joint, gradients, curvatures })
    }

    /// Of a layer and its number, over one half of halving r, with the ‖Δw‖ to be expected.
    fn of(
        &self,
        (l, layer): (usize, &Layer),
        (r, half): (usize, usize),
        length: Option<f64>,
    ) -> Direction {
        let curvature = match r {
            0 => self.curvatures.get(half).map(|of_layers| of_layers[l]),
            _ => None,
        };
        let gradient = of_layer(&self.joint, layer, &self.gradients[r][half]);
        Direction { gradient, curvature, length }
    }
}

/// The part of a joint layer's gradient that belongs to one of its layers.
fn of_layer(joint: &Layer, layer: &Layer, gradient: &[Tensor]) -> Vec<Tensor> {
    let places = layer.tensors.iter().filter_map(|i| joint.tensors.binary_search(i).ok());
    places.map(|k| gradient[k].clone()).collect()
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
