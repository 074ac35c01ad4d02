//! Measures the layers of a model on V.

use super::findings::Findings;
use super::groups::{MOST, groups, size};
use super::{Estimator, MeasureOptions, Request, diagnose, usable};
use crate::checkpoint::Checkpoint;
use crate::curvature::{LayerOperator, LinearOperator};
use crate::data::{Role, Roles, require};
use crate::error::{Error, Result};
use crate::forecast::{
    Calibration, Need, Operations, calibrate, diagnose_work, lower, start_within,
};
use crate::models::{Layer, cost};
use crate::objective::{Examples, Matrix, Objective};
use crate::pixels::Pixels;
use crate::session::{Context, note_few, objective, pixels, sample};
use candle_core::DType;

const MIB: f64 = (1 << 20) as f64;

/// A model with the images it is measured on.
pub struct Measurer {
    /// The model at w*.
    pub objective: Objective,
    /// V.
    pub validation: Pixels,
    training: Option<Pixels>,
    /// Number of training images available, measured or not.
    pub train_images: usize,
}

impl Measurer {
    /// Loads V and an equal number of training images.
    ///
    /// # Errors
    /// No V, unreadable images, or a model that cannot be evaluated.
    pub fn new(
        checkpoint: &Checkpoint,
        roles: &Roles,
        samples: Option<usize>,
        context: &Context,
    ) -> Result<Self> {
        let val = require(Role::Val, roles.val.as_ref())?;
        note_few(val, samples, context);
        let v = sample(val, samples, context.seed)?;
        let validation = pixels(checkpoint, &v)?;
        let training = match &roles.train {
            Some(split) => {
                let n = v.len().min(split.len());
                Some(pixels(checkpoint, &sample(split, Some(n), context.seed)?)?)
            }
            None => None,
        };
        let objective = objective(checkpoint, DType::F32, context.engine)?;
        let train_images = roles.train.as_ref().map_or(0, |s| s.len());
        Ok(Self { objective, validation, training, train_images })
    }

    /// The same images with other weights.
    pub fn at(&self, objective: Objective) -> Self {
        Self {
            objective,
            validation: self.validation.clone(),
            training: self.training.clone(),
            train_images: self.train_images,
        }
    }

    /// Time and memory needed to measure these layers with default options.
    pub fn need(&self, layers: &[Layer], found: &Calibration) -> Need {
        self.need_of(self.validation.len(), layers, &MeasureOptions::default(), found)
    }

    /// The same for a given number of images of V, along gradients, without spectra.
    pub fn need_of(
        &self,
        images: usize,
        layers: &[Layer],
        options: &MeasureOptions,
        found: &Calibration,
    ) -> Need {
        let network = &self.objective.network;
        let (basis, repeats) = (usable(options.basis, &self.objective), options.repeats);
        let groups = groups(network, layers, options.gradient_sets(basis), MOST);
        let work = diagnose_work(network, &groups, repeats, options.measures_raw_too(basis));
        let seconds = found.seconds(work, images);
        let passing = found.resident_mib + found.wave_mib;
        let held = self.held_mib(images, layers, options);
        Need { seconds, mib: found.peak_mib.max(passing + held) }
    }

    /// The same for given options. Assumes that no iteration stops early.
    pub fn need_with(
        &self,
        layers: &[Layer],
        options: &MeasureOptions,
        found: &Calibration,
    ) -> Need {
        let plain = self.need_of(self.validation.len(), layers, options, found);
        let newton = match options.estimator {
            Estimator::Line => 0,
            // Per fold, which has half of the images.
            Estimator::Newton { iterations, .. } => options.repeats * iterations,
        };
        let products = newton + options.spectrum.as_ref().map_or(0, |s| s.products());
        let network = &self.objective.network;
        let hvp = products as f64 * layers.iter().map(|l| cost::hvp(network, l)).sum::<f64>();
        let work = Operations { hvp, ..Operations::default() };
        let numbers = |l: &Layer| -> usize {
            l.tensors.iter().map(|&i| self.objective.weights.tensor(i).elem_count()).sum()
        };
        let largest = layers.iter().map(numbers).max().unwrap_or(0);
        let one = layers.iter().max_by_key(|l| numbers(l));
        let held = one.map_or(0.0, |layer| {
            let operator =
                LayerOperator::new(&self.objective, &self.validation, layer, Matrix::Hessian);
            match (&options.spectrum, options.estimator) {
                (Some(s), _) => {
                    let held = s.held_mib(largest);
                    held + operator.mib(operator.within((s.room - held).max(0.0)).block())
                }
                // Gradient, step, residual, direction and its product.
                (None, Estimator::Newton { .. }) => operator.held_mib(5),
                (None, Estimator::Line) => 0.0,
            }
        });
        let seconds = found.seconds(work, self.validation.len());
        Need { seconds: plain.seconds + seconds, mib: plain.mib + held }
    }

