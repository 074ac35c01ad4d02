//! A post-training run, from its options to the judged, saved and evaluated result.

use super::destination::{Destination, Place, read_back};
use super::figures::TunedFigures;
use super::forecast::Outlook;
use super::frozen::{self, FrozenLayers, view_name};
use super::judge::{Case, Judged, judge};
use super::record::{method_info, provenance};
use super::resolve::{Resolved, resolve};
use super::result::{Augmentation, MethodInfo, Output, Selection};
use super::run::{settings, stepping};
use super::score::{as_stored, usable};
use super::{PostTrainOptions, TrainedRecipe, WATCHED};
use crate::cache::{About, CacheInfo, StoragePlan};
use crate::checkpoint::{Checkpoint, ClassNames, Load, Rounding, SavedCheckpoint};
use crate::data::order::Batches;
use crate::data::{Augment, DamagedFile, DataOptions, Role, Roles, Split, require};
use crate::diagnose::MeasureOptions;
use crate::diagnose::Measurer;
use crate::diagnose::findings::{Plan, perturbed_and_updated};
use crate::error::{Error, Result};
use crate::forecast::Part;
use crate::format::{duration, epochs, steps};
use crate::lora::Adapters;
use crate::memory;
use crate::models::Weights;
use crate::objective::{Examples, Objective};
use crate::observe::Event as Progress;
use crate::pixels::Pixels;
use crate::session::bad_samples::damage_note;
use crate::session::evaluate::chosen_before;
use crate::session::{Context, Data, objective, pixels, sample};
use crate::train::options::keep_or_default;
use crate::train::recipe::{Recipe, ResolvedMethod};
use crate::train::run::{Outcome, TrainEvent, TrainSettings};
use crate::train::{Prefix, Schedule, TrainOptions};
use candle_core::DType;
use std::cell::RefCell;
use std::path::Path;

/// Everything known before training: a run, ready to start.
pub struct PostTrainSession {
    /// The options.
    pub options: PostTrainOptions,
    /// The training options, with those of the preset and the defaults filled in.
    pub train_options: TrainOptions,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub data: Data,
    /// Which of their images are for training, validation and test.
    pub roles: Roles,
    /// The training images.
    pub train: Split,
    /// The training images as model input.
    pub images: Pixels,
    /// The training images as epochs see them.
    pub views: Vec<Pixels>,
    /// Whether activations are rounded to bf16.
    pub half: bool,
    /// The model.
    pub model: Objective,
    /// The model on V, if there is one.
    pub diagnosis: Option<Measurer>,
    /// The method with its layers.
    pub recipe: Recipe,
    /// New adapters, if they are trained instead of the whole layer.
    pub adapters: Option<Adapters>,
    /// Where the layers come from.
    pub chosen_by: String,
    /// Settings that all methods share.
    pub settings: TrainSettings,
    /// Where the result is written.
    pub destination: Destination,
    /// In a dry run, the forecast of the diagnosis that would choose the layers.
    pub diagnosis_ahead: Option<Part>,
    /// Seed of everything random except training.
    pub seed: u64,
}

/// The result of training.
pub struct TrainedModel {
    /// The selected weights, with adapters merged, and the history of epochs.
    pub outcome: Outcome,
    /// The selected weights of the network with adapters, if adapters were trained.
    pub of_adapters: Option<Weights>,
    /// Number of validation images that epochs were watched on.
    pub watched: Option<usize>,
    /// Where the frozen layers' activations were kept.
    pub cache: CacheInfo,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Peak memory of the process at the end of training, MiB.
    pub peak_mib: Option<u64>,
}

