//! One merge, from its options to the written and measured checkpoint.

use super::formulas::{average, model_stock};
use super::ingredients::Error as MergeError;
use crate::checkpoint::{Checkpoint, Provenance};
use crate::data::{DamagedFile, DataOptions, Role, Roles, Split, require};
use crate::error::{Error, Result};
use crate::evaluate::{fit, hits, losses, mean_stderr};
use crate::models::Weights;
use crate::objective::Objective;
use crate::options::{Error as OptionError, check};
use crate::post_train::result::{BeforeAfter, Output};
use crate::post_train::score::before_after;
use crate::post_train::{Destination, Place, read_back};
use crate::predictions::Predictions;
use crate::pretrained::{Pretrained, check_same, interpolate, lines, unknown_classes};
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::step_on_v;
use crate::session::{Context, Data, data_info, held_out, objective, pixels, seen};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;

/// α of the curve: 0, 0.1 … 1.
const STEPS: usize = 10;

/// How weights are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum MergeMethod {
    /// WiSE-FT: one checkpoint and its pretrained weights, by one α
    Wise,
    /// LiNeS: the same, by an α that grows linearly from the first layer to 1 at the last
    Lines,
    /// uniform soup: the mean of the checkpoints
    Uniform,
    /// greedy soup: the mean of the checkpoints that help on V, the best first
    Greedy,
    /// Model Stock: the mean, moved towards the pretrained weights by the angle between checkpoints
    ModelStock,
}

impl MergeMethod {
    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            MergeMethod::Wise => "wise",
            MergeMethod::Lines => "lines",
            MergeMethod::Uniform => "uniform",
            MergeMethod::Greedy => "greedy",
            MergeMethod::ModelStock => "model-stock",
        }
    }

    fn has_alpha(self) -> bool {
        matches!(self, MergeMethod::Wise | MergeMethod::Lines)
    }

    fn needs_pretrained(self) -> bool {
        self.has_alpha() || self == MergeMethod::ModelStock
    }
}

/// Options of merging. These are also the flags of `merge`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Merging options"))]
pub struct MergeOptions {
    /// How weights are merged
    #[cfg_attr(feature = "cli", arg(long, value_enum))]
    pub method: MergeMethod,
    /// Weights before fine-tuning, for wise, lines and model-stock.
    ///
    /// If they have a head with other classes, or no head, the result keeps the fine-tuned head. The
    /// position embedding is resized to the image size. An adapter does not apply to it.
    #[cfg_attr(feature = "cli", arg(long, value_name = "CKPT0"))]
    pub pretrained: Option<PathBuf>,
    /// Share of the fine-tuned change that is kept, for wise and lines, from 0 (pretrained) to 1
    /// (fine-tuned) [default: the best of 0, 0.1 … 1 on V]
    #[cfg_attr(feature = "cli", arg(long, value_name = "A", allow_negative_numbers = true))]
    pub alpha: Option<f64>,
}

impl MergeOptions {
    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self, checkpoints: usize) -> Result<()> {
        let (method, name) = (self.method, self.method.name());
        let no_effect = |option: &str, applies_to: &str| OptionError::NoEffect {
            option: option.into(),
            applies_to: applies_to.into(),
        };
        match (&self.pretrained, method.needs_pretrained()) {
            (None, true) => {
                let text = format!(
                    "the method {name} needs the weights before fine-tuning: set `pretrained`"
                );
                return Err(OptionError::Conflict(text).into());
            }
            (Some(_), false) => {
                let applies_to = "the methods wise, lines and model-stock";
                return Err(no_effect("pretrained", applies_to).into());
            }
            _ => {}
        }
        if let Some(alpha) = self.alpha {
            if !method.has_alpha() {
                return Err(no_effect("alpha", "the methods wise and lines").into());
            }
            if alpha != 0.0 {
                check::up_to_one("alpha", alpha)?;
            }
        }
        let (fits, expected) = match method.has_alpha() {
            true => (checkpoints == 1, "one checkpoint with its pretrained weights"),
            false => (checkpoints >= 2, "two or more checkpoints"),
        };
        match fits {
            true => Ok(()),
            false => Err(MergeError::Count { method: name, expected, found: checkpoints }.into()),
        }
    }
}

/// A merge, ready to run.
pub struct MergeSession {
    /// The options.
    pub options: MergeOptions,
    /// The checkpoints; the result has the format of the first.
    pub checkpoints: Vec<Checkpoint>,
    /// The data sets.
    pub data: Data,
    /// Validation and test images.
    pub roles: Roles,
    pretrained: Option<Pretrained>,
    notes: Vec<String>,
    destination: Destination,
    model: Objective,
    seed: u64,
}

/// Figures of one model on V.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ingredient {
    /// The weights file.
    pub path: String,
    /// Its SHA-256.
    pub digest: String,
    /// NLL on V, nats.
    pub nll: f64,
    /// NLL on V at the temperature fitted on V.
    pub calibrated_nll: f64,
    /// Accuracy on V.
    pub top1: f64,
    /// Whether it is part of the result.
    pub used: bool,
}

