//! One fix, from its options to the written and measured checkpoint.

use super::FixOptions;
use super::forecast::{FixPlan, LEAST};
use super::result::{Baseline, FixStep, Fixed, Stop};
use crate::calibrate::{Scaling, calibrated, fit_scaling};
use crate::checkpoint::{Checkpoint, Provenance};
use crate::data::{DataOptions, Role, Roles, Split, require};
use crate::error::{Error, Result};
use crate::evaluate::{Bound, Fit, fit};
use crate::models::Weights;
use crate::models::layers::everything;
use crate::objective::{Error as ObjectiveError, Objective};
use crate::pixels::Pixels;
use crate::post_train::result::Output;
use crate::post_train::score::{Pair, before_after};
use crate::post_train::{Compared, Destination, Place, Side, read_back};
use crate::predictions::Predictions;
use crate::remedies::{
    Move, MoveForm, MoveFound, OnV, Remedy, RemedyFindings, RemedySession, Searched,
};
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::{chosen_before, step_on_v};
use crate::session::{Context, Counted, Data, data_info, objective, pixels, sample};
use candle_core::DType;
use serde_json::{Value, json};
use std::time::Instant;

/// Most moves that are applied.
const MOST_STEPS: usize = 8;

/// A fix, ready to run.
pub struct FixSession {
    /// The options.
    pub options: FixOptions,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub data: Data,
    /// Validation and test images.
    pub roles: Roles,
    pub(super) remedies: RemedySession,
    pub(super) destination: Destination,
    pub(super) model: Objective,
    seed: u64,
}

/// The result of all rounds: moves, not yet applied to any file.
pub struct FixSearch {
    /// The checkpoint as given, on V.
    pub start: OnV,
    /// The moves, in order.
    pub steps: Vec<FixStep>,
    /// The rounds of measurements.
    pub looks: Vec<RemedyFindings>,
    /// Number of images of V in each round.
    pub searched_on: usize,
    /// Why it ended.
    pub stop: Stop,
    weights: Weights,
    /// Logits on V, before and after the moves.
    on_v: Pair,
    standard: Vec<Standard>,
}

/// A standard method at its best α on V.
struct Standard {
    name: String,
    moved: Move,
    alpha: f64,
}

impl FixSession {
    /// Opens and checks everything.
    ///
    /// # Errors
    /// Invalid options, weights that are not those before fine-tuning, data without validation images,
    /// an output that cannot be written, or a head that is not linear.
    pub fn prepare(
        options: &FixOptions,
        checkpoint: Checkpoint,
        data: &DataOptions,
        place: &Place,
        context: &Context,
    ) -> Result<Self> {
        options.check()?;
        let destination = destination(place, options, &checkpoint, context)?;
        let data = Data::open(data, &checkpoint)?;
        let mut roles = match options.also.is_empty() {
            true => data.roles(&checkpoint, context.seed)?,
            false => data.roles_of_training(&checkpoint, context.seed)?,
        };
        let v = require(Role::Val, roles.val.as_ref())?;
        roles.notes.extend(chosen_before(&checkpoint, v));
        roles.notes.iter().for_each(|note| context.note(note));
        crate::calibrate::check_head(&checkpoint.network)?;
        let blocks = checkpoint.network.blocks();
        let remedies = options.remedies();
        let remedies = RemedySession::open(&remedies, &checkpoint, &roles, blocks.clone(), blocks)?;
        remedies.notes.iter().for_each(|note| context.note(note));
        destination.check_space(&checkpoint, &everything(&checkpoint.network))?;
        let model = objective(&checkpoint, DType::F32, context.engine)?;
        let (options, seed) = (options.clone(), context.seed);
        Ok(Self { options, checkpoint, data, roles, remedies, destination, model, seed })
    }

    /// The same session with another destination.
    ///
    /// # Errors
    /// An output that cannot be written.
    pub(super) fn writing_to(mut self, place: &Place, context: &Context) -> Result<Self> {
        self.destination = destination(place, &self.options, &self.checkpoint, context)?;
        let all = everything(&self.checkpoint.network);
        self.destination.check_space(&self.checkpoint, &all)?;
        Ok(self)
    }

    /// Notes that were already given to the observer.
    pub fn told(&self) -> Vec<String> {
        self.roles.notes.iter().chain(&self.remedies.notes).cloned().collect()
    }

    /// Looks for moves on V, applies those that help, writes the checkpoint and measures it.
    ///
    /// # Errors
    /// Those of [`FixSession::search`] and [`FixSession::apply`].
    pub fn run(&self, plan: &FixPlan, context: &Context) -> Result<Fixed> {
        let search = self.search(plan, self.options.budget, context)?;
        self.apply(search, context)
    }

