//! Runs of a bench in this process.

use super::{BenchRun, BenchRunner, RunForecast, RunResult};
use crate::checkpoint::Checkpoint;
use crate::data::DataOptions;
use crate::diagnose::MeasureOptions;
use crate::diagnose::Measurer;
use crate::diagnose::findings::Plan;
use crate::error::{Error, Result};
use crate::forecast::Part;
use crate::options::Limit;
use crate::post_train::frozen::info;
use crate::post_train::{Place, PostTrainOptions, PostTrainSession, Preview};
use crate::session::{Context, Data, saved};
use std::path::Path;

/// Makes all runs in this process. The peak memory of a run then includes all earlier work.
#[derive(Clone, Copy, Debug)]
pub struct InProcess<'a> {
    checkpoint: &'a Checkpoint,
    data: &'a DataOptions,
    /// Memory limit of the process.
    pub limit: Limit,
}

impl<'a> InProcess<'a> {
    /// Runs on this checkpoint and these images, without a memory limit.
    pub fn new(checkpoint: &'a Checkpoint, data: &'a DataOptions) -> Self {
        Self { checkpoint, data, limit: Limit::default() }
    }

    fn diagnosis(&self, samples: Option<usize>, context: &Context) -> Result<Measurer> {
        let roles = Data::open(self.data, self.checkpoint)?
            .roles_of_training(self.checkpoint, context.seed)?;
        Measurer::new(self.checkpoint, &roles, samples, context)
    }

    fn session(
        &self,
        options: &PostTrainOptions,
        place: &Place,
        preview: Preview,
        context: &Context,
    ) -> Result<PostTrainSession> {
        let options = PostTrainOptions { limit: self.limit, ..options.clone() };
        let checkpoint = self.checkpoint.clone();
        PostTrainSession::prepare(&options, checkpoint, self.data, place, preview, context)
    }

    fn trained(&self, run: &BenchRun, folder: &Path, context: &Context) -> Result<RunResult> {
        let dump = folder.join("logits.safetensors");
        let dump_untouched = run.untouched.then(|| folder.join("untouched.safetensors"));
        let options = PostTrainOptions {
            dump: Some(dump.clone()),
            dump_untouched: dump_untouched.clone(),
            ..run.options.clone()
        };
        // Test is measured on what was written.
        let place = Place::New(folder.join(run.output()));
        let mut session = self.session(&options, &place, Preview::None, context)?;
        let plan = match self.limit.memory {
            Some(_) => session.outlook(0.0, context)?.plan,
            None => session.cache_plan(None)?,
        };
        let found = session.run(&plan, context)?;
        if let Some(error) = found.failure {
            return Err(error);
        }
        if let Some(why) = found.refusal {
            return Err(Error::Refused(why));
        }
        let untouched = dump_untouched.map(|dump| saved::read(&dump, None)).transpose()?;
        Ok(RunResult {
            seconds_per_epoch: found.outcome.seconds_per_epoch(),
            method: found.method,
            epochs: found.outcome.epochs,
            selection: found.selection,
            validation: found.figures.validation,
            test: found.figures.test,
            layers: found.figures.layers,
            damaged: found.damaged,
            training_peak_mib: found.training_peak_mib,
            cache: found.cache,
            scores: Some(saved::read(&dump, None)?.scores()),
            untouched_scores: untouched.map(|saved| saved.scores()),
        })
    }
}

impl BenchRunner for InProcess<'_> {
    type Error = Error;

    fn forecast_diagnosis(&self, samples: Option<usize>, context: &Context) -> Result<Part> {
        let mut session = self.diagnosis(samples, context)?;
        let all = self.checkpoint.network.blocks();
        let rates = session.calibrate(&all, self.limit.mib())?;
        Ok(Part::new("diagnosis", session.need(&all, &rates)))
    }

    fn diagnose(&self, samples: Option<usize>, context: &Context) -> Result<Option<Plan>> {
        let mut session = self.diagnosis(samples, context)?;
        let all = self.checkpoint.network.blocks();
        if self.limit.memory.is_some() {
            session.calibrate(&all, self.limit.mib())?;
        }
        Ok(session.measure(&all, &MeasureOptions::default(), context)?.plan)
    }

    fn forecast(&self, run: &BenchRun, context: &Context) -> Result<RunForecast> {
        let context = context.silenced();
        let place = Place::Nowhere;
        let mut session = self.session(&run.options, &place, Preview::DryRun, &context)?;
        let outlook = session.outlook(0.0, &context)?;
        let cache = Some(info(&outlook.plan, &session.prefix()));
        Ok(RunForecast { expected: outlook.expected, cache })
    }

    fn train(&self, run: &BenchRun, context: &Context) -> Result<RunResult> {
        let folder = scratch()?;
        let found = self.trained(run, folder.path(), &context.silenced());
        found.map_err(|error| error.context(format!("{}, seed {}", run.row, run.seed)))
    }
}

/// A temporary folder for the outputs of a run.
fn scratch() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("planish-bench-").tempdir();
    folder.map_err(|source| {
        let path = std::env::temp_dir();
        Error::from(crate::output::Error::Refused { path, source })
            .context("cannot create a temporary folder; set TMPDIR to a writable folder")
    })
}
