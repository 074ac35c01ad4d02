//! One calibration, from its options to the written and measured checkpoint.

use super::head::{calibrated, head, one_linear_layer};
use super::laplace::{Laplace, best};
use super::{Map, Scaling, fit_scaling};
use crate::checkpoint::{Checkpoint, Provenance};
use crate::data::folds::stratified_halves;
use crate::data::{DamagedFile, DataOptions, Role, Roles, Split, require};
use crate::error::{Error, Result};
use crate::evaluate::{
    Bound, Estimate, Score, Scores, Sets, ece_of, hits, losses, mean_stderr, null_ece, paired, sets,
};
use crate::models::Layer;
use crate::objective::{Activations, Examples, Objective};
use crate::options::check;
use crate::post_train::result::{BeforeAfter, Output};
use crate::post_train::score::{Pair, before_after};
use crate::post_train::{Destination, Place, read_back};
use crate::predictions::Predictions;
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::{chosen_before, step_on_v};
use crate::session::{Context, Counted, Data, data_info, objective, pixels};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Options of calibration. These are also the flags of `calibrate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Calibration options"))]
pub struct CalibrateOptions {
    /// How logits are mapped
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value = "temperature"))]
    pub method: Scaling,
    /// Also compute conformal prediction sets that miss the label with this probability.
    ///
    /// Half of the validation images then determine the calibration, and the other half the
    /// thresholds of LAC, APS and RAPS. Coverage and size of the sets are measured on test.
    #[cfg_attr(feature = "cli", arg(long, value_name = "ALPHA", allow_negative_numbers = true))]
    pub conformal: Option<f64>,
    /// Also measure the last-layer Laplace approximation of the checkpoint as given.
    ///
    /// A Gaussian posterior over the head's weights, fitted on the training images, flattens the
    /// probabilities of images unlike the training images. No weights change. Its figures are shown
    /// beside those of the calibrated checkpoint. The prior precision is chosen on the validation images.
    #[cfg_attr(feature = "cli", arg(long))]
    pub laplace: bool,
}

impl CalibrateOptions {
    /// Rejects values out of range.
    ///
    /// # Errors
    /// The first invalid option.
    pub fn check(&self) -> std::result::Result<(), crate::options::Error> {
        match self.conformal {
            None => Ok(()),
            Some(alpha) => {
                check::positive("conformal", alpha).and_then(|()| check::share("conformal", alpha))
            }
        }
    }
}

/// A calibration, ready to run.
pub struct CalibrateSession {
    /// The options.
    pub options: CalibrateOptions,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub data: Data,
    /// Validation and test images.
    pub roles: Roles,
    destination: Destination,
    model: Objective,
    head: Layer,
    seed: u64,
}

/// Expected calibration errors that perfectly calibrated models of equal confidences would have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NullEce {
    /// With the confidences before calibration.
    pub before: f64,
    /// With those after it.
    pub after: f64,
}

/// The result of a calibration.
pub struct Calibrated {
    /// The map.
    pub map: Map,
    /// Number of images that it was fitted on.
    pub fitted_on: usize,
    /// The file that was written.
    pub output: Option<Output>,
    /// On V. The map was fitted on these images.
    pub validation: BeforeAfter,
    /// Gain in NLL on V if each half is mapped by the fit on the other.
    pub cross_fit_gain: Option<Estimate>,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// Of test, or of V without test.
    pub null_ece: NullEce,
    /// Conformal sets on test, before calibration and after it.
    pub conformal: Option<[Vec<Sets>; 2]>,
    /// Last-layer Laplace approximation of the checkpoint as given.
    pub laplace: Option<LaplaceFigures>,
    /// Damaged image files that were used as decoded.
    pub damaged: Vec<DamagedFile>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Last-layer Laplace approximation of the checkpoint before calibration. Losses are in nats per
/// image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaplaceFigures {
    /// Number of training images that determine the posterior.
    pub training_images: usize,
    /// δ, with the lowest loss on V.
    pub prior_precision: f64,
    /// Whether this is an end of the tried range, so that the best δ may lie outside.
    pub prior_precision_at_bound: bool,
    /// Loss on V, δ of each half chosen on the other; `None` if a half is empty.
    pub validation_nll: Option<Estimate>,
    /// On test.
    pub test: Option<LaplaceOnTest>,
}

/// Figures of Laplace predictions on test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaplaceOnTest {
    /// Loss.
    pub nll: Estimate,
    /// Fraction of images whose label is the most probable class.
    pub top1: Estimate,
    /// Expected calibration error.
    pub ece: Estimate,
    /// Expected calibration error that a perfectly calibrated model of equal confidences would have.
    pub null_ece: f64,
    /// Paired difference of NLL: the checkpoint as given − Laplace.
    pub nll_gain: Estimate,
    /// Paired difference of NLL: the calibrated checkpoint − Laplace. Above 0, Laplace is better.
    pub gain_over_calibrated: Estimate,
}

impl CalibrateSession {
    /// Opens and checks everything.
    ///
    /// # Errors
    /// Invalid options, data without validation images, an output that cannot be written, or a head
    /// that is not linear.
    pub fn prepare(
        options: &CalibrateOptions,
        checkpoint: Checkpoint,
        data: &DataOptions,
        place: &Place,
        context: &Context,
    ) -> Result<Self> {
        options.check()?;
        let destination = place.open(&checkpoint, "calibrate", context)?;
        let data = Data::open(data, &checkpoint)?;
        let mut roles = data.roles(&checkpoint, context.seed)?;
        let v = require(Role::Val, roles.val.as_ref())?;
        roles.notes.extend(chosen_before(&checkpoint, v));
        roles.notes.iter().for_each(|note| context.note(note));
        if options.conformal.is_some() {
            require(Role::Test, roles.test.as_ref())?;
        }
        if options.laplace {
            require(Role::Train, roles.train.as_ref())?;
            one_linear_layer(&checkpoint.network)?;
        }
        let head = head(&checkpoint.network)?;
        destination.check_space(&checkpoint, &head)?;
        let model = objective(&checkpoint, DType::F32, context.engine)?;
        let (options, seed) = (options.clone(), context.seed);
        Ok(Self { options, checkpoint, data, roles, destination, model, head, seed })
    }

    /// Fits the map, folds it into the head, writes the checkpoint and measures it.
    ///
    /// # Errors
    /// Unreadable images, logits that are not finite, or a file that cannot be written.
    pub fn run(&self, context: &Context) -> Result<Calibrated> {
        let CalibrateOptions { method, conformal, laplace } = self.options;
        let val = require(Role::Val, self.roles.val.as_ref())?;
        let (features, before) = self.features(val, context)?;
        let (first, second) = halves(&before, self.seed);
        // Thresholds need images that did not choose the map.
        let fitted = match (conformal, &first) {
            (None, _) => before.clone(),
            (Some(_), Some(half)) => before.subset(half)?,
            (Some(_), None) => return Err(too_few(val)),
        };
        let map = fit_scaling(&fitted, method)?;
        if map.temperature.bound == Some(Bound::Guessing) {
            return Err(Error::Refused(format!(
                "temperature: {}; nothing was written, because the head would become uniform: check \
                 the classes and the preprocessing",
                Bound::Guessing.note()
            )));
        }
        let weights = calibrated(&self.checkpoint.network, &self.checkpoint.weights, &map)?;
        let stored = self.checkpoint.as_stored(&weights)?;
        let saved = self.destination.save(
            &self.checkpoint,
            &weights,
            &self.provenance(&map, fitted.images(), val)?,
        )?;
        let tuned = match &saved {
            Some(saved) => self.model.at(read_back(&self.checkpoint, saved)?),
            None => self.model.at(stored),
        };
        let on_v = [before, tuned.predict(&features)?];
        let posterior = match laplace {
            true => Some(self.posterior(&features, &on_v[0], [&first, &second], context)?),
            false => None,
        };
        drop(features);
        let info = data_info(self.data.of(val), val, &self.roles.val_origin);
        let validation = before_after(&on_v, None, info, self.seed)?;
        let mut laplace = posterior.as_ref().map(|(_, figures)| figures.clone());
        let on_test = match &self.roles.test {
            None => None,
            Some(split) => {
                let (features, before) = self.features(split, context)?;
                let own = [before, tuned.predict(&features)?];
                if let (Some((posterior, found)), Some(figures)) = (&posterior, &mut laplace) {
                    let predicted =
                        posterior.predict(&features.values, &own[0], found.prior_precision)?;
                    figures.test = Some(laplace_on_test(&predicted, &own, self.seed)?);
                }
                Some(own)
            }
        };
        let test = match (&self.roles.test, &on_test) {
            (Some(split), Some(own)) => {
                let info = data_info(self.data.of(split), split, "test");
                Some(before_after(own, Some(&on_v), info, self.seed)?)
            }
            _ => None,
        };
        let null = on_test.as_ref().unwrap_or(&on_v);
        let [before, after] = [0, 1].map(|i| null_ece(&Scores::at(&null[i], |_| 1.0), self.seed));
        let damaged = self.data.damaged();
        let mut notes = self.roles.notes.clone();
        notes.extend(self.notes(&map, test.as_ref().unwrap_or(&validation)));
        notes.extend(damage_note(&damaged));
        if self.roles.test.is_none() {
            notes.push(
                "there are no test images: the figures are those of V, on which the map was fitted, \
                 and are optimistic"
                    .into(),
            );
        }
        if laplace.as_ref().is_some_and(|figures| figures.prior_precision_at_bound) {
            notes.push(
                "laplace: the best prior precision is at an end of the tried range, 1e-4 to 1e4"
                    .into(),
            );
        }
        if let Some(saved) = &saved {
            notes.extend(self.checkpoint.format_note(&saved.path));
            notes.extend(self.checkpoint.unstored_options_note(&saved.path));
        }
        let conformal = match (conformal, &on_test, &second) {
            (Some(alpha), Some(test), Some(half)) => {
                Some(self.conformal(alpha, &on_v, half, test)?)
            }
            _ => None,
        };
        Ok(Calibrated {
            cross_fit_gain: self.cross_fit_gain(&on_v[0], first, second)?,
            null_ece: NullEce { before, after },
            fitted_on: fitted.images(),
            output: saved.map(Output::from),
            conformal,
            laplace,
            map,
            validation,
            test,
            damaged,
            notes,
        })
    }

    /// Inputs of the head for all images of a split, and the logits.
    fn features(&self, split: &Split, context: &Context) -> Result<(Activations, Predictions)> {
        let images = pixels(&self.checkpoint, split)?;
        let task = context.task("evaluating", images.len() as u64, "images");
        let counted = Counted { examples: &images, task: &task };
        let features = self.model.activations_on_device(&counted, self.head.first_stage)?;
        let logits = self.model.predict(&features)?;
        Ok((features, logits))
    }

    /// Gain in NLL on V, each half mapped by the fit on the other; `None` if a half is empty.
    fn cross_fit_gain(
        &self,
        on_v: &Predictions,
        first: Option<Vec<usize>>,
        second: Option<Vec<usize>>,
    ) -> Result<Option<Estimate>> {
        let (Some(first), Some(second)) = (first, second) else { return Ok(None) };
        let (mut plain, mut mapped) = (Vec::new(), Vec::new());
        for [of, from] in [[&first, &second], [&second, &first]] {
            let own = on_v.subset(of)?;
            let map = fit_scaling(&on_v.subset(from)?, self.options.method)?;
            plain.extend(losses(&own, 1.0));
            mapped.extend(losses(&map.apply(&own)?, 1.0));
        }
        Ok(Some(paired(&plain, &mapped)?))
    }

    /// The posterior from the training images, and its figures on V.
    fn posterior(
        &self,
        on_v: &Activations,
        logits: &Predictions,
        halves: [&Option<Vec<usize>>; 2],
        context: &Context,
    ) -> Result<(Laplace, LaplaceFigures)> {
        let train = require(Role::Train, self.roles.train.as_ref())?;
        let posterior = {
            let (features, logits) = self.features(train, context)?;
            Laplace::fit(&features.values, &logits)?
        };
        let grid = posterior.losses_on_grid(&on_v.values, logits)?;
        let all: Vec<usize> = (0..logits.images()).collect();
        let chosen = best(&grid, &all);
        let validation_nll = match halves {
            [Some(first), Some(second)] => {
                let mut own = Vec::new();
                for [of, from] in [[first, second], [second, first]] {
                    let chosen = &grid[best(&grid, from)].1;
                    own.extend(of.iter().map(|&i| chosen[i]));
                }
                Some(mean_stderr(&own))
            }
            _ => None,
        };
        let figures = LaplaceFigures {
            training_images: train.len(),
            prior_precision: grid[chosen].0,
            prior_precision_at_bound: chosen == 0 || chosen + 1 == grid.len(),
            validation_nll,
            test: None,
        };
        Ok((posterior, figures))
    }

    /// Sets on test with thresholds from the second half of V, before and after calibration.
    fn conformal(
        &self,
        alpha: f64,
        on_v: &Pair,
        half: &[usize],
        test: &Pair,
    ) -> Result<[Vec<Sets>; 2]> {
        let of = |i: usize| -> Result<Vec<Sets>> {
            let held_out = on_v[i].subset(half)?;
            let one = |score| sets(&test[i], &held_out, score, alpha, self.seed);
            Ok(Score::ALL.into_iter().map(one).collect())
        };
        Ok([of(0)?, of(1)?])
    }

    fn provenance(&self, map: &Map, images: usize, val: &Split) -> Result<Provenance> {
        let settings = json!({
            "method": self.options.method.name(),
            "temperature": map.temperature.temperature,
            "fitted_on": images,
        });
        let update = vec![self.head.name.clone()];
        step_on_v(&self.checkpoint, "calibrate".into(), update, &settings, val, self.seed)
    }

    fn notes(&self, map: &Map, judged: &BeforeAfter) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(bound) = map.temperature.bound {
            notes.push(format!("temperature: {}", bound.note()));
        }
        if map.structured.as_ref().is_some_and(|found| !found.converged) {
            notes.push(
                "the fit did not converge; the map is the best that was found, and may not be the \
                 minimum"
                    .into(),
            );
        }
        if let (Scaling::Temperature, Some(flips)) = (self.options.method, &judged.flips)
            && flips.fixed + flips.broken > 0
        {
            notes.push(format!(
                "{} predictions changed, although a temperature keeps their order: the stored type \
                 {} rounds logits to ties",
                flips.fixed + flips.broken,
                self.checkpoint.dtype
            ));
        }
        notes
    }
}

/// Positions of two stratified halves; `None` if one would be empty.
fn halves(of: &Predictions, seed: u64) -> (Option<Vec<usize>>, Option<Vec<usize>>) {
    let (first, second) = stratified_halves(of.labels(), seed);
    match first.is_empty() || second.is_empty() {
        true => (None, None),
        false => (Some(first), Some(second)),
    }
}

/// Laplace predictions on test beside the checkpoint before and after calibration.
fn laplace_on_test(predicted: &Predictions, own: &Pair, seed: u64) -> Result<LaplaceOnTest> {
    let scores = Scores::at(predicted, |_| 1.0);
    let [before, after] = [0, 1].map(|i| losses(&own[i], 1.0));
    Ok(LaplaceOnTest {
        nll: mean_stderr(&scores.nll),
        top1: mean_stderr(&hits(predicted, 1)),
        ece: ece_of(&scores),
        null_ece: null_ece(&scores, seed),
        nll_gain: paired(&before, &scores.nll)?,
        gain_over_calibrated: paired(&after, &scores.nll)?,
    })
}

fn too_few(val: &Split) -> Error {
    Error::Missing(format!(
        "`conformal` needs two halves of the validation images, and there are {}: use more images",
        val.len()
    ))
}