    /// The same model and training images with fewer images of V. Larger samples contain smaller
    /// ones, up to rounding per class.
    ///
    /// # Errors
    /// Unreadable images.
    pub fn with_images(
        &self,
        checkpoint: &Checkpoint,
        roles: &Roles,
        n: usize,
        context: &Context,
    ) -> Result<Self> {
        let v = sample(require(Role::Val, roles.val.as_ref())?, Some(n), context.seed)?;
        let same = self.at(self.objective.clone());
        Ok(Self { validation: pixels(checkpoint, &v)?, ..same })
    }

    /// Memory held besides the passes themselves, in MiB: the images at a layer's input, in three
    /// copies; the gradients on all halves; the moved layer, its direction and product, and the points of the
    /// line.
    pub fn held_mib(&self, images: usize, layers: &[Layer], options: &MeasureOptions) -> f64 {
        let network = &self.objective.network;
        let sets = options.gradient_sets(usable(options.basis, &self.objective));
        let input_len = |layer: &Layer| {
            network.activation_len(0).max(network.activation_len(layer.first_stage))
        };
        let widest = layers.iter().map(input_len).max().unwrap_or(0);
        let largest = layers.iter().map(|layer| size(network, layer)).max().unwrap_or(0);
        let groups = groups(network, layers, sets, MOST);
        let together = |group: &Vec<Layer>| group.iter().map(|layer| size(network, layer)).sum();
        let group: usize = groups.iter().map(together).max().unwrap_or(0);
        // Above the blocks, a pass holds almost nothing once all of V has been computed up to
        // there. Below, memory holds V, its two halves, and freed blocks of another size that the
        // allocator keeps from the previous stage.
        let linear = layers.iter().all(|layer| self.objective.network.is_linear_in(layer));
        let copies = if linear { 1 } else { 3 };
        let floats = copies * images * widest + sets * group + 3 * largest;
        floats as f64 * 4.0 / MIB
    }

    /// Rates and memory, for up to half of V: the number of images that derivatives are computed
    /// on.
    fn rates(&self, layers: &[Layer]) -> Result<Calibration> {
        let half = self.validation.len().div_ceil(2);
        Ok(calibrate(&self.objective, &self.validation, half, layers)?)
    }

    /// Measures this machine's speed on the model. With a memory limit, lowers the micro-batch size
    /// until the total fits.
    ///
    /// # Errors
    /// A limit that is exceeded even with one image per thread.
    pub fn calibrate(&mut self, layers: &[Layer], limit_mib: Option<f64>) -> Result<Calibration> {
        if let Some(limit) = limit_mib {
            start_within(&mut self.objective, limit);
        }
        let mut found = self.rates(layers)?;
        let Some(limit) = limit_mib else { return Ok(found) };
        loop {
            let need = self.need(layers, &found).mib;
            if need <= limit {
                return Ok(found);
            }
            if !lower(&mut self.objective) {
                return Err(Error::Memory(format!(
                    "`memory`: {} images need about {need:.0} MiB even with one image per thread \
                     and activation checkpointing; the limit is {limit:.0} MiB; lower `samples` or \
                     `threads`, or raise the limit",
                    self.validation.len()
                )));
            }
            let again = self.rates(layers)?;
            found = Calibration { peak_mib: found.peak_mib, ..again };
        }
    }

    /// Measures the layers.
    ///
    /// # Errors
    /// Those of [`diagnose`].
    pub fn measure(
        &self,
        layers: &[Layer],
        options: &MeasureOptions,
        context: &Context,
    ) -> Result<Findings> {
        let progress = context.task("diagnose", layers.len() as u64, "layers");
        let request = Request {
            training: self.training.as_ref().map(|t| t as &dyn Examples),
            options: options.clone(),
            ..Request::new(&self.objective, &self.validation, layers, context.seed)
        };
        Ok(diagnose(&request, &mut |name| {
            progress.status(name);
            progress.advance(1);
        })?)
    }
}
