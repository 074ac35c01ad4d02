//! Many training runs from one checkpoint. Work that does not depend on the run is done once.

use super::WATCHED;
use super::frozen::{FrozenLayers, view_name};
use super::run::{TrialSpec, stepping};
use super::score::{Compared, Side, as_stored, logits, usable};
use crate::cache::About;
use crate::checkpoint::Checkpoint;
use crate::data::{Role, Roles, Split, require};
use crate::error::Result;
use crate::objective::{Activations, Examples, Objective};
use crate::pixels::Pixels;
use crate::predictions::Predictions;
use crate::session::{Context, objective, pixels, sample};
use crate::train::run::{Epoch, Outcome, TrainEvent};
use crate::train::{Prefix, Source};
use candle_core::DType;
use std::time::Instant;

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The epoch whose weights were selected, from 1; 0 means the initial weights.
    pub selected_epoch: usize,
    /// All finished epochs, in order.
    pub epochs: Vec<Epoch>,
    /// Why the run was stopped, or why its result has no metrics.
    pub stopped: Option<String>,
    /// Number of images of V that epochs were watched on.
    pub watched_images: usize,
    /// Loss on them before training.
    pub watched_before: Option<f64>,
    /// Metrics on V; `None` if the result has none.
    pub val: Option<Compared>,
    /// Metrics on test, if it was read.
    pub test: Option<Compared>,
    /// Run time in seconds. The first run of a group includes the frozen layers.
    pub seconds: f64,
}

/// A model with its images, before any training.
pub struct Trials<'a> {
    checkpoint: &'a Checkpoint,
    seed: u64,
    model: Objective,
    train: Pixels,
    watched: Pixels,
    /// V, followed by test if it is read.
    judges: Vec<Pixels>,
    before: Vec<Side>,
}

/// Called with the index and result of each finished run. Returns whether to continue.
pub type Finished<'f> = dyn FnMut(usize, Trial) -> Result<bool> + 'f;

impl<'a> Trials<'a> {
    /// Computes the model's logits on V, and on `test` if given.
    ///
    /// # Errors
    /// No training images or no V; unreadable images; non-finite logits.
    pub fn new(
        checkpoint: &'a Checkpoint,
        roles: &Roles,
        test: Option<&Split>,
        context: &Context,
    ) -> Result<Self> {
        let seed = context.seed;
        let train = require(Role::Train, roles.train.as_ref())?;
        let val = require(Role::Val, roles.val.as_ref())?;
        let model = objective(checkpoint, DType::F32, context.engine)?;
        let of = |split: &Split| pixels(checkpoint, split);
        let judges: Vec<Pixels> =
            std::iter::once(val).chain(test).map(of).collect::<std::result::Result<_, _>>()?;
        let before =
            judges.iter().map(|own| logits(&model, own, None)).collect::<Result<Vec<_>>>()?;
        let before = sides(&before, seed)?;
        let watched = of(&sample(val, Some(WATCHED), seed)?)?;
        let train = of(train)?;
        Ok(Self { checkpoint, seed, model, train, watched, judges, before })
    }

