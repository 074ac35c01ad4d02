//! A fine-tuning run, from its options to the saved and evaluated checkpoint.

use super::record::provenance;
use super::{FinetuneImages, FinetuneOptions, InitialModel};
use crate::checkpoint::{self, Checkpoint, ClassNames, Provenance, StepSettings};
use crate::data::folds::stratified_halves;
use crate::data::order::Batches;
use crate::data::{Augment, DamagedFile, DataInfo, DataSet, Split, SplitProvenance};
use crate::engine::Engine;
use crate::error::Result;
use crate::evaluate::{Summary, Temperature, summarise};
use crate::format::number;
use crate::lora::Adapters;
use crate::models::layers::everything;
use crate::models::{Layer, Network, Weights};
use crate::objective::{Activations, Examples, Objective};
use crate::observe;
use crate::options;
use crate::pixels::Pixels;
use crate::predictions::Predictions;
use crate::session::bad_samples::open_for_training;
use crate::session::{Context, Counted, seen};
use crate::train::late::LateSam;
use crate::train::options::keep_or_default;
use crate::train::sam::Sam;
use crate::train::sgd::Sgd;
use crate::train::source::resident;
use crate::train::{
    Epoch, Grouping, Keep, Method, Outcome, Schedule, Source, StopRule, TrainEvent, TrainOptions,
    TrainSettings, train,
};
use std::path::PathBuf;

/// A prepared run, ready to train.
pub struct FinetuneSession {
    /// The options.
    pub options: FinetuneOptions,
    /// The training options, with the defaults filled in.
    pub train_options: TrainOptions,
    /// The data set.
    pub data: DataSet,
    /// Training, validation and test images.
    pub images: FinetuneImages,
    /// The model at the start.
    pub start: InitialModel,
    /// Settings of the training loop.
    pub settings: TrainSettings,
    /// Seed of all random choices.
    pub seed: u64,
    engine: Engine,
    train: Pixels,
    val: Option<Pixels>,
    test: Option<Pixels>,
}

/// Both phases of training, before the result is saved.
pub struct Phases {
    /// Training of the head alone, before all layers.
    pub head: Option<Outcome>,
    /// Training of all layers.
    pub outcome: Outcome,
}