    /// The model that [`FixSession::apply`] would write, on V: the temperature is folded into the head.
    ///
    /// # Errors
    /// Those of [`FixSession::apply`], but nothing is written.
    pub fn compared(&self, search: &FixSearch, context: &Context) -> Result<Compared> {
        let (_, weights) = self.calibrated(search)?;
        let stored = self.checkpoint.as_stored(&weights)?;
        let after = self.predict(&stored, self.val()?, context)?;
        let side = |logits| Side::new(logits, None, self.seed);
        Compared::of(&side(&search.on_v[0])?, &side(&after)?)
    }

    /// The moved weights with the temperature folded into the head.
    fn calibrated(&self, search: &FixSearch) -> Result<(Fit, Weights)> {
        let at_best = &search.on_v[1];
        refuse_guessing(at_best)?;
        let map = fit_scaling(at_best, Scaling::Temperature)?;
        let weights = calibrated(&self.checkpoint.network, &search.weights, &map)?;
        Ok((map.temperature, weights))
    }

    /// Applies the moves and a temperature, writes the checkpoint and measures it.
    ///
    /// # Errors
    /// Unreadable images, logits that are not finite, a model that guesses, or a file that cannot be
    /// written.
    pub fn apply(&self, search: FixSearch, context: &Context) -> Result<Fixed> {
        let val = self.val()?;
        let (fitted, weights) = self.calibrated(&search)?;
        let stored = self.checkpoint.as_stored(&weights)?;
        let provenance = self.provenance(&search, fitted.temperature, val)?;
        let saved = self.destination.save(&self.checkpoint, &weights, &provenance)?;
        let fixed = match &saved {
            Some(saved) => {
                drop(stored);
                read_back(&self.checkpoint, saved)?
            }
            None => stored,
        };
        let [before, _] = search.on_v;
        let on_v = [before, self.predict(&fixed, val, context)?];
        let info = data_info(self.data.of(val), val, &self.roles.val_origin);
        let validation = before_after(&on_v, None, info, self.seed)?;
        let on_test = match &self.roles.test {
            None => None,
            Some(split) => {
                let own = self.predict(&self.checkpoint.weights, split, context)?;
                Some([own, self.predict(&fixed, split, context)?])
            }
        };
        let test = match (&self.roles.test, &on_test) {
            (Some(split), Some(own)) => {
                let info = data_info(self.data.of(split), split, "test");
                Some(before_after(own, Some(&on_v), info, self.seed)?)
            }
            _ => None,
        };
        let baselines = self.baselines(&search.standard, &on_v, on_test.as_ref(), context)?;
        let damaged = self.data.damaged();
        let mut notes = self.told();
        // A layer that was moved all the way has nothing left to move in later rounds.
        for note in search.looks.first().into_iter().flat_map(|look| &look.notes) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        notes.extend(damage_note(&damaged));
        if self.options.pretrained.is_none() {
            notes.push(
                "without `pretrained`, layers can move only towards 0; set it to also move them back towards \
                 the weights before fine-tuning"
                    .into(),
            );
        }
        if self.roles.test.is_none() {
            notes.push(
                "there are no test images: the figures are those of V, which chose the result, and \
                 are optimistic"
                    .into(),
            );
        }
        if let Some(bound) = fitted.bound {
            notes.push(format!("temperature: {}", bound.note()));
        }
        if let Some(saved) = &saved {
            notes.extend(self.checkpoint.format_note(&saved.path));
            notes.extend(self.checkpoint.unstored_options_note(&saved.path));
        }
        Ok(Fixed {
            start: search.start,
            steps: search.steps,
            looks: search.looks,
            searched_on: search.searched_on,
            stop: search.stop,
            temperature: fitted.temperature,
            temperature_bound: fitted.bound,
            output: saved.map(Output::from),
            validation,
            test,
            baselines,
            damaged,
            notes,
        })
    }