/// The result of a run: judged, saved and evaluated.
pub struct PostTrained {
    /// The history of epochs.
    pub outcome: Outcome,
    /// Where the frozen layers' activations were kept.
    pub cache: CacheInfo,
    /// The method that was used.
    pub method: MethodInfo,
    /// Which weights were selected, and how they were judged.
    pub selection: Selection,
    /// Why nothing was written, if so.
    pub refusal: Option<String>,
    /// The file that was written.
    pub output: Option<Output>,
    /// Metrics before and after.
    pub figures: TunedFigures,
    /// Why there are no metrics although the file was written.
    pub failure: Option<Error>,
    /// Peak memory of the process at the end of training, MiB.
    pub training_peak_mib: Option<u64>,
    /// Damaged image files that were decoded in part and used.
    pub damaged: Vec<DamagedFile>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// What is measured before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preview {
    /// Nothing.
    None,
    /// A forecast.
    Forecast,
    /// Only a forecast. No diagnosis is made; head and last block stand in for its plan.
    DryRun,
}

impl PostTrainSession {
    /// Opens and checks everything, and chooses the layers, by a diagnosis if needed.
    ///
    /// # Errors
    /// Anything that keeps training from starting.
    pub fn prepare(
        options: &PostTrainOptions,
        checkpoint: Checkpoint,
        data: &DataOptions,
        place: &Place,
        preview: Preview,
        context: &Context,
    ) -> Result<Self> {
        options.check()?;
        let method = options.method()?;
        place.check_adapters(&method.lora())?;
        let destination = place.open(&checkpoint, method.name().name(), context)?;
        let data = Data::open(data, &checkpoint)?;
        let mut roles = data.roles_of_training(&checkpoint, context.seed)?;
        let used = roles.val.as_ref().and_then(|v| chosen_before(&checkpoint, v));
        roles.notes.extend(used);
        roles.notes.iter().for_each(|note| context.note(note));
        let train = require(Role::Train, roles.train.as_ref())?.clone();
        options.check_dump(&roles)?;
        let preset = options.preset;
        let (train_options, cut) = preset.train_on(&options.train, train.len());
        cut.into_iter().chain(preset.note(&[method.name()])).for_each(|note| context.note(&note));
        let keep = keep_or_default(options.keep, roles.val.is_some())?;
        let settings = settings(&train_options, keep, options.train_seed.unwrap_or(context.seed));
        // Fail before the diagnosis and the frozen layers run.
        let steps = Batches::new(train.len(), settings.batch_size, 0, "B")?.per_epoch();
        Schedule::over(settings.schedule, settings.lr, 0.0, settings.epochs, steps)?;
        let model = train_options.configured(&objective(&checkpoint, DType::F32, context.engine)?);
        let images = pixels(&checkpoint, &train)?;
        let views = frozen::views(&train_options, &images, context.seed)?;
        let diagnosis = match &roles.val {
            Some(_) => Some(Measurer::new(&checkpoint, &roles, options.samples, context)?),
            None => None,
        };
        let ahead = RefCell::new(None);
        let plan = || {
            let none = "there are no validation images to make a plan on: set `val_data`, or \
                        `perturb` and `update`";
            let session = diagnosis.as_ref().ok_or_else(|| Error::Missing(none.into()))?;
            planned(session, options.limit.mib(), preview, context, &ahead)
        };
        let report = options.plan.as_deref();
        let preset = preset.preset;
        let resolved = resolve(&method, preset, report, &checkpoint, &roles.val_origin, &plan)?;
        let Resolved { mut recipe, mut chosen_by } = resolved;
        // B′ cannot be larger than the training set.
        recipe.perturb_batch = recipe.perturb_batch.min(train.len());
        let diagnosis_ahead = ahead.into_inner();
        if diagnosis_ahead.is_some() {
            chosen_by = "placeholder layers, because a dry run does not diagnose".into();
        }
        let adapters = super::adapters(&recipe, &checkpoint, settings.seed)?;
        destination.check_space(&checkpoint, &recipe.update)?;
        Ok(Self {
            options: options.clone(),
            train_options,
            checkpoint,
            data,
            roles,
            train,
            images,
            views,
            half: options.cache.half(),
            model,
            diagnosis,
            recipe,
            adapters,
            chosen_by,
            settings,
            destination,
            diagnosis_ahead,
            seed: context.seed,
        })
    }