/// Result of a run.
pub struct Finetuned {
    /// Epochs in which the head was trained alone, before all layers.
    pub head_epochs: Vec<Epoch>,
    /// Result of training.
    pub outcome: Outcome,
    /// The weights file that was written.
    pub checkpoint: PathBuf,
    /// All settings, as in the checkpoint's provenance.
    pub settings: StepSettings,
    /// Figures on each split. The temperature is fitted on the validation images. For the validation
    /// images themselves, or without any, it is fitted on each half and applied to the other.
    pub figures: Vec<(String, Summary)>,
    /// The splits.
    pub data: Vec<DataInfo>,
    /// Damaged image files that were used as decoded.
    pub damaged: Vec<DamagedFile>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl FinetuneSession {
    /// Opens the data, checks the options and the output, and builds the model.
    ///
    /// # Errors
    /// Anything that prevents training from starting.
    pub fn prepare(options: &FinetuneOptions, context: &Context) -> Result<Self> {
        options.check()?;
        let seed = context.seed;
        let open = |classes| match options.from.as_deref() {
            Some(from) => Checkpoint::open_backbone(from, &options.load, classes).map(Some),
            None => Ok(None),
        };
        // A backbone gets a head when the number of classes is known.
        let parent = open(1)?;
        parent.as_ref().map_or(Ok(()), Checkpoint::check_new_head)?;
        let named = parent.as_ref().filter(|parent| !options.reset_head && !parent.headless);
        let (data, notes) = open_for_training(options.on_bad_sample, &options.data, named)?;
        let images = FinetuneImages::divide(options, &data, seed)?;
        let parent = match parent.as_ref().is_some_and(|parent| parent.headless) {
            true => open(images.classes)?,
            false => parent,
        };
        let (train_options, cut) = options.training_on(images.train.len());
        let mut start = InitialModel::new(options, parent, &data, &images, notes, seed)?;
        start.notes.extend(cut);
        if let (Some(parent), true) = (&start.parent, images.fraction > 0.0) {
            let data_digest = images.whole.digest().into();
            let held = SplitProvenance { seed, fraction: images.fraction, data_digest };
            start.notes.extend(seen(parent, &held));
        }
        let settings = settings(options, &train_options, images.val.is_some(), seed)?;
        if options.sam_last > 0 && settings.keep == Keep::Best && images.val.is_some() {
            start.notes.push(
                "`sam_last`: with `keep` best, the weights of an epoch before the SAM phase may be kept; set `keep` \
                 to last to always keep its result"
                    .into(),
            );
        }
        let pixels = |split: &Split| Pixels::new(split, start.preprocess.as_ref(), &start.network);
        let train = pixels(&images.train)?;
        let val = images.val.as_ref().map(pixels).transpose()?;
        let test = images.test.as_ref().map(pixels).transpose()?;
        let steps = Batches::new(train.len(), settings.batch_size, seed, "B")?.per_epoch();
        Schedule::over(settings.schedule, settings.lr, settings.warmup, settings.epochs, steps)?;
        if train_options.augment != Augment::default() {
            // Fail before training: prepared images cannot be cropped.
            train.view(train_options.augment, seed, 0)?;
        }
        let (options, engine) = (options.clone(), context.engine.clone());
        Ok(Self {
            options,
            train_options,
            data,
            images,
            start,
            settings,
            seed,
            engine,
            train,
            val,
            test,
        })
    }

    /// The initial model, with the label smoothing and precision of the run.
    pub fn model(&self) -> Objective {
        let (network, weights) = match &self.start.adapters {
            Some(adapters) => (&adapters.network, &adapters.weights),
            None => (&self.start.network, &self.start.weights),
        };
        let model = Objective::new(network.clone(), weights.clone(), &self.engine);
        self.train_options.configured(&model)
    }

    /// Trains all weights, or adapters and head; with `head_first`, the head alone before that. If the run
    /// diverges after the first epoch, the outcome holds the weights of an earlier epoch and `stopped`.
    ///
    /// # Errors
    /// [`Diverged`](crate::train::Error::Diverged) if the run diverges in the first epoch; images that
    /// cannot be prepared.
    pub fn train(&self, context: &Context) -> Result<Phases> {
        let (settings, options) = (&self.settings, &self.train_options);
        let head = match self.options.head_first {
            0 => None,
            epochs => Some(self.train_head(epochs, context)?),
        };
        let mut model = self.model();
        if let Some(head) = &head {
            model.weights = head.weights.clone();
        }
        let source = Source::images(&self.train, options.augment, options.views, self.seed)?;
        let held = self.val.as_ref().map(resident).transpose()?.flatten();
        let validation = match (&held, &self.val) {
            (Some(held), _) => Some(held as &dyn Examples),
            (None, val) => val.as_ref().map(|val| val as &dyn Examples),
        };
        let images = (self.train.len() / settings.batch_size) * settings.batch_size;
        let total = (images as u64).saturating_mul(settings.epochs as u64);
        let task = context.task("finetune", total, "images");
        let mut tell = |event: TrainEvent| match event {
            TrainEvent::Start(_) => {}
            TrainEvent::Step { examples, loss } => {
                task.advance(examples as u64);
                task.status(&format!("loss {}", number(loss)));
            }
            TrainEvent::Epoch(epoch) => {
                context.observer.observe(observe::Event::Epoch { epoch, watched: None });
            }
        };
        let update = match &self.start.adapters {
            Some(adapters) => adapters.update.clone(),
            None => everything(&self.start.network),
        };
        let mut method = self.method(&model.network, update)?;
        let outcome = train(&model, &mut *method, &source, validation, settings, &mut tell)?;
        Ok(Phases { head, outcome: outcome.trained()? })
    }

    /// SGD, or SGD followed by SAM.
    fn method(&self, network: &Network, update: Layer) -> Result<Box<dyn Method>> {
        let late = self.options.late()?.and_then(|late| late.ascent());
        let first = Sgd { update: update.clone() };
        let Some((variant, rho)) = late else { return Ok(Box::new(first)) };
        let last = Sam::new(network, update, variant, rho)?;
        let epochs = self.settings.epochs - self.options.sam_last;
        let remaining = epochs * (self.train.len() / self.settings.batch_size);
        Ok(Box::new(LateSam { first, last, remaining }))
    }

    /// Trains the head alone, on features of the images without augmentation, which are computed once.
    fn train_head(&self, epochs: usize, context: &Context) -> Result<Outcome> {
        let model = self.model();
        let head = model.network.blocks().pop().unwrap_or_else(|| everything(&model.network));
        let features = |images: &Pixels| -> Result<Activations> {
            let task = context.task("head first: features", images.len() as u64, "images");
            let counted = Counted { examples: images, task: &task };
            Ok(model.activations(&counted, head.first_stage)?)
        };
        let source = Source::held(&features(&self.train)?);
        let validation = self.val.as_ref().map(features).transpose()?;
        let validation = validation.as_ref().map(|val| val as &dyn Examples);
        let task = context.task("head first", epochs as u64, "epochs");
        let mut tell = |event: TrainEvent| {
            if let TrainEvent::Epoch(epoch) = event {
                task.advance(1);
                task.status(&format!("loss {}", number(epoch.training_loss)));
            }
        };
        let warmup = self.settings.warmup.min(epochs as f64);
        // Rates of layers concern several layers, and the average is that of the main phase.
        let grouping =
            Grouping { decay_all: self.settings.grouping.decay_all, ..Grouping::default() };
        let settings =
            TrainSettings { epochs, warmup, grouping, average: None, ..self.settings.clone() };
        let mut sgd = Sgd { update: head };
        Ok(train(&model, &mut sgd, &source, validation, &settings, &mut tell)?.trained()?)
    }

    /// Trains, saves the checkpoint and evaluates it.
    ///
    /// # Errors
    /// Those of [`FinetuneSession::train`]; a checkpoint that cannot be written; logits that are not
    /// finite.
    pub fn run(&self, context: &Context) -> Result<Finetuned> {
        let Phases { head, outcome } = self.train(context)?;
        let provenance = provenance(self, outcome.epoch)?;
        let checkpoint = self.save(&outcome.weights, &provenance)?;
        let mut notes = self.start.notes.clone();
        let head_stopped =
            head.as_ref().and_then(|head| Some((head.epoch, head.stopped.as_ref()?)));
        notes.extend(head_stopped.map(|(epoch, stopped)| {
            format!("head first: {stopped}; training went on from epoch {epoch} of the head")
        }));
        notes.extend(
            outcome.stopped.as_ref().map(|stopped| {
                format!("{stopped}; the weights of epoch {} are kept", outcome.epoch)
            }),
        );
        let whole = self.start.adapters.as_ref().is_none_or(Adapters::merges);
        if let (Some(parent), true) = (&self.start.parent, whole) {
            notes.extend(parent.format_note(&checkpoint));
            notes.extend(parent.unstored_options_note(&checkpoint));
        }
        Ok(Finetuned {
            figures: self.figures(&outcome.weights)?,
            data: self.images.info(&self.data),
            damaged: self.data.damaged(),
            settings: provenance.settings,
            head_epochs: head.map_or(Vec::new(), |head| head.epochs),
            outcome,
            checkpoint,
            notes,
        })
    }

    fn save(&self, weights: &Weights, provenance: &Provenance) -> Result<PathBuf> {
        let (out, names) = (&self.options.out, self.images.whole.class_names());
        let start = &self.start;
        let merged;
        let weights = match (&start.adapters, &start.parent) {
            (Some(adapters), Some(parent)) if !adapters.merges() => {
                // As for a whole checkpoint: without new names, a kept head keeps those of the parent.
                let names = match names {
                    None if !start.fresh_head => ClassNames::OfBase,
                    names => ClassNames::Own(names.map(<[String]>::to_vec)),
                };
                return adapters.save(parent, out, weights, names, provenance);
            }
            (Some(adapters), _) => {
                merged = adapters.merged(&start.network, weights)?;
                &merged
            }
            (None, _) => weights,
        };
        Ok(match &start.parent {
            // Without new class names, a kept head keeps the class names of the parent.
            Some(parent) if names.is_none() && !start.fresh_head => {
                parent.save(out, weights, provenance)?.path
            }
            Some(parent) => parent.save_with_classes(out, weights, names, provenance)?.path,
            None => {
                let preprocess = start.preprocess.as_ref();
                checkpoint::create(
                    out,
                    start.network.config(),
                    preprocess,
                    weights,
                    names,
                    provenance,
                )?
            }
        })
    }

    fn figures(&self, weights: &Weights) -> Result<Vec<(String, Summary)>> {
        let model = self.model().exact().at(weights.clone());
        let judged = self.val.as_ref().map(|val| model.predict(val)).transpose()?;
        let train = summary(&model.predict(&self.train)?, judged.as_ref(), self.seed)?;
        let mut figures = vec![("train".into(), train)];
        if let Some(val) = &judged {
            figures.push(("val".into(), summary(val, None, self.seed)?));
        }
        if let Some(test) = &self.test {
            let test = summary(&model.predict(test)?, judged.as_ref(), self.seed)?;
            figures.push(("test".into(), test));
        }
        Ok(figures)
    }
}

fn settings(
    options: &FinetuneOptions,
    train: &TrainOptions,
    has_validation: bool,
    seed: u64,
) -> Result<TrainSettings, options::Error> {
    let keep = keep_or_default(options.keep, has_validation)?;
    let mut settings = train.settings(options.rule(), keep, StopRule::NotFinite, seed);
    settings.grouping.layer_decay = options.layer_decay;
    settings.grouping.auto_rgn = options.auto_rgn;
    settings.l2_sp = options.l2_sp;
    Ok(settings)
}

/// Figures on a split, at the temperature fitted on `val`, or cross-fitted on halves without `val`.
fn summary(
    of: &Predictions,
    val: Option<&Predictions>,
    seed: u64,
) -> Result<Summary, crate::evaluate::Error> {
    match val {
        Some(val) => summarise(of, Temperature::FittedOn(val)),
        None => {
            let (half, _) = stratified_halves(of.labels(), seed);
            summarise(of, Temperature::CrossFitted(&half))
        }
    }
}
