//! One fix, from its options to the written and measured checkpoint.

use super::FixOptions;
use super::result::{Baseline, FixStep, Fixed, Stop};
use crate::calibrate::{Scaling, calibrated, fit_scaling};
use crate::checkpoint::{Checkpoint, Provenance};
use crate::data::{DataOptions, Role, Roles, Split, require};
use crate::error::{Error, Result};
use crate::evaluate::{Bound, FEW, fit};
use crate::format::{duration, images};
use crate::memory;
use crate::models::Weights;
use crate::models::layers::everything;
use crate::objective::{Error as ObjectiveError, Examples, Objective};
use crate::pixels::Pixels;
use crate::post_train::result::Output;
use crate::post_train::score::before_after;
use crate::post_train::{Compared, Destination, Place, Side, read_back};
use crate::predictions::Predictions;
use crate::remedies::{
    Move, MoveForm, MoveFound, OnV, Remedy, RemedyFindings, RemedySession, Searched, remedies_work,
};
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::step_on_v;
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
    remedies: RemedySession,
    destination: Destination,
    model: Objective,
    seed: u64,
}

/// The result of all rounds.
struct FixSearch {
    weights: Weights,
    steps: Vec<FixStep>,
    looks: Vec<RemedyFindings>,
    searched_on: usize,
    stop: Stop,
    /// Standard methods: name, share of the change that is kept, and weights.
    standard: Vec<(String, f64, Weights)>,
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
        if let (Place::New(_), Some(pretrained)) = (place, &options.pretrained) {
            place.spare_inputs(std::iter::once(&*crate::checkpoint::weights_file(pretrained)?))?;
        }
        let destination = place.open(&checkpoint, "fix", context)?;
        let data = Data::open(data, &checkpoint)?;
        let roles = data.roles(&checkpoint, context.seed)?;
        roles.notes.iter().for_each(|note| context.note(note));
        require(Role::Val, roles.val.as_ref())?;
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

    /// Notes that were already given to the observer.
    pub fn told(&self) -> Vec<String> {
        self.roles.notes.iter().chain(&self.remedies.notes).cloned().collect()
    }

    /// Looks for moves on V, applies those that help, writes the checkpoint and measures it.
    ///
    /// # Errors
    /// Unreadable images, logits that are not finite, a model that guesses, or a file that cannot be
    /// written.
    pub fn run(&self, context: &Context) -> Result<Fixed> {
        let val = require(Role::Val, self.roles.val.as_ref())?;
        let clock = Instant::now();
        let before = self.predict(&self.checkpoint.weights, val, context)?;
        let pass = clock.elapsed().as_secs_f64();
        refuse_guessing(&before)?;
        let start = OnV::of(&before);
        context.info(&format!(
            "calibration: a temperature of {:.3} takes the NLL on V from {:.4} to {:.4}",
            start.temperature, start.nll, start.calibrated_nll
        ));
        let search = self.search(val, pass, start, &clock, context)?;
        let at_best = self.predict(&search.weights, val, context)?;
        refuse_guessing(&at_best)?;
        let map = fit_scaling(&at_best, Scaling::Temperature)?;
        let weights = calibrated(&self.checkpoint.network, &search.weights, &map)?;
        let stored = self.checkpoint.as_stored(&weights)?;
        let provenance = self.provenance(&search, map.temperature.temperature, val);
        let saved = self.destination.save(&self.checkpoint, &weights, &provenance)?;
        let fixed = match &saved {
            Some(saved) => read_back(&self.checkpoint, saved)?,
            None => stored,
        };
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
        let baselines = self.baselines(&search, &on_v, on_test.as_ref(), context)?;
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
        if let Some(bound) = map.temperature.bound {
            notes.push(format!("temperature: {}", bound.note()));
        }
        if let Some(saved) = &saved {
            notes.extend(self.checkpoint.format_note(&saved.path));
            notes.extend(self.checkpoint.unstored_options_note(&saved.path));
        }
        Ok(Fixed {
            start,
            steps: search.steps,
            looks: search.looks,
            searched_on: search.searched_on,
            stop: search.stop,
            temperature: map.temperature.temperature,
            temperature_bound: map.temperature.bound,
            output: saved.map(Output::from),
            validation,
            test,
            baselines,
            damaged,
            notes,
        })
    }

