//! A bench, from its options to verdicts.

use super::answers::ImageScores;
use super::forecast::forecast;
use super::plan::plan;
use super::rows::rows;
use super::tally::{self, Trained};
use super::verdicts::verdicts;
use super::{BenchOptions, BenchResult, BenchRow, BenchRun, BenchRunner, PlannedLayers, RunResult};
use crate::cache::{CacheOptions, CachePolicy, default_folder};
use crate::checkpoint::Checkpoint;
use crate::data::{DataOptions, Role, Roles, require};
use crate::error::{Error, Result};
use crate::forecast::Expected;
use crate::models::layers::{join, select};
use crate::post_train::{PostTrainOptions, Preview, check_adapters};
use crate::session::{Context, Data};
use crate::train::{Keep, MethodName, TrainArgs, TrainOptions};

/// A bench, ready to run.
pub struct BenchSession<'a, R> {
    /// The options.
    pub options: BenchOptions,
    /// The training options of all rows, with those of the preset and the defaults filled in.
    pub train: TrainOptions,
    /// The model from which all rows start.
    pub checkpoint: &'a Checkpoint,
    /// Training, validation and test images.
    pub roles: Roles,
    /// The layers of PoL and of adapters; `None` without these methods.
    pub planned: Option<PlannedLayers>,
    /// The rows to train, each method after its control.
    pub rows: Vec<BenchRow>,
    /// The first training seed.
    pub seed: u64,
    runner: &'a R,
}

impl<'a, R: BenchRunner> BenchSession<'a, R> {
    /// Opens and checks everything, and names the layers of each row, by a diagnosis if needed. A dry
    /// run only forecasts the diagnosis.
    ///
    /// # Errors
    /// Anything that keeps the first run from starting.
    pub fn prepare(
        options: &BenchOptions,
        checkpoint: &'a Checkpoint,
        data: &DataOptions,
        runner: &'a R,
        preview: Preview,
        context: &Context,
    ) -> Result<Self, R::Error> {
        let roles = checked(options, checkpoint, data, context)?;
        let train = require(Role::Train, roles.train.as_ref()).map_err(Error::from)?;
        let preset = options.preset;
        let (train, cut) = preset.train_on(&options.train, train.len());
        let names: Vec<MethodName> = options.methods().iter().map(|own| own.method).collect();
        cut.into_iter().chain(preset.note(&names)).for_each(|note| context.note(&note));
        let with_layers = |name| [MethodName::Pol, MethodName::Sgd].contains(name);
        let planned = match names.iter().any(with_layers) {
            true => Some(plan(options, checkpoint, &roles.val_origin, runner, preview, context)?),
            false => None,
        };
        let rows = rows(options, planned.as_ref(), &checkpoint.network).map_err(Error::from)?;
        for BenchRow { method, .. } in &rows {
            let named = select(&checkpoint.network, method.update().unwrap_or("*"));
            let update = join(&named.map_err(Error::from)?);
            check_adapters(&method.lora(), &update, checkpoint)?;
        }
        let (options, seed) = (options.clone(), context.seed);
        Ok(Self { options, train, checkpoint, roles, planned, rows, seed, runner })
    }

    /// Forecasts the bench, row by row. `began` is the number of seconds already spent.
    ///
    /// # Errors
    /// A run could not start.
    pub fn outlook(&self, began: f64, context: &Context) -> Result<Expected, R::Error> {
        forecast(self, self.runner, began, context)
    }

    /// Trains each row with each seed, and compares it with the untouched model and with its control.
    ///
    /// # Errors
    /// A run fails.
    pub fn run(&self, context: &Context) -> Result<BenchResult, R::Error> {
        let seeds = self.options.seeds(self.seed);
        let mut trained = Vec::new();
        let mut untouched: Option<ImageScores> = None;
        {
            let task = context.task("bench", self.rows.len() as u64 * self.options.seeds, "runs");
            for row in &self.rows {
                let (mut runs, mut scores) = (Vec::new(), Vec::new());
                for &seed in &seeds {
                    task.status(&format!("{}, seed {seed}", row.name));
                    // All runs start from the same model, so one of them is enough to score it.
                    let run = BenchRun { untouched: untouched.is_none(), ..self.of(row, seed) };
                    let mut found: RunResult = self.runner.train(&run, context)?;
                    scores.extend(found.scores.take().map(ImageScores::from));
                    untouched = untouched.or(found.untouched_scores.take().map(Into::into));
                    runs.push(found);
                    task.advance(1);
                }
                trained.push(Trained { row, runs, scores });
            }
        }
        let untouched = untouched.ok_or_else(tally::no_test)?;
        let rows = tally::rows(&trained, &untouched)?;
        let tested = untouched.nll.len();
        Ok(BenchResult {
            plan: self.planned.as_ref().map(|plan| plan.from.clone()),
            train: self.train.clone(),
            costs: trained.iter().map(tally::cost).collect(),
            verdicts: verdicts(&rows, seeds.len(), tested),
            damaged: tally::damaged(&trained),
            rows,
            seeds,
        })
    }

    /// The run of a row with one seed.
    pub(super) fn of<'b>(&self, row: &'b BenchRow, seed: u64) -> BenchRun<'b> {
        let first = seed == self.seed;
        let options = PostTrainOptions {
            train: TrainArgs {
                batch_size: Some(self.train.batch_size),
                ..self.options.train.clone()
            },
            preset: self.options.preset,
            cache: shared(&self.options.cache),
            // Every row is evaluated after its last epoch. Selecting epochs by V, or discarding bad
            // results, would favour the method with the most variance. The report also has
            // figures with the input model as a candidate.
            keep: Some(Keep::Last),
            write_worse: true,
            train_seed: Some(seed),
            // All seeds start from one checkpoint, so one seed is enough to measure the change in ΔL
            // and κ.
            remeasure: Some(if first { self.options.remeasured() } else { 0 }),
            ..PostTrainOptions::new(row.method.clone())
        };
        BenchRun { row: &row.name, seed, options, untouched: false }
    }
}

/// The roles of the images, with all that a bench needs.
fn checked(
    options: &BenchOptions,
    checkpoint: &Checkpoint,
    data: &DataOptions,
    context: &Context,
) -> Result<Roles> {
    options.check()?;
    let roles = Data::open(data, checkpoint)?.roles_of_training(checkpoint, context.seed)?;
    roles.notes.iter().for_each(|note| context.note(note));
    require(Role::Train, roles.train.as_ref())?;
    require(Role::Test, roles.test.as_ref())?;
    Ok(roles)
}

/// The cache options with an explicit folder. Files in that folder then take precedence over
/// memory, so rows and seeds that freeze the same layers share one file.
fn shared(cache: &CacheOptions) -> CacheOptions {
    let mut cache = cache.clone();
    if let (CachePolicy::Auto, None, Ok(folder)) = (cache.cache, &cache.cache_dir, default_folder())
    {
        cache.cache_dir = Some(folder);
    }
    cache
}
