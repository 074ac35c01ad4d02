//! `post-train` up to the judgement: everything opened and checked, the layers chosen, the model
//! trained.

use super::Args;
use super::destination::Destination;
use super::record::method_info;
use crate::cache::Plan as CachePlan;
use crate::checkpoint::Checkpoint;
use crate::cli::caching::{Kept as KeptActivations, keep};
use crate::cli::format::duration;
use crate::cli::images::{Sources, pixels, sample};
use crate::cli::model::objective;
use crate::cli::outcome::{epoch_figures, epoch_line, start_line};
use crate::cli::recipe::recipe;
use crate::cli::subject::Subject;
use crate::cli::training::{Kept, check, micro_batch, settings, stepping};
use crate::data::order::Batches;
use crate::data::{Augment, Role, Roles, Split, require};
use crate::diagnose::Options;
use crate::objective::{Examples, Objective};
use crate::pixels::Pixels;
use crate::report::diagnosis::{Plan, perturbed_and_updated};
use crate::report::dry_run::Part;
use crate::report::post_training::CacheInfo;
use crate::train::post::{Event, Outcome, Settings, post_train};
use crate::train::recipe::{Kind, Recipe};
use crate::train::{Keep, Schedule};
use crate::vit::Granularity;
use crate::vit::layers::layers;
use anyhow::{Context, bail};
use candle_core::DType;
use std::cell::RefCell;

/// Validation images that each epoch is watched on: enough to see where a run goes.
const WATCHED: usize = 1000;

/// All that is known before training.
pub struct Work {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The data sets.
    pub sources: Sources,
    /// Who of their images does what.
    pub roles: Roles,
    /// The training images.
    pub train: Split,
    /// The same as the model takes them.
    pub images: Pixels,
    /// The training images as epochs show them.
    pub views: Vec<Pixels>,
    /// Their augmentation, with the seed of the views.
    pub augment: (Augment, u64),
    /// Whether activations are rounded to bf16.
    pub half: bool,
    /// The model.
    pub model: Objective,
    /// V, measured on; if there is one.
    pub subject: Option<Subject>,
    /// The method with its layers.
    pub recipe: Recipe,
    /// On whose word.
    pub chosen_by: String,
    /// What every method shares.
    pub settings: Settings,
    /// Where the result goes.
    pub destination: Destination,
    /// In a dry run, the diagnosis that choosing the layers would take.
    pub diagnosis_ahead: Option<Part>,
}

impl Work {
    /// Validation images that epochs are watched on, if there are any.
    pub fn watched(&self) -> Option<usize> {
        self.subject.as_ref().map(|s| s.validation.len().min(WATCHED))
    }

    /// The model as steps take it: they go no further down than to the lowest layer of the recipe.
    pub fn stepping(&self, args: &Args) -> Objective {
        stepping(&self.model, &args.recipe, args.limit.memory.is_some(), self.recipe.first_stage())
    }
}

/// Opens and checks everything, chooses the layers, by a diagnosis if need be.
///
/// # Errors
/// Whatever keeps training from starting.
pub fn prepare(args: &Args) -> anyhow::Result<Work> {
    check(&args.recipe)?;
    let checkpoint = args.model.open()?;
    crate::cli::output::spare(
        &[args.common.json.as_deref(), args.dump.as_deref()],
        &checkpoint.path,
        &args.data.files(),
    )?;
    let destination = args.place.open(&checkpoint, &args.common)?;
    let sources = args.data.open(&checkpoint)?;
    let roles = sources.roles(&checkpoint, args.common.seed)?;
    args.common.say_notes(&roles.notes);
    let train = require(Role::Train, roles.train.as_ref())?.clone();
    if args.dump.is_some() {
        require(Role::Test, roles.test.as_ref()).context("--dump writes logits on test")?;
    }
    let keep = match (args.keep.map(Kept::keep), &roles.val) {
        (Some(Keep::Best), None) => {
            bail!(
                "--keep best: expected validation images, found none; pass --val-data or --keep last"
            )
        }
        (Some(keep), _) => keep,
        (None, Some(_)) => Keep::Best,
        (None, None) => Keep::Last,
    };
    let seed = args.recipe.train_seed.unwrap_or(args.common.seed);
    let settings = settings(&args.recipe, keep, seed);
    // Known now, before a diagnosis and the frozen layers have taken their time.
    let steps = Batches::new(train.len(), settings.batch, 0, "B")?.per_epoch();
    Schedule::over(settings.schedule, settings.learning_rate, 0.0, settings.epochs, steps)?;

    let mut model = objective(&checkpoint, DType::F32)?;
    model.precision = args.recipe.precision.choose(&args.common);
    if let Some(n) = micro_batch(&args.recipe) {
        model.micro_batch = n.min(settings.batch);
    }
    let images = pixels(&checkpoint, &train)?;
    let views = args.recipe.cache.views(&images, settings.epochs, args.common.seed)?;
    let subject = match &roles.val {
        Some(_) => Some(Subject::new(&checkpoint, &roles, args.samples, &args.common)?),
        None => None,
    };
    let ahead = RefCell::new(None);
    let diagnose = || {
        let subject = subject.as_ref().context(
            "there are no validation images to make a plan on: pass --val-data, or --perturb and \
             --update",
        )?;
        plan(args, subject, &ahead)
    };
    let (mut recipe, mut chosen_by) =
        recipe(args.method, &args.layers, &args.recipe, &checkpoint, &roles.val_origin, &diagnose)?;
    // The training set has no more.
    recipe.perturbation_batch = recipe.perturbation_batch.min(train.len());
    if ahead.borrow().is_some() {
        chosen_by = "stand-ins for a plan, for a dry run does not diagnose".into();
    }
    destination.check_space(&checkpoint, &recipe.update)?;
    Ok(Work {
        checkpoint,
        sources,
        roles,
        train,
        images,
        views,
        augment: (args.recipe.cache.augment, args.common.seed),
        half: args.recipe.cache.half(),
        model,
        subject,
        recipe,
        chosen_by,
        settings,
        destination,
        diagnosis_ahead: ahead.into_inner(),
    })
}

