//! `planish post-train`: PoL, PoF, SAM or plain SGD from a fine-tuned checkpoint.
//!
//! Prepare, train, judge, save, report.

use super::common::Common;
use super::diagnose::Subject;
use super::images::{DataArgs, data_info};
use super::judge::{Case, Judged, judge};
use super::model::{ModelArgs, checkpoint_info};
use super::outcome::show;
use super::output::print;
use super::post_train_record::{method_info, provenance};
use super::post_train_work::{Work, prepare, train};
use super::recipe::{LayerArgs, Name};
use super::scoring::{Pair, before_after, predict, remeasure};
use super::training::{Kept, RecipeArgs};
use crate::data::Split;
use crate::report::post_training::{Report, SCHEMA, TimedRun};
use anyhow::bail;
use std::path::PathBuf;

/// Options of `post-train`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  planish post-train model/ --data fashion-mnist/ --method pol \
                        --out better/\n  planish post-train model/ --data fashion-mnist/ --method \
                        pol --perturb head --update block.5 --out better/\n  planish post-train \
                        model/ --data fashion-mnist/ --method sam --clip 1 --warmup 0.5 --out \
                        better/"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Method
    #[arg(long, value_enum, default_value = "pol")]
    pub method: Name,
    /// Where the result goes: a .safetensors file or a folder
    #[arg(long, value_name = "NEW")]
    pub out: PathBuf,
    /// The layers.
    #[command(flatten)]
    pub layers: LayerArgs,
    /// Validation images that the plan is made on [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Weights to keep: of the epoch with the least validation loss, or of the last [default: best
    /// with validation images, else last]
    #[arg(long, value_enum)]
    pub keep: Option<Kept>,
    /// Write the result even if it is worse than the input on the validation images
    #[arg(long)]
    pub force: bool,
    /// How it is trained.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// Anything that keeps the model from being trained, or its result from being written: a result
/// worse than the input, too, which the report tells all the same.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    let work = prepare(args)?;
    let trained = train(args, &work)?;
    let training_peak_mib = clock.finish().peak_mib;
    let Work { checkpoint, sources, roles, train, recipe, .. } = &work;
    let tuned = work.model.at(trained.outcome.weights.clone());
    let judged = judge(
        checkpoint,
        &Case {
            model: &work.model,
            tuned: &tuned,
            val: roles.val.as_ref(),
            outcome: &trained.outcome,
            keep: work.settings.keep,
            watched: trained.watched,
            force: args.force,
        },
    )?;
    let Judged { on_v, selection, refusal, notes } = judged;
    let output = match &refusal {
        Some(_) => None,
        None => {
            let provenance = provenance(checkpoint, recipe, &work.settings, &selection, train)?;
            Some(checkpoint.save(&args.out, &tuned.weights, &provenance)?.display().to_string())
        }
    };
    let scored = |split: &Option<Split>, own: Option<&Pair>, v: Option<&Pair>, origin: &str| {
        let both = split.as_ref().zip(own);
        let score = |(split, own): (&Split, &Pair)| {
            let info = data_info(sources.of(split), split, origin);
            before_after(own, v, info, args.common.seed)
        };
        both.map(score).transpose()
    };
    let validation = scored(&roles.val, on_v.as_ref(), None, &roles.val_origin)?;
    // What is not written is no result: test stays unread, and nothing is measured again.
    let on_test = match &output {
        Some(_) => predict(checkpoint, [&work.model, &tuned], roles.test.as_ref())?,
        None => None,
    };
    let test = scored(&roles.test, on_test.as_ref(), on_v.as_ref(), "test")?;
    let layers = match (&output, args.recipe.remeasure, &work.subject) {
        (None, ..) | (_, Some(0), _) | (.., None) => Vec::new(),
        (_, None, Some(subject)) => remeasure(subject, &tuned, recipe, &args.common)?,
        (_, n, Some(_)) => {
            let subject = Subject::new(checkpoint, roles, n, &args.common)?;
            remeasure(&subject, &tuned, recipe, &args.common)?
        }
    };
    let mut all_notes = roles.notes.clone();
    all_notes.extend(notes);
    if roles.test.is_none() {
        all_notes.push("there is no test split, so there are no final figures".into());
    }
    let epochs = trained.outcome.epochs;
    let seconds_per_epoch = median(epochs.iter().map(|e| e.seconds).collect());
    let cache_seconds = trained.cache_seconds;
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), seconds_per_epoch, training_peak_mib, cache_seconds },
        checkpoint: checkpoint_info(checkpoint),
        output,
        method: method_info(recipe, &checkpoint.config, work.chosen_by.clone())?,
        settings: work.settings.clone(),
        training: data_info(sources.of(train), train, "train"),
        micro_batch: work.model.micro_batch,
        cached: trained.cached,
        epochs,
        selection,
        validation,
        test,
        layers,
        notes: all_notes,
    };
    print(&show(&report))?;
    args.common.save(&report)?;
    refusal.map_or(Ok(()), |why| bail!("{why}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
