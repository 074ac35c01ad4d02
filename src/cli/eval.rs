//! `planish eval`: how good a checkpoint is on a split.

use super::common::Common;
use super::format::{count, estimate, number, percent};
use super::images::{DataArgs, Sources, data_info, pixels};
use super::model::{ModelArgs, Watched, checkpoint_info, objective};
use super::precision::PrecisionArg;
use super::table::{Align, Style, Table};
use super::tensors::{f32_bytes, write_tensors};
use super::{output, tensors};
use crate::checkpoint::Checkpoint;
use crate::data::folds::stratified_halves;
use crate::data::{Roles, Split};
use crate::evaluate::{Estimate, Predictions, Summary, Temperature, summarise};
use crate::objective::Objective;
use crate::report::{EVALUATION, Evaluation};
use candle_core::DType;
use safetensors::Dtype;
use std::path::PathBuf;

/// Arguments of `planish eval`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  planish eval vit/ --data /usr/share/datasets/fashion-mnist --dump \
                  logits.safetensors"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Split to evaluate, whole and in stored order [default: test, or the only one]
    #[arg(long, value_name = "S")]
    pub split: Option<String>,
    /// In what products are taken.
    #[command(flatten)]
    pub precision: PrecisionArg,
    /// Write `logits` (N,C) f32 and `labels` (N) i64 as safetensors, in stored order
    #[arg(long, value_name = "FILE")]
    pub dump: Option<PathBuf>,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Evaluates and prints.
///
/// # Errors
/// Anything wrong with checkpoint, data or outputs; logits that are not finite.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    if let Some(path) = &args.dump {
        output::check(path)?;
    }
    let checkpoint = args.model.open()?;
    let outputs = [args.dump.as_deref(), args.common.json.as_deref()];
    output::spare(&outputs, &checkpoint.path, &args.data.files())?;
    let sources = args.data.open(&checkpoint)?;
    let split = sources.split(args.split.as_deref())?;
    pixels(&checkpoint, split)?;
    let roles = sources.roles(&checkpoint, args.common.seed)?;
    let other = other_images(&sources, &roles, split);
    let mut objective = objective(&checkpoint, DType::F32)?;
    objective.precision = args.precision.choose(&args.common);
    let predictions = predict(args, &checkpoint, &objective, split, "evaluating")?;
    if let Some(path) = &args.dump {
        dump(path, &predictions)?;
    }
    let (figures, temperature_origin) = match other {
        Some(v) => {
            let fitted_on = predict(args, &checkpoint, &objective, v, "validating")?;
            let origin = format!("V: {}, {} images", roles.val_origin, v.len());
            (summarise(&predictions, Temperature::FittedOn(&fitted_on))?, origin)
        }
        None => {
            let (first, _) = stratified_halves(predictions.labels(), args.common.seed);
            let origin = format!(
                "halves of the split itself, each scored at the other's (stratified, seed {})",
                args.common.seed
            );
            (summarise(&predictions, Temperature::CrossFitted(&first))?, origin)
        }
    };
    let origin = format!("split {}, whole, in stored order", split.name());
    let report = Evaluation {
        schema: EVALUATION.into(),
        run: running.finish(),
        checkpoint: checkpoint_info(&checkpoint),
        data: data_info(sources.of(split), split, &origin),
        precision: objective.precision.name().into(),
        figures,
        temperature_origin,
        warnings: warnings(&checkpoint, &sources, &roles),
    };
    args.common.save(&report)?;
    Ok(output::print(&text(&report))?)
}

/// V, if it shares no image with `split`: a temperature must not be judged by the images it was
/// fitted on.
fn other_images<'a>(sources: &Sources, roles: &'a Roles, split: &Split) -> Option<&'a Split> {
    let v = roles.val.as_ref()?;
    // What a role lost by being cut went to V.
    let was_cut = |name: &str, role: &Option<Split>| {
        let whole = sources.split(Some(name)).ok().or(sources.data.only());
        let less = |whole: &&Split| role.as_ref().is_some_and(|part| part.len() < whole.len());
        whole.filter(less).is_some_and(|whole| whole.digest() == split.digest())
    };
    let shares = was_cut("train", &roles.train) || was_cut("test", &roles.test);
    (!shares && split.digest() != v.digest()).then_some(v)
}

fn predict(
    args: &Args,
    checkpoint: &Checkpoint,
    objective: &Objective,
    split: &Split,
    label: &str,
) -> anyhow::Result<Predictions> {
    let progress = args.common.progress(label, split.len() as u64, "images");
    let examples = pixels(checkpoint, split)?;
    Ok(objective.predict(&Watched { examples: &examples, progress: &progress })?)
}

fn dump(path: &std::path::Path, predictions: &Predictions) -> Result<(), tensors::Error> {
    let logits = predictions.values().iter().map(|&z| z as f32);
    let labels = predictions.labels().iter().flat_map(|&y| i64::from(y).to_le_bytes());
    let (n, c) = (predictions.images(), predictions.classes());
    write_tensors(
        path,
        &[
            ("logits".into(), Dtype::F32, vec![n, c], f32_bytes(logits)),
            ("labels".into(), Dtype::I64, vec![n], labels.collect()),
        ],
    )
}

fn warnings(checkpoint: &Checkpoint, sources: &Sources, roles: &Roles) -> Vec<String> {
    let names = |note: &&String| sources.notes.contains(note) || note.contains("class");
    let assumed = checkpoint.assumed.iter().map(|what| format!("assumed: {what}"));
    assumed.chain(roles.notes.iter().filter(names).cloned()).collect()
}

fn text(report: &Evaluation) -> String {
    let f: &Summary = &report.figures;
    let of = |mean, stderr| estimate(Estimate { mean, stderr });
    let mut table = Table::new(&[("figure", Align::Left), ("value", Align::Right)]);
    let share = |mean: f64, stderr: Option<f64>| match stderr {
        Some(stderr) => format!("{} ± {}", percent(mean), percent(stderr)),
        None => percent(mean),
    };
    table.row(["NLL (nats)", &of(f.nll, f.nll_stderr)]);
    table.row(["top-1", &share(f.top1, f.top1_stderr)]);
    table.row(["top-5", &percent(f.top5)]);
    table.row(["ECE", &number(f.ece)]);
    table.row(["temperature", &number(f.temperature)]);
    table.row(["calibrated NLL (nats)", &of(f.calibrated_nll, f.calibrated_nll_stderr)]);
    table.row(["calibrated ECE", &number(f.calibrated_ece)]);
    let mut out = format!(
        "{} on {}, {}: {} images\ntemperature fitted on {}\n\n",
        report.checkpoint.path,
        report.data.path,
        report.data.origin,
        count(report.data.images as u64),
        report.temperature_origin,
    );
    out += &table.render(Style::of_stdout());
    if f.temperature_at_bound {
        out += "note: the loss has no minimum within 0.001 ≤ T ≤ 1000\n";
    }
    report.warnings.iter().for_each(|warning| out += &format!("note: {warning}\n"));
    out
}