/// The merged model at one α, on V.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// α.
    pub alpha: f64,
    /// NLL, nats.
    pub nll: f64,
    /// NLL at the temperature fitted on V.
    pub calibrated_nll: f64,
    /// Accuracy.
    pub top1: f64,
}

/// The result of a merge.
pub struct Merged {
    /// The checkpoints, in the order given.
    pub ingredients: Vec<Ingredient>,
    /// The models along α.
    pub curve: Vec<CurvePoint>,
    /// The α that was used.
    pub alpha: Option<f64>,
    /// The best checkpoint on V, with which the result is compared.
    pub best: usize,
    /// The file that was written.
    pub output: Option<Output>,
    /// On V. It chose α, or the checkpoints of a greedy soup.
    pub validation: BeforeAfter,
    /// On test.
    pub test: Option<BeforeAfter>,
    /// Damaged image files that were used as decoded.
    pub damaged: Vec<DamagedFile>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl MergeSession {
    /// Opens and checks everything.
    ///
    /// # Errors
    /// Invalid options, checkpoints that do not fit together, data without validation images, or an
    /// output that cannot be written.
    pub fn prepare(
        options: &MergeOptions,
        checkpoints: Vec<Checkpoint>,
        data: &DataOptions,
        place: &Place,
        context: &Context,
    ) -> Result<Self> {
        options.check(checkpoints.len())?;
        let Some((first, others)) = checkpoints.split_first() else {
            return Err(Error::Missing("there is no checkpoint to merge".into()));
        };
        for other in others {
            check_same(first, other).map_err(MergeError::from)?;
        }
        let mut notes: Vec<String> =
            others.iter().filter_map(|other| unknown_classes(first, other)).collect();
        let pretrained = match &options.pretrained {
            Some(path) => Some(Pretrained::open(path, first)?),
            None => None,
        };
        notes.extend(pretrained.iter().flat_map(|w0| w0.notes.iter().cloned()));
        let w0 = pretrained.as_ref().map(|w0| &w0.checkpoint);
        place.spare_inputs(checkpoints.iter().chain(w0).map(|input| &*input.path))?;
        let destination = place.open(first, "merge", context)?;
        let data = Data::open(data, first)?;
        let roles = data.roles(first, context.seed)?;
        if let (true, Some(held)) = (roles.held_out, held_out(first)) {
            notes.extend(others.iter().chain(w0).filter_map(|other| seen(other, &held)));
        }
        roles.notes.iter().chain(&notes).for_each(|note| context.note(note));
        require(Role::Val, roles.val.as_ref())?;
        let model = objective(first, DType::F32, context.engine)?;
        let (options, seed) = (options.clone(), context.seed);
        Ok(Self { options, checkpoints, data, roles, pretrained, notes, destination, model, seed })
    }

    /// Merges, writes the checkpoint and measures it.
    ///
    /// # Errors
    /// Unreadable images, logits that are not finite, or a file that cannot be written.
    pub fn run(&self, context: &Context) -> Result<Merged> {
        let first = &self.checkpoints[0];
        let val = require(Role::Val, self.roles.val.as_ref())?;
        let mut own = Vec::new();
        let mut ingredients = Vec::new();
        for checkpoint in &self.checkpoints {
            let logits = self.predict(&checkpoint.weights, val, context)?;
            let CurvePoint { nll, calibrated_nll, top1, .. } = point(1.0, &logits);
            let (path, digest) = (checkpoint.path.display().to_string(), checkpoint.digest.clone());
            let used = true;
            ingredients.push(Ingredient { path, digest, nll, calibrated_nll, top1, used });
            own.push(logits);
        }
        let mut order: Vec<usize> = (0..own.len()).collect();
        let loss = |i: &usize| ingredients[*i].calibrated_nll;
        order.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        let best = order[0];
        let all: Vec<&Weights> = self.checkpoints.iter().map(|c| &c.weights).collect();
        let (mut curve, mut alpha) = (Vec::new(), None);
        let weights = match (self.options.method, &self.pretrained) {
            (MergeMethod::Wise | MergeMethod::Lines, Some(_)) => {
                let found = self.along(val, context)?;
                curve = found.1;
                alpha = Some(found.0);
                self.at(found.0)?
            }
            (MergeMethod::ModelStock, Some(w0)) => model_stock(&all, &w0.weights, &w0.moved)?,
            (MergeMethod::Greedy, _) => {
                let kept = self.greedy(&order, &ingredients, val, context)?;
                for (i, ingredient) in ingredients.iter_mut().enumerate() {
                    ingredient.used = kept.contains(&i);
                }
                average(&kept.iter().map(|&i| all[i]).collect::<Vec<_>>())?
            }
            _ => average(&all)?,
        };
        let stored = first.as_stored(&weights)?;
        let provenance = self.provenance(alpha, &ingredients, val)?;
        let saved = self.destination.save(first, &weights, &provenance)?;
        let merged = match &saved {
            Some(saved) => read_back(&self.checkpoints[0], saved)?,
            None => stored,
        };
        let on_v = [own.swap_remove(best), self.predict(&merged, val, context)?];
        let info = data_info(self.data.of(val), val, &self.roles.val_origin);
        let validation = before_after(&on_v, None, info, self.seed)?;
        let test = match &self.roles.test {
            None => None,
            Some(split) => {
                let of = |weights: &Weights| self.predict(weights, split, context);
                let pair = [of(&self.checkpoints[best].weights)?, of(&merged)?];
                let info = data_info(self.data.of(split), split, "test");
                Some(before_after(&pair, Some(&on_v), info, self.seed)?)
            }
        };
        let damaged = self.data.damaged();
        let mut notes = self.roles.notes.clone();
        notes.extend(self.notes.iter().cloned());
        notes.extend(damage_note(&damaged));
        if self.roles.test.is_none() {
            notes.push(
                "there are no test images: the figures are those of V, which chose the result, and \
                 are optimistic"
                    .into(),
            );
        }
        if alpha == Some(1.0) && self.options.alpha.is_none() {
            notes.push("α = 1 is best on V: the result has the fine-tuned weights".into());
        }
        if let Some(saved) = &saved {
            notes.extend(first.format_note(&saved.path));
            notes.extend(first.unstored_options_note(&saved.path));
        }
        Ok(Merged {
            ingredients,
            curve,
            alpha,
            best,
            output: saved.map(Output::from),
            validation,
            test,
            damaged,
            notes,
        })
    }

    /// The weights at α.
    fn at(&self, alpha: f64) -> Result<Weights> {
        let tuned = &self.checkpoints[0];
        let Some(Pretrained { weights: w0, moved, .. }) = &self.pretrained else {
            return Ok(tuned.weights.clone());
        };
        Ok(match self.options.method {
            MergeMethod::Lines => lines(&tuned.network, &tuned.weights, w0, moved, alpha)?,
            _ => interpolate(&tuned.weights, w0, moved, alpha)?,
        })
    }

    /// The α with the lowest calibrated loss on V, or the one that was set, and the curve. Of equal
    /// losses, the largest α is taken.
    fn along(&self, val: &Split, context: &Context) -> Result<(f64, Vec<CurvePoint>)> {
        let alphas: Vec<f64> = match self.options.alpha {
            Some(alpha) => vec![alpha],
            None => (0..=STEPS).map(|i| i as f64 / STEPS as f64).collect(),
        };
        let mut curve = Vec::new();
        for alpha in alphas {
            curve.push(point(alpha, &self.predict(&self.at(alpha)?, val, context)?));
        }
        let least = curve.iter().rev().min_by(|a, b| a.calibrated_nll.total_cmp(&b.calibrated_nll));
        Ok((least.map_or(1.0, |point| point.alpha), curve))
    }

    /// Positions of the checkpoints in a greedy soup.
    fn greedy(
        &self,
        order: &[usize],
        ingredients: &[Ingredient],
        val: &Split,
        context: &Context,
    ) -> Result<Vec<usize>> {
        let mut kept = vec![order[0]];
        let mut loss = ingredients[order[0]].calibrated_nll;
        for &next in &order[1..] {
            let trial: Vec<usize> = kept.iter().copied().chain([next]).collect();
            let all: Vec<&Weights> = trial.iter().map(|&i| &self.checkpoints[i].weights).collect();
            let found = fit(&self.predict(&average(&all)?, val, context)?).nll;
            if found <= loss {
                (kept, loss) = (trial, found);
            }
        }
        Ok(kept)
    }

    fn predict(&self, weights: &Weights, split: &Split, context: &Context) -> Result<Predictions> {
        let images = pixels(&self.checkpoints[0], split)?;
        let task = context.task("evaluating", split.len() as u64, "images");
        let counted = crate::session::Counted { examples: &images, task: &task };
        Ok(self.model.at(weights.clone()).predict(&counted)?)
    }

    fn provenance(
        &self,
        alpha: Option<f64>,
        all: &[Ingredient],
        val: &Split,
    ) -> Result<Provenance> {
        let used: Vec<&str> =
            all.iter().filter(|one| one.used).map(|one| one.digest.as_str()).collect();
        let method = format!("merge {}", self.options.method.name());
        let settings = json!({ "alpha": alpha, "checkpoints": used });
        step_on_v(&self.checkpoints[0], method, vec!["*".into()], &settings, val, self.seed)
    }
}

fn point(alpha: f64, on_v: &Predictions) -> CurvePoint {
    CurvePoint {
        alpha,
        nll: mean_stderr(&losses(on_v, 1.0)).mean,
        calibrated_nll: fit(on_v).nll,
        top1: mean_stderr(&hits(on_v, 1)).mean,
    }
}
