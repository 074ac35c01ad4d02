//! One diagnosis, from its options to its figures.

use super::findings::Findings;
use super::ranking::{ConvergencePoint, Sampling};
use super::sampling::{SampledFindings, measure, sizes};
use super::{DiagnoseOptions, MeasureOptions, Measurer, post_training};
use crate::checkpoint::Checkpoint;
use crate::data::{DamagedFile, DataInfo, DataOptions, Role, Roles, require};
use crate::error::{Error, Result};
use crate::forecast::{Calibration, Expected, Forecast, Need, Part, Work};
use crate::memory;
use crate::models::Layer;
use crate::models::layers::join;
use crate::objective::{Examples, Objective};
use crate::options::Limit;
use crate::remedies::{RemedyFindings, RemedySession};
use crate::session::bad_samples::damage_note;
use crate::session::{Context, Data, data_info, note_few};

/// A diagnosis, ready to run.
pub struct DiagnoseSession {
    /// The options.
    pub options: DiagnoseOptions,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub data: Data,
    /// Training, validation and test images.
    pub roles: Roles,
    /// The layers to measure.
    pub layers: Vec<Layer>,
    measurer: Measurer,
    remedies: Option<RemedySession>,
    measured: MeasureOptions,
    /// Sizes of the samples of V, ending with the largest.
    sizes: Vec<usize>,
    rates: Calibration,
    /// Of everything but the remedies, and of the remedies.
    need: (Need, Option<Need>),
}

/// The result of a diagnosis.
pub struct Diagnosed {
    /// Measurements.
    pub findings: Findings,
    /// The images that they were made on.
    pub data: DataInfo,
    /// Damaged image files that were decoded in part and used.
    pub damaged: Vec<DamagedFile>,
    /// The same figures on growing subsets of V, if requested.
    pub convergence: Vec<ConvergencePoint>,
    /// Outcome of `until_stderr`.
    pub sampling: Option<Sampling>,
    /// Moves of layers along `remedies`, if requested.
    pub remedies: Option<RemedyFindings>,
    /// Time and memory of post-training on this machine, by method. Empty if only some of the
    /// layers were measured: their timings do not predict those of others.
    pub forecast: Vec<Forecast>,
    /// Operations of post-training, by method; independent of the machine.
    pub work: Vec<Work>,
}

impl DiagnoseSession {
    /// Opens everything, and measures the speed of this machine on the model.
    ///
    /// # Errors
    /// Invalid options; data without two validation images; a diagnosis that does not fit `limit`.
    pub fn prepare(
        options: &DiagnoseOptions,
        checkpoint: Checkpoint,
        data: &DataOptions,
        limit: Limit,
        context: &Context,
    ) -> Result<Self> {
        options.check()?;
        let data = Data::open(data, &checkpoint)?;
        let roles = data.roles_of_training(&checkpoint, context.seed)?;
        roles.notes.iter().for_each(|note| context.note(note));
        let (layers, unmerged) = options.layers_of(&checkpoint)?;
        let remedies = options.remedies_of(&checkpoint, &roles, (&layers, unmerged.is_some()))?;
        let v = require(Role::Val, roles.val.as_ref())?;
        note_few(v, options.samples, context);
        let most = options.samples.unwrap_or(usize::MAX).min(v.len());
        if most == 1 {
            let text = "cross-fitting needs at least two validation images, found one; add images or raise \
                        `samples`";
            return Err(Error::Missing(text.into()));
        }
        let sizes = sizes(most, options.convergence, options.until_stderr.is_some());
        let mut measurer = Measurer::new(&checkpoint, &roles, Some(most), context)?;
        if let Some((network, weights)) = unmerged {
            measurer = measurer.at(Objective::new(network.into(), weights, context.engine));
        }
        let rates = measurer.calibrate(&layers, limit.mib())?;
        let measured = options.measured(room_mib(limit), context.seed);
        let whole = measurer.need_with(&layers, &measured, &rates);
        let times = sizes.iter().sum::<usize>() as f64 / most.max(1) as f64;
        let measuring = Need { seconds: times * whole.seconds, ..whole };
        let moving = remedies.as_ref().map(|r| r.need(&measurer.objective, most, &rates));
        let mib = measuring.then(moving.unwrap_or_default()).mib;
        if let Some(limit) = limit.mib().filter(|limit| mib > *limit) {
            return Err(Error::Memory(format!(
                "`memory`: the diagnosis needs about {mib:.0} MiB, the limit is {limit:.0} MiB; omit `spectrum` \
                 or `density`, lower `repeats`, choose a finer `granularity`, or raise the limit"
            )));
        }
        let (options, need) = (options.clone(), (measuring, moving));
        Ok(Self {
            options,
            checkpoint,
            data,
            roles,
            layers,
            measurer,
            remedies,
            measured,
            sizes,
            rates,
            need,
        })
    }

