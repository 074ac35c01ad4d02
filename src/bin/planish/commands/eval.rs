//! `planish eval`: loss, accuracy and calibration of a checkpoint on a split.

use crate::args::{Common, ModelArgs, note_precision};
use crate::render::eval::text;
use planish::data::DataOptions;
use planish::eval::{EvaluateOptions, EvaluateSession};
use planish::output;
use planish::report::{EarlierEvaluation, Evaluation};

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
    /// What to evaluate.
    #[command(flatten)]
    pub options: EvaluateOptions,
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
    let json = args.common.json_file();
    let checkpoint = args.model.open()?;
    let (per_class, confusion) = (&args.options.per_class, &args.options.confusion);
    let outputs = [args.options.dump.as_deref(), json, per_class.as_deref(), confusion.as_deref()];
    [per_class, confusion].into_iter().flatten().try_for_each(|path| output::check(path))?;
    output::spare(&outputs, &checkpoint.path, &args.data.files())?;
    let session = EvaluateSession::prepare(&args.options, checkpoint, &args.data)?;
    let earlier = EarlierEvaluation::open(json, &session.checkpoint, args.common.seed)?;
    note_precision(args.options.precision, &args.common);
    let terminal = args.common.terminal();
    let context = args.common.context(&running, &terminal);
    let found = session.run(&context)?;
    if let Some(path) = per_class {
        output::write(path, &found.by_class.classes_csv()?)?;
    }
    if let Some(path) = confusion {
        output::write(path, &found.by_class.confusion_csv()?)?;
    }
    let mut report = Evaluation::new(running.finish(), &session, &found);
    report.add_shifts(&session, &found, earlier, &context, &mut |report| {
        Ok(args.common.save_so_far(report)?)
    })?;
    report.run = running.finish();
    args.common.save(&report)?;
    Ok(args.common.print(&text(&report))?)
}