    /// Number of validation images that epochs are watched on, if there are any.
    pub fn watched(&self) -> Option<usize> {
        self.diagnosis.as_ref().map(|s| s.validation.len().min(WATCHED))
    }

    /// The model for training steps, which start at the recipe's lowest layer.
    pub fn stepping(&self) -> Objective {
        let bounded = self.options.limit.mib().is_some();
        stepping(&self.model, &self.train_options, bounded, self.recipe.first_stage())
    }

    /// The frozen layers over the training images.
    pub fn prefix(&self) -> Prefix<'_> {
        let views = self.views.iter().map(|view| view as &dyn Examples).collect();
        Prefix::new(&self.model, views, self.recipe.first_stage(), self.half)
    }

    /// Where activations are kept, given a number of bytes of memory. Default: the number from the
    /// options.
    ///
    /// # Errors
    /// Those of [`frozen::plan`].
    pub fn cache_plan(&self, ram: Option<u64>) -> Result<StoragePlan> {
        let cache = &self.options.cache;
        Ok(frozen::plan(cache, &self.prefix(), ram.unwrap_or(cache.ram_bytes()))?)
    }

    /// Images in the same kind of view as in training.
    ///
    /// # Errors
    /// Those of [`Pixels::view`].
    pub fn seen_as(&self, images: Pixels) -> Result<Pixels> {
        let augment = self.train_options.augment;
        let plain = augment == Augment::default();
        Ok(if plain { images } else { images.view(augment, self.seed, 0)? })
    }

    /// How training images are augmented, if at all.
    pub fn augmentation(&self) -> Option<Augmentation> {
        let augment = self.train_options.augment;
        let (text, views) = (augment.to_string(), self.views.len());
        let told = Augmentation { augment: text, views, seed: self.seed };
        (augment != Augment::default()).then_some(told)
    }

    /// Description stored in the file of a view.
    pub fn about(&self, view: usize) -> About {
        About {
            model: self.checkpoint.path.display().to_string(),
            data: self.train.place(),
            stage: self.model.network.stage_name(self.recipe.first_stage()),
            view: view_name(&self.train_options.augment, self.seed, view),
            version: env!("CARGO_PKG_VERSION").into(),
            ..About::default()
        }
    }

    /// One sentence on what the run will do.
    ///
    /// # Errors
    /// Those of [`method_info`].
    pub fn intention(&self) -> Result<String> {
        let method = self.method()?;
        let one = matches!(self.recipe.method, ResolvedMethod::Pol)
            && method.perturb.as_ref() == Some(&method.update);
        let meaning = match one {
            true => format!("; p = u: {}", perturbed_and_updated(&method.update)),
            false => String::new(),
        };
        let adapters = self.adapters.as_ref().map(|adapters| format!("; {}", adapters.intention()));
        let preset = self.options.preset.preset;
        let preset = preset.map_or(String::new(), |preset| format!("; preset {}", preset.name()));
        Ok(format!(
            "{}: perturb {}, update {} ({}{meaning}){}{preset}; {} of {}",
            method.name,
            method.perturb.as_deref().unwrap_or("nothing"),
            method.update,
            method.chosen_by,
            adapters.unwrap_or_default(),
            epochs(self.settings.epochs),
            steps(self.train.len() / self.settings.batch_size.max(1)),
        ))
    }

    /// The method, for reports.
    ///
    /// # Errors
    /// Those of [`method_info`].
    pub fn method(&self) -> Result<MethodInfo> {
        method_info(&self.recipe, &self.model.network, self.chosen_by.clone())
    }

    /// Forecasts the run. With a memory limit, lowers the micro-batch size and stops keeping
    /// activations until the total fits. `began` is the number of seconds already spent.
    ///
    /// # Errors
    /// Those of evaluating the model; a limit that cannot be met.
    pub fn outlook(&mut self, began: f64, context: &Context) -> Result<Outlook> {
        super::forecast::outlook(self, began, context)
    }

    /// Runs the frozen layers, unless their activations are cached or not to be kept, and then the
    /// epochs.
    ///
    /// # Errors
    /// Those of [`super::train()`].
    pub fn train(&self, plan: &StoragePlan, context: &Context) -> Result<TrainedModel> {
        let (recipe, settings) = (&self.recipe, &self.settings);
        let model = &self.stepping();
        let stage = recipe.first_stage();
        let about = |view| self.about(view);
        let FrozenLayers { source, info: cache, notes } =
            FrozenLayers::open(&self.options.cache, self.prefix(), plan, &about, context)?;
        let watched = match &self.diagnosis {
            Some(s) => {
                let few = sample(s.validation.split(), Some(WATCHED), self.seed)?;
                Some(self.model.activations_on_device(&pixels(&self.checkpoint, &few)?, stage)?)
            }
            None => None,
        };
        let all = self.diagnosis.as_ref().map(|s| s.validation.len());
        let few = watched.as_ref().map(|few| few.labels.len());
        let watching = few.zip(all).map(<[usize; 2]>::from);
        let steps = self.train.len() / settings.batch_size.max(1);
        let images = (steps as u64).saturating_mul(settings.batch_size as u64);
        let total = images.saturating_mul(settings.epochs as u64);
        let TrainedRecipe { outcome, of_adapters } = {
            let task = context.task(recipe.method.name(), total, "images");
            let mut tell = |event: TrainEvent| match event {
                TrainEvent::Start(loss) => {
                    context.observer.observe(Progress::Start { loss, watched: watching });
                }
                TrainEvent::Step { examples, .. } => task.advance(examples as u64),
                TrainEvent::Epoch(epoch) => {
                    context.observer.observe(Progress::Epoch { epoch, watched: watching });
                }
            };
            let adapters = self.adapters.as_ref();
            super::train(model, recipe, adapters, &source, watched.as_ref(), settings, &mut tell)?
        };
        let peak_mib = memory::peak_mib();
        Ok(TrainedModel { outcome, of_adapters, watched: few, cache, notes, peak_mib })
    }

    /// Trains, judges the result on all of V, saves it unless it is refused, and evaluates what was
    /// saved.
    ///
    /// # Errors
    /// Anything that keeps the model from being trained or saved. A refused result is not an error;
    /// see [`PostTrained::refusal`].
    pub fn run(&self, plan: &StoragePlan, context: &Context) -> Result<PostTrained> {
        let dump = self.options.dump.as_deref();
        let trained = self.train(plan, context)?;
        let (exact, weights) = (self.model.exact(), &trained.outcome.weights);
        let (tuned, overflow) = match self.written_adapters() {
            Some(_) => (exact.at(weights.clone()), None),
            None => match usable(as_stored(&self.checkpoint, &self.model, weights))? {
                Ok(tuned) => (tuned, None),
                Err(why) => (exact.clone(), Some(why)),
            },
        };
        let judged = judge(
            &self.checkpoint,
            &Case {
                model: &exact,
                tuned: &tuned,
                val: self.roles.val.as_ref(),
                outcome: &trained.outcome,
                keep: self.settings.keep,
                watched: trained.watched,
                overflow,
                write_worse: self.options.write_worse,
            },
        )?;
        let saved = match &judged.refusal {
            Some(_) => None,
            None => self.save(&trained, &judged)?,
        };
        let tuned = match &saved {
            Some(saved) => exact.at(self.read_back(saved)?),
            None => tuned,
        };
        let figures =
            super::figures::figures(self, &tuned, &judged, saved.is_some(), dump, context);
        let (figures, failure) = match figures {
            Ok(figures) => (figures, None),
            // The file is already written, so record the error in the report.
            Err(error) if saved.is_some() => (TunedFigures::default(), Some(error)),
            Err(error) => return Err(error),
        };
        let Judged { selection, refusal, notes: own, .. } = judged;
        let mut notes = self.roles.notes.clone();
        notes.extend(trained.notes);
        notes.extend(own);
        notes.extend(figures.temperature_notes());
        let damaged = self.data.damaged();
        notes.extend(damage_note(&damaged));
        notes.extend(failure.iter().map(|error| format!("there are no metrics: {}", full(error))));
        if let (Some(saved), None) = (&saved, self.written_adapters()) {
            notes.extend(self.checkpoint.format_note(&saved.path));
            notes.extend(self.checkpoint.unstored_options_note(&saved.path));
        }
        if let (Some(path), None) = (dump, &saved) {
            notes.push(format!(
                "{}: not written, because no checkpoint was written",
                path.display()
            ));
        }
        if self.roles.test.is_none() {
            notes.push("there is no test split, so there are no final metrics".into());
        }
        Ok(PostTrained {
            outcome: trained.outcome,
            cache: trained.cache,
            method: self.method()?,
            selection,
            refusal,
            output: saved.map(Output::from),
            figures,
            failure,
            training_peak_mib: trained.peak_mib,
            damaged,
            notes,
        })
    }

    fn save(&self, trained: &TrainedModel, judged: &Judged) -> Result<Option<SavedCheckpoint>> {
        let provenance = provenance(self, &judged.selection)?;
        let weights = trained.of_adapters.as_ref();
        if let (Some(adapters), Some(weights), Destination::New(out)) =
            (self.written_adapters(), weights, &self.destination)
        {
            let path =
                adapters.save(&self.checkpoint, out, weights, ClassNames::OfBase, &provenance)?;
            let rounding = Rounding { moved: adapters.parameters(), unchanged: 0 };
            return Ok(Some(SavedCheckpoint { path, rounding, undo: None }));
        }
        self.destination.save(&self.checkpoint, &trained.outcome.weights, &provenance)
    }

    /// The adapters, if they are written as such and not merged.
    fn written_adapters(&self) -> Option<&Adapters> {
        self.adapters.as_ref().filter(|adapters| !adapters.merges())
    }

    /// The weights of the written file, read as any program would.
    fn read_back(&self, saved: &SavedCheckpoint) -> Result<Weights> {
        if self.written_adapters().is_none() {
            return read_back(&self.checkpoint, saved);
        }
        let path = saved.path.display();
        let adapter = saved.path.parent().map(Path::to_path_buf);
        let base = Load { adapter, ..self.checkpoint.loaded_with.clone() };
        let again = Checkpoint::open(&self.checkpoint.path, &base);
        let context = || format!("{path} was written but cannot be read back");
        Ok(again.map_err(|e| Error::from(e).context(context()))?.weights)
    }
}