/// What training gave.
pub struct Trained {
    /// The weights kept, and how the epochs went.
    pub outcome: Outcome,
    /// Validation images that epochs were watched on.
    pub watched: Option<usize>,
    /// Where the frozen layers' activations were kept.
    pub cache: CacheInfo,
    /// What a reader should know of it.
    pub notes: Vec<String>,
}

/// Runs the frozen layers, unless their activations are there or are not to be kept, then the epochs.
///
/// # Errors
/// Those of [`post_train`].
pub fn train(args: &Args, work: &Work, plan: &CachePlan) -> anyhow::Result<Trained> {
    let Work { recipe, settings, .. } = work;
    let model = &work.stepping(args);
    let (steps, stage) = (work.train.len() / settings.batch.max(1), recipe.first_stage());
    let about = |view| work.about(view);
    let KeptActivations { source, info: cache, notes } =
        keep(&args.recipe.cache, work.prefix(), plan, &about, &args.common)?;
    let watched = match &work.subject {
        Some(s) => {
            let few = sample(s.validation.split(), Some(WATCHED), args.common.seed)?;
            Some(work.model.activations_on_device(&pixels(&work.checkpoint, &few)?, stage)?)
        }
        None => None,
    };
    let mut method = recipe.method(&model.config, source.len(), settings.seed)?;
    let images = (steps as u64).saturating_mul(settings.batch as u64);
    let total = images.saturating_mul(settings.epochs as u64);
    let progress = args.common.progress(method.name(), total, "images");
    let mut files = args.epochs.open()?;
    let all = work.subject.as_ref().map(|s| s.validation.len());
    let watching = watched.as_ref().map(|few| few.labels.len()).zip(all).map(<[usize; 2]>::from);
    let say = |line: String| {
        if !args.common.quiet {
            progress.line(&line)
        }
    };
    let outcome =
        post_train(model, &mut *method, &source, watched.as_ref(), settings, &mut |event| {
            match event {
                Event::Start(loss) => say(start_line(loss, watching)),
                Event::Step(n) => progress.add(n as u64),
                Event::Epoch(epoch) => {
                    files.add(epoch.epoch, &epoch_figures(epoch));
                    say(epoch_line(epoch, watching));
                }
            }
        })?;
    files.finish()?;
    Ok(Trained { outcome, watched: watching.map(|[n, _]| n), cache, notes })
}

/// The plan of a diagnosis made now; in a dry run only its forecast is made, and head and last block
/// stand in for what it would find.
fn plan(
    args: &Args,
    subject: &Subject,
    ahead: &RefCell<Option<Part>>,
) -> anyhow::Result<Option<Plan>> {
    let config = &subject.objective.config;
    let all = layers(config, Granularity::Block);
    args.common.say(
        "note: neither options nor --plan name every layer, so a diagnosis chooses them first; \
         --perturb and --update, or for --method sgd --update alone, leave it out",
    );
    let mut subject = subject.at(subject.objective.clone());
    if args.place.dry_run || !args.common.quiet || args.limit.memory.is_some() {
        let found = subject.calibrate(&all, &args.limit)?;
        let need = subject.need(&all, &found);
        args.common.say(&format!(
            "diagnose: {} layers on {} images, about {} and {:.0} MiB",
            all.len(),
            subject.validation.len(),
            duration(need.seconds),
            need.mib
        ));
        ahead.replace(Some(Part::new("diagnosis", need)));
    }
    if args.place.dry_run {
        let last = config.depth.saturating_sub(1);
        return Ok(Some(Plan {
            perturb: "head".into(),
            update: format!("block.{last}"),
            tied_perturb: Vec::new(),
            tied_update: Vec::new(),
            basis: "none".into(),
        }));
    }
    ahead.replace(None);
    Ok(subject.measure(&all, &Options::default(), &args.common)?.plan)
}

/// What is about to be done.
///
/// # Errors
/// Those of [`method_info`].
pub fn intention(work: &Work) -> anyhow::Result<String> {
    let method = method_info(&work.recipe, &work.model.config, work.chosen_by.clone())?;
    let one =
        matches!(work.recipe.kind, Kind::Pol) && method.perturb.as_ref() == Some(&method.update);
    let meaning = match one {
        true => format!("; p = u: {}", perturbed_and_updated(&method.update)),
        false => String::new(),
    };
    Ok(format!(
        "{}: perturb {}, update {} ({}{meaning}); {} epochs of {} steps",
        method.name,
        method.perturb.as_deref().unwrap_or("nothing"),
        method.update,
        method.chosen_by,
        work.settings.epochs,
        work.train.len() / work.settings.batch.max(1),
    ))
}

/// The middle value; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