    /// Measures all moves, applies the best eligible one, and repeats.
    fn search(
        &self,
        val: &Split,
        pass: f64,
        start: OnV,
        clock: &Instant,
        context: &Context,
    ) -> Result<FixSearch> {
        let network = &self.checkpoint.network;
        let whole = crate::models::cost::forward(network, 0..network.stages());
        // The pass over V that was just made gives the speed of all others.
        let of = |operations: f64| pass / val.len() as f64 * operations / whole;
        let each = of(remedies_work(network, &self.remedies).forward);
        let trained = self.remedies.training.as_ref().map_or(0, Examples::len) as f64;
        let training = trained * of(self.remedies.training_work(network)?.gradient);
        let spent = training + clock.elapsed().as_secs_f64();
        let searched_on = self.affordable(each, spent, val.len(), context)?;
        let v = sample(val, Some(searched_on), context.seed)?;
        let images_of_v = pixels(&self.checkpoint, &v)?;
        context.info(&format!(
            "a round, which measures all moves on {}, takes at most about {}",
            images(searched_on),
            duration(training + each * searched_on as f64)
        ));
        let mut out = FixSearch {
            weights: self.checkpoint.weights.clone(),
            steps: Vec::new(),
            looks: Vec::new(),
            searched_on,
            stop: Stop::Steps,
            standard: Vec::new(),
        };
        let (mut looked, mut current) = (0, start);
        while out.steps.len() < MOST_STEPS {
            let spent = clock.elapsed().as_secs_f64();
            let seconds = training + each * searched_on as f64;
            let late = self.options.budget.is_some_and(|budget| spent + seconds > budget);
            if late && looked > 0 {
                out.stop = Stop::Budget;
                break;
            }
            let model = self.model.at(out.weights.clone());
            let Searched { found, moves } =
                self.remedies.search(&model, &images_of_v, looked, context)?;
            if looked == 0 {
                out.standard = self.standard(&model, &found, &moves, &images_of_v)?;
            }
            looked += moves.len();
            let best = found.best().and_then(|best| found.moves.iter().position(|m| m == best));
            match best {
                None => {
                    out.looks.push(found);
                    out.stop = Stop::NothingEligible;
                    break;
                }
                Some(i) => {
                    let alpha = refine(&model, &moves[i], &found.moves[i], &images_of_v)?;
                    out.weights = moves[i].at(&model, alpha)?;
                    let after = OnV::of(&self.predict(&out.weights, val, context)?);
                    let one = found.moves[i].clone();
                    context.info(&format!(
                        "{} by α = {alpha}: NLL on V after temperature scaling from {:.4} to {:.4}, top-1 \
                         from {:.1}% to {:.1}%",
                        one.label(),
                        current.calibrated_nll,
                        after.calibrated_nll,
                        100.0 * current.top1,
                        100.0 * after.top1
                    ));
                    current = after;
                    out.steps.push(FixStep { found: one, alpha, looks: looked, after });
                    out.looks.push(found);
                }
            }
        }
        Ok(out)
    }

    /// Number of images of V for a round that fits into the budget and into half of the free memory.
    fn affordable(&self, each: f64, spent: f64, all: usize, context: &Context) -> Result<usize> {
        let least = LEAST.min(all);
        let held = |n: usize| self.remedies.held_mib(&self.checkpoint.network, n);
        let free = memory::available_mib().unwrap_or(f64::INFINITY);
        let room = 0.5 * free - held(0);
        let fits = (room / (held(1) - held(0))).max(0.0) as usize;
        if fits < least {
            return Err(Error::Memory(format!(
                "measuring all moves on {} needs about {:.0} MiB, and {free:.0} MiB are free: free some \
                 memory",
                images(least),
                2.0 * held(least)
            )));
        }
        if fits < all {
            context.note(&format!(
                "moves are measured on {} of V, which need half of the free memory ({free:.0} MiB)",
                images(fits)
            ));
        }
        let most = fits.min(all);
        let Some(budget) = self.options.budget else { return Ok(most) };
        let n = (((budget - spent) / each).max(0.0) as usize).min(most);
        match n < least {
            false => Ok(n),
            true => Err(Error::Missing(format!(
                "`budget`: measuring all moves on {} takes about {}; allow that much time",
                images(least),
                duration(spent + each * least as f64)
            ))),
        }
    }

    /// WiSE-FT and LiNeS, each at its best α.
    fn standard(
        &self,
        model: &Objective,
        found: &RemedyFindings,
        moves: &[Move],
        v: &Pixels,
    ) -> Result<Vec<(String, f64, Weights)>> {
        let mut out = Vec::new();
        for (one, of) in found.moves.iter().zip(moves) {
            let name = match one.form {
                MoveForm::All => "WiSE-FT",
                MoveForm::Lines => "LiNeS",
                _ => continue,
            };
            let alpha = refine(model, of, one, v)?;
            out.push((name.into(), 1.0 - alpha, of.at(model, alpha)?));
        }
        Ok(out)
    }

    /// The temperature alone, and the standard methods, beside the fix.
    fn baselines(
        &self,
        search: &FixSearch,
        on_v: &[Predictions; 2],
        on_test: Option<&[Predictions; 2]>,
        context: &Context,
    ) -> Result<Vec<Baseline>> {
        let val = require(Role::Val, self.roles.val.as_ref())?;
        let mut models = vec![("temperature".to_owned(), None, None)];
        for (name, alpha, weights) in &search.standard {
            models.push((name.clone(), Some(*alpha), Some(weights)));
        }
        let mut out = Vec::new();
        for (name, alpha, weights) in models {
            let own_v = match weights {
                None => on_v[0].clone(),
                Some(weights) => self.predict(weights, val, context)?,
            };
            let (mut test, mut behind) = (None, None);
            if let (Some(split), Some(fixed)) = (&self.roles.test, on_test) {
                let own = match weights {
                    None => fixed[0].clone(),
                    Some(weights) => self.predict(weights, split, context)?,
                };
                let side = Side::new(&own, Some(&own_v), self.seed)?;
                let fix = Side::new(&fixed[1], Some(&on_v[1]), self.seed)?;
                behind = Some(Compared::of(&side, &fix)?.calibrated_nll_gain);
                test = Some(side.summary);
            }
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

    fn provenance(&self, search: &FixSearch, temperature: f64, val: &Split) -> Provenance {
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
        let fix = step_on_v(&self.checkpoint, "fix".into(), update, settings, val, self.seed);
        let trained = search.steps.iter().any(|s| matches!(s.found.remedy, Remedy::Train(_)));
        match self.roles.train.as_ref().filter(|_| trained) {
            // Later commands must know which images the weights have seen.
            Some(train) => Provenance {
                data_digest: fix.data_digest.or_else(|| Some(train.digest().into())),
                sample: fix.sample.filter(|sample| sample.digest == train.digest()),
                ..fix
            },
            None => fix,
        }
    }
}

/// Minimum number of images for a round.
const LEAST: usize = 4 * FEW;

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