/// An error and its causes on one line.
fn full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text += &format!(": {next}");
        }
        cause = error.source();
    }
    text
}

/// The plan from a diagnosis made now. A dry run only forecasts the diagnosis; head and last block
/// stand in for its plan.
fn planned(
    session: &Measurer,
    memory_mib: Option<f64>,
    preview: Preview,
    context: &Context,
    ahead: &RefCell<Option<Part>>,
) -> Result<Option<Plan>> {
    let network = &session.objective.network;
    let all = network.blocks();
    context.note(
        "neither the options nor a plan name the layers, so a diagnosis chooses them first; to skip it, \
         set `perturb` and `update` (for the method sgd, only `update`)",
    );
    let mut session = session.at(session.objective.clone());
    let mut part = None;
    if preview != Preview::None || memory_mib.is_some() {
        let found = session.calibrate(&all, memory_mib)?;
        let need = session.need(&all, &found);
        context.info(&format!(
            "diagnose: {} layers on {} images, about {} and {:.0} MiB",
            all.len(),
            session.validation.len(),
            duration(need.seconds),
            need.mib
        ));
        part = Some(Part::new("diagnosis", need));
    }
    if preview == Preview::DryRun {
        ahead.replace(part);
        return Ok(Some(Plan {
            perturb: "head".into(),
            update: network.last_block().name,
            tied_perturb: Vec::new(),
            tied_update: Vec::new(),
            basis: "none".into(),
        }));
    }
    Ok(session.measure(&all, &MeasureOptions::default(), context)?.plan)
}