    /// Measures all moves, applies the best eligible one, and repeats, in at most `budget` seconds with
    /// what follows.
    ///
    /// # Errors
    /// Unreadable images, logits that are not finite, or a model that guesses.
    pub fn search(
        &self,
        plan: &FixPlan,
        budget: Option<f64>,
        context: &Context,
    ) -> Result<FixSearch> {
        let val = self.val()?;
        let clock = Instant::now();
        let before = self.predict(&self.checkpoint.weights, val, context)?;
        let pass = clock.elapsed().as_secs_f64();
        refuse_guessing(&before)?;
        let start = OnV::of(&before);
        context.info(&format!(
            "calibration: a temperature of {:.3}, fitted on V, changes the NLL on V from {:.4} to {:.4}",
            start.temperature, start.nll, start.calibrated_nll
        ));
        let searched_on = match budget {
            None => plan.images,
            // The forecast promised that one round fits.
            Some(budget) => {
                let least = LEAST.min(plan.images);
                self.affordable(plan, budget, Some(pass))?.unwrap_or(least)
            }
        };
        let v = sample(val, Some(searched_on), context.seed)?;
        let images_of_v = pixels(&self.checkpoint, &v)?;
        let mut out = FixSearch {
            start,
            steps: Vec::new(),
            looks: Vec::new(),
            searched_on,
            stop: Stop::Steps,
            weights: self.checkpoint.weights.clone(),
            on_v: [before.clone(), before],
            standard: Vec::new(),
        };
        let (mut looked, mut current, mut round) = (0, start, 0.0);
        while out.steps.len() < MOST_STEPS {
            // A round takes as long as the one before.
            let late = budget.is_some_and(|budget| plan.elapsed() + round + plan.last() > budget);
            if late && looked > 0 {
                out.stop = Stop::Budget;
                break;
            }
            let clock = Instant::now();
            let model = self.model.at(out.weights.clone());
            let Searched { found, mut moves } =
                self.remedies.search(&model, &images_of_v, looked, context)?;
            looked += moves.len();
            let best = found.best().and_then(|best| found.moves.iter().position(|m| m == best));
            if let Some(i) = best {
                let one = found.moves[i].clone();
                let alpha = refine(&model, &moves[i], &one, &images_of_v)?;
                out.weights = moves[i].at(&model, alpha)?;
                out.on_v[1] = self.predict(&out.weights, val, context)?;
                let after = OnV::of(&out.on_v[1]);
                context.info(&format!(
                    "{}, α = {alpha}: NLL on V, with T fitted on V, from {:.4} to {:.4}, top-1 \
                     from {:.1}% to {:.1}%",
                    one.label(),
                    current.calibrated_nll,
                    after.calibrated_nll,
                    100.0 * current.top1,
                    100.0 * after.top1
                ));
                current = after;
                out.steps.push(FixStep { found: one, alpha, looks: looked, after });
            }
            if out.looks.is_empty() {
                out.standard = standard(&model, &found, &mut moves, &images_of_v)?;
            }
            out.looks.push(found);
            round = clock.elapsed().as_secs_f64();
            if best.is_none() {
                out.stop = Stop::NothingEligible;
                break;
            }
        }
        Ok(out)
    }

    pub(super) fn val(&self) -> Result<&Split> {
        Ok(require(Role::Val, self.roles.val.as_ref())?)
    }

    /// The temperature alone, and the standard methods, beside the fix.
    fn baselines(
        &self,
        standard: &[Standard],
        on_v: &Pair,
        on_test: Option<&Pair>,
        context: &Context,
    ) -> Result<Vec<Baseline>> {
        let val = self.val()?;
        let mut out = Vec::new();
        for one in std::iter::once(None).chain(standard.iter().map(Some)) {
            let weights = match one {
                None => None,
                // The moves of the first round start from the checkpoint.
                Some(one) => Some(one.moved.at(&self.model, one.alpha)?),
            };
            let own_v = match &weights {
                None => on_v[0].clone(),
                Some(weights) => self.predict(weights, val, context)?,
            };
            let (mut test, mut behind) = (None, None);
            if let (Some(split), Some(fixed)) = (&self.roles.test, on_test) {
                let own = match &weights {
                    None => fixed[0].clone(),
                    Some(weights) => self.predict(weights, split, context)?,
                };
                let side = Side::new(&own, Some(&own_v), self.seed)?;
                let fix = Side::new(&fixed[1], Some(&on_v[1]), self.seed)?;
                behind = Some(Compared::of(&side, &fix)?.calibrated_nll_gain);
                test = Some(side.summary);
            }
            let name = one.map_or("temperature", |one| &one.name).to_owned();
            // The share of the fine-tuned change that is kept.
            let alpha = one.map(|one| 1.0 - one.alpha);
            out.push(Baseline { name, alpha, validation: OnV::of(&own_v), test, behind });
        }
        Ok(out)
    }

    fn predict(&self, weights: &Weights, split: &Split, context: &Context) -> Result<Predictions> {
        let images = pixels(&self.checkpoint, split)?;
        let task = context.task("evaluating", split.len() as u64, "images");
        let counted = Counted { examples: &images, task: &task };
        Ok(self.model.at(weights.clone()).predict(&counted)?)
    }

