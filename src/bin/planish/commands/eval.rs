//! `planish eval`: loss, accuracy and calibration of a checkpoint on a split.

use crate::args::{Common, ModelArgs, note_precision};
use crate::render::eval::text;
use crate::render::print;
use planish::data::DataOptions;
use planish::engine::Precision;
use planish::evaluate::summarise_at;
use planish::output;
use planish::report::{EVALUATION, Evaluation, Held};
use planish::session::bad_samples::damage_note;
use planish::session::evaluate::{Evaluated, evaluate};
use planish::session::{checkpoint_info, saved};
use planish::shift::{Others, Shift, corrupted_matrix, ood, others, preprocessing};
use std::path::PathBuf;

/// Arguments of `planish eval`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  planish eval vit/ --data /usr/share/datasets/fashion-mnist --dump \
                  logits.safetensors --json eval.json"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataOptions,
    /// Split to evaluate. [default: test, or the only split]
    ///
    /// The whole split is evaluated, in stored order. `val` can also select the images that fine-tuning
    /// held out.
    #[arg(long, value_name = "S", help_heading = "Evaluation options")]
    pub split: Option<String>,
    /// Operands of matrix products: f32, or bf16 with f32 accumulation
    #[arg(long, value_name = "f32|bf16", default_value_t, help_heading = "Evaluation options")]
    pub precision: Precision,
    /// Write logits, labels and temperatures, for `planish compare`.
    ///
    /// The file is safetensors with `logits` (N,C) f32, `labels` (N) i64 and `temperature` (N) f64,
    /// in stored order.
    #[arg(long, value_name = "FILE", help_heading = "Evaluation options")]
    pub dump: Option<PathBuf>,
    /// Also evaluate corrupted versions of the images.
    ///
    /// `corruptions` applies the fifteen common corruptions at five severities, at the model's image
    /// size. Names and severities select some of them. `cifar-c:DIR` instead of `corruptions` reads
    /// the files of CIFAR-10-C or CIFAR-100-C. With --json, an interrupted run resumes; a file with
    /// results of another model is an error.
    #[arg(
        long,
        value_name = "corruptions[:names][:severities]",
        help_heading = "Evaluation options"
    )]
    pub shift: Option<Shift>,
    /// Measure out-of-distribution detection on this data set (repeatable)
    #[arg(long, value_name = "NAME=DATA", value_parser = ood, help_heading = "Evaluation options")]
    pub ood: Vec<(String, String)>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Evaluates and prints.
///
/// # Errors
/// Invalid checkpoint, data or outputs, or logits that are not finite.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    saved::check(args.dump.as_deref())?;
    let checkpoint = args.model.open()?;
    let outputs = [args.dump.as_deref(), args.common.json.as_deref()];
    output::spare(&outputs, &checkpoint.path, &args.data.files())?;
    let held = Held::open(args.common.json.as_deref())?;
    if let Some(held) = &held {
        held.same_model(&checkpoint.digest, args.common.seed, env!("CARGO_PKG_VERSION"))?;
    }
    note_precision(args.precision, &args.common);
    let precision = args.precision;
    let terminal = args.common.terminal();
    let context = args.common.context(&running, &terminal);
    let found = evaluate(&checkpoint, &args.data, args.split.as_deref(), precision, &context)?;
    let Evaluated { predictions, temperatures, .. } = &found;
    let saved = args.dump.as_deref().map(|path| saved::write(path, predictions, temperatures));
    let Others { sets, notes, damaged } = others(&args.ood, &checkpoint, &found, &context)?;
    let mut warnings = found.warnings.clone();
    warnings.extend(notes);
    warnings.extend(damage_note(&damaged));
    let mut report = Evaluation {
        schema: EVALUATION.into(),
        figures: summarise_at(predictions, temperatures),
        run: running.finish(),
        checkpoint: checkpoint_info(&checkpoint),
        data: found.data.clone(),
        precision: precision.name().into(),
        temperature_origin: found.origin.clone(),
        predictions: saved.transpose()?,
        shifts: None,
        others: sets,
        damaged: [&found.damaged[..], &damaged].concat(),
        warnings,
    };
    match &args.shift {
        Some(asked) => {
            let origin = asked.origin(preprocessing(&checkpoint)?.image_size);
            let kept = held.map(|held| held.shifts(&report, Some(&origin))).transpose()?;
            // Corruptions read from files are always read again; their content is not known in
            // advance.
            let known = kept.filter(|_| asked.files(&found.split).is_ok_and(|f| f.is_none()));
            let known = known.map_or(Vec::new(), |kept| kept.cells);
            let clean = report.figures.clone();
            let mut save = |shifts: &_| {
                report.shifts = Some(Clone::clone(shifts));
                Ok(args.common.save(&report)?)
            };
            let all =
                corrupted_matrix((asked, known), &checkpoint, &found, &clean, &context, &mut save)?;
            report.shifts = Some(all);
        }
        // Keep earlier shift results in the file even if `--shift` is not given this time.
        None => report.shifts = held.map(|held| held.shifts(&report, None)).transpose()?,
    }
    report.run = running.finish();
    args.common.save(&report)?;
    Ok(print(&text(&report))?)
}