    /// Trains all runs. Runs that share their frozen layers are trained in one group. `status`
    /// receives progress texts; `finished` receives each run's index and result, and returns
    /// whether to continue.
    ///
    /// # Errors
    /// Those of training and of `finished`.
    pub fn train(
        &self,
        runs: &[&TrialSpec],
        status: &dyn Fn(&str),
        finished: &mut Finished,
    ) -> Result<()> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (place, run) in runs.iter().enumerate() {
            let key = run.frozen_key();
            match groups.iter_mut().find(|group| runs[group[0]].frozen_key() == key) {
                Some(group) => group.push(place),
                None => groups.push(vec![place]),
            }
        }
        for group in &groups {
            if !self.group(runs, group, status, finished)? {
                break;
            }
        }
        Ok(())
    }

    /// Trains runs that share their frozen layers. Returns whether to continue.
    fn group(
        &self,
        runs: &[&TrialSpec],
        places: &[usize],
        status: &dyn Fn(&str),
        finished: &mut Finished,
    ) -> Result<bool> {
        let Some(first) = places.first().map(|&place| runs[place]) else { return Ok(true) };
        let mut clock = Instant::now();
        let stage = first.recipe.first_stage();
        let model = first.model(&self.model);
        let views = super::frozen::views(&first.train, &self.train, self.seed)?;
        let shown = views.iter().map(|view| view as &dyn Examples).collect();
        let prefix = Prefix::new(&model, shown, stage, first.cache.half());
        let plan = super::frozen::plan(&first.cache, &prefix, first.cache.ram_bytes())?;
        let about = |view| About {
            model: self.checkpoint.path.display().to_string(),
            data: self.train.split().place(),
            stage: model.network.stage_name(stage),
            view: view_name(&first.train.augment, self.seed, view),
            version: env!("CARGO_PKG_VERSION").into(),
            ..About::default()
        };
        status("frozen layers");
        let context = Context { engine: &self.model.engine, ..Context::silent(self.seed) };
        let source = FrozenLayers::open(&first.cache, prefix, &plan, &about, &context)?.source;
        let watched = model.activations(&self.watched, stage)?;
        let judges = self.frozen_judges(stage, first.cache.ram_bytes())?;
        for &place in places {
            // Micro-batch and label smoothing may differ within a group.
            let own = runs[place].model(&self.model);
            let stepping = stepping(&own, &runs[place].train, false, stage);
            let outcome = self.run(runs[place], &stepping, (&source, &watched), status)?;
            let stored = runs[place].recipe.lora.writes_checkpoint();
            let mut trial = self.judge(outcome, stored, &judges, watched.labels.len())?;
            trial.seconds = clock.elapsed().as_secs_f64();
            clock = Instant::now();
            if !finished(place, trial)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(
        &self,
        run: &TrialSpec,
        model: &Objective,
        (source, watched): (&Source, &Activations),
        status: &dyn Fn(&str),
    ) -> Result<Outcome> {
        let settings = run.settings();
        let (called, epochs) = (run.called(), settings.epochs);
        let mut tell = |event: TrainEvent| match event {
            TrainEvent::Start(_) => status(&format!("{called}, epoch 1 of {epochs}")),
            TrainEvent::Epoch(e) if e.epoch < epochs => {
                status(&format!("{called}, epoch {} of {epochs}", e.epoch + 1));
            }
            TrainEvent::Epoch(_) => status(&format!("{called}, evaluation")),
            TrainEvent::Step { .. } => {}
        };
        let adapters = super::adapters(&run.recipe, self.checkpoint, settings.seed)?;
        let adapters = adapters.as_ref();
        let trained = super::train(
            model,
            &run.recipe,
            adapters,
            source,
            Some(watched),
            &settings,
            &mut tell,
        )?;
        Ok(trained.outcome)
    }

    /// The outputs of the layers below `stage` for V and test, if they need at most `ram` bytes.
    /// All runs that freeze these layers then start from them. The results are bit-identical.
    fn frozen_judges(&self, stage: usize, ram: u64) -> Result<Vec<Option<Activations>>> {
        let bytes =
            |images: &Pixels| Prefix::new(&self.model, vec![images], stage, false).layout().bytes();
        let fits = self.judges.iter().map(bytes).fold(0, u64::saturating_add) <= ram;
        let held = |images: &Pixels| -> Result<Option<Activations>> {
            Ok(if fits { Some(self.model.activations(images, stage)?) } else { None })
        };
        self.judges.iter().map(held).collect()
    }

    /// The training history and the result, as it would be stored, compared with the start. V is
    /// scored at temperatures cross-fitted on its halves, test at V's. Weights are rounded to the
    /// checkpoint's types if they would be `stored` in one. A result with non-finite logits has no
    /// metrics, and a reason.
    fn judge(
        &self,
        outcome: Outcome,
        stored: bool,
        frozen: &[Option<Activations>],
        watched_images: usize,
    ) -> Result<Trial> {
        let tuned = match stored {
            true => as_stored(self.checkpoint, &self.model, &outcome.weights),
            false => Ok(self.model.exact().at(outcome.weights.clone())),
        };
        let judged = tuned.and_then(|tuned| {
            let parts = self.judges.iter().zip(frozen);
            parts.map(|(own, held)| logits(&tuned, own, held.as_ref())).collect::<Result<Vec<_>>>()
        });
        let (compared, problem) = match usable(judged)? {
            Ok(logits) => (self.compared(&logits)?, None),
            Err(why) => (Vec::new(), Some(why.to_string())),
        };
        let mut compared = compared.into_iter();
        Ok(Trial {
            selected_epoch: outcome.epoch,
            stopped: outcome.stopped.as_ref().map(ToString::to_string).or(problem),
            watched_images,
            watched_before: outcome.start,
            epochs: outcome.epochs,
            val: compared.next(),
            test: compared.next(),
            seconds: 0.0,
        })
    }

    fn compared(&self, logits: &[Predictions]) -> Result<Vec<Compared>> {
        let after = sides(logits, self.seed)?;
        self.before.iter().zip(&after).map(|(before, after)| Compared::of(before, after)).collect()
    }
}

/// V at temperatures cross-fitted on its halves, the others at V's.
fn sides(logits: &[Predictions], seed: u64) -> Result<Vec<Side>> {
    let Some((v, others)) = logits.split_first() else { return Ok(Vec::new()) };
    let on_v = Side::new(v, None, seed);
    std::iter::once(on_v).chain(others.iter().map(|own| Side::new(own, Some(v), seed))).collect()
}