    fn provenance(&self, search: &FixSearch, temperature: f64, val: &Split) -> Result<Provenance> {
        let mut update: Vec<String> =
            search.steps.iter().flat_map(|step| step.found.layers.iter().cloned()).collect();
        update.extend(self.checkpoint.network.blocks().pop().map(|head| head.name));
        update.sort_unstable();
        update.dedup();
        let remedy = |step: &FixStep| match &step.found.remedy {
            // The checkpoint is named by its digest.
            Remedy::Toward(_) => step.found.remedy.name().to_owned(),
            other => other.to_string(),
        };
        let steps: Vec<Value> = search
            .steps
            .iter()
            .map(|step| {
                json!({
                    "remedy": remedy(step), "layers": step.found.name, "alpha": step.alpha
                })
            })
            .collect();
        let target = self.remedies.directions.iter().find_map(|d| d.checkpoint.as_ref());
        let settings = json!({
            "steps": steps,
            "temperature": temperature,
            "pretrained": target.map(|target| target.digest.clone()),
        });
        let fix = step_on_v(&self.checkpoint, "fix".into(), update, &settings, val, self.seed)?;
        let trained = search.steps.iter().any(|s| matches!(s.found.remedy, Remedy::Train(_)));
        Ok(match self.roles.train.as_ref().filter(|_| trained) {
            // Later commands must know which images the weights have seen.
            Some(train) => Provenance {
                data_digest: fix.data_digest.or_else(|| Some(train.digest().into())),
                sample: fix.sample.filter(|sample| sample.digest == train.digest()),
                ..fix
            },
            None => fix,
        })
    }
}

/// The destination, which must not be the weights before fine-tuning.
fn destination(
    place: &Place,
    options: &FixOptions,
    checkpoint: &Checkpoint,
    context: &Context,
) -> Result<Destination> {
    if let (Place::New(_), Some(pretrained)) = (place, &options.pretrained) {
        place.spare_inputs(std::iter::once(&*crate::checkpoint::weights_file(pretrained)?))?;
    }
    place.open(checkpoint, "fix", context)
}

/// WiSE-FT and LiNeS, each at its best α. Takes their moves.
fn standard(
    model: &Objective,
    found: &RemedyFindings,
    moves: &mut Vec<Move>,
    v: &Pixels,
) -> Result<Vec<Standard>> {
    let mut out = Vec::new();
    for (one, moved) in found.moves.iter().zip(moves.drain(..)) {
        let name = match one.form {
            MoveForm::All => "WiSE-FT",
            MoveForm::Lines => "LiNeS",
            _ => continue,
        };
        let alpha = refine(model, &moved, one, v)?;
        out.push(Standard { name: name.into(), moved, alpha });
    }
    Ok(out)
}

/// The α with the lowest calibrated NLL: goes from the α found to its neighbours in the grid while that
/// lowers the loss.
fn refine(model: &Objective, one: &Move, found: &MoveFound, v: &Pixels) -> Result<f64> {
    let grid: Vec<f64> = std::iter::once(0.0).chain(found.remedy.grid()).collect();
    let mut known: Vec<Option<f64>> = grid
        .iter()
        .map(|alpha| {
            let point = found.curve.iter().find(|point| point.alpha == *alpha);
            point.map(|point| point.figures.calibrated_nll)
        })
        .collect();
    let mut at = grid.iter().position(|alpha| *alpha == found.alpha).unwrap_or(0);
    if at == 0 {
        return Ok(0.0);
    }
    loop {
        let neighbours = [at - 1, (at + 1).min(grid.len() - 1)];
        for i in neighbours.into_iter().filter(|&i| i > 0) {
            if known[i].is_none() {
                let loss = match model.at(one.at(model, grid[i])?).predict(v) {
                    Ok(logits) => fit(&logits).nll,
                    Err(ObjectiveError::Predictions(_)) => f64::INFINITY,
                    Err(error) => return Err(error.into()),
                };
                known[i] = Some(loss);
            }
        }
        let loss = |i: usize| known[i].unwrap_or(f64::INFINITY);
        let next = neighbours.into_iter().filter(|&i| i > 0 && loss(i) < loss(at));
        match next.min_by(|&a, &b| loss(a).total_cmp(&loss(b))) {
            None => return Ok(grid[at]),
            Some(next) => at = next,
        }
    }
}

/// # Errors
/// [`Error::Refused`] if no temperature makes the logits better than guessing.
fn refuse_guessing(on_v: &Predictions) -> Result<()> {
    match fit(on_v).bound {
        Some(Bound::Guessing) => Err(Error::Refused(format!(
            "temperature: {}; nothing was written, because the head would become uniform: check the \
             classes and the preprocessing",
            Bound::Guessing.note()
        ))),
        _ => Ok(()),
    }
}