    /// Number of validation images, at most.
    pub fn images(&self) -> usize {
        self.measurer.validation.len()
    }

    /// Whether [`DiagnoseSession::outlook`] is an upper bound: iterations or samples may stop early.
    pub fn may_stop_early(&self) -> bool {
        self.measured != MeasureOptions::default()
            || self.sizes.len() > 1
            || self.remedies.is_some()
    }

    /// Expected time and memory, after `elapsed` seconds.
    pub fn outlook(&self, elapsed: f64, context: &Context) -> Expected {
        let (measuring, moving) = self.need;
        let mib = measuring.then(moving.unwrap_or_default()).mib;
        let diagnosis = Need { mib, ..measuring.after(elapsed) };
        let mut parts = vec![Part::new("diagnosis", diagnosis)];
        parts.extend(moving.map(|moving| Part::new("remedies", moving)));
        let device_peak_mib = context.engine.expected_mib(0);
        Expected { device_peak_mib, ..Expected::of(parts) }
    }

    /// Measures the layers.
    ///
    /// # Errors
    /// Those of [`diagnose`](super::diagnose) and [`RemedySession::measure`]; unreadable images.
    pub fn run(&self, context: &Context) -> Result<Diagnosed> {
        let Self { options, checkpoint, roles, measurer, .. } = self;
        if options.convergence && self.sizes.len() == 1 {
            context.note("too few images for `convergence`");
        }
        let part = |n| measurer.with_images(checkpoint, roles, n, context);
        let SampledFindings { part, mut findings, samples, sampling } =
            measure(measurer, &part, &self.sizes, options.until_stderr, |on, whole| {
                let few;
                let how = if whole {
                    &self.measured
                } else {
                    few = self.measured.only_top();
                    &few
                };
                on.measure(&self.layers, how, context)
            })?;
        let damaged = self.data.damaged();
        findings.warnings.extend(damage_note(&damaged));
        let on = part.as_ref().unwrap_or(measurer);
        let remedies = match &self.remedies {
            Some(remedies) => Some(remedies.measure(&on.objective, &on.validation, context)?),
            None => None,
        };
        let (mut forecast, work) =
            post_training(&measurer.objective, measurer.train_images, &self.rates, &findings);
        if join(&self.layers).tensors.len() < checkpoint.network.params().len() {
            forecast.clear();
        }
        let split = on.validation.split();
        let data = data_info(self.data.of(split), split, &roles.val_origin);
        let convergence = samples;
        Ok(Diagnosed { findings, data, damaged, convergence, sampling, remedies, forecast, work })
    }
}

/// Memory available to the estimators, MiB.
fn room_mib(limit: Limit) -> f64 {
    match limit.mib() {
        Some(limit) => limit - memory::resident_mib().unwrap_or(0.0),
        None => 0.5 * memory::available_mib().unwrap_or(f64::INFINITY),
    }
}
