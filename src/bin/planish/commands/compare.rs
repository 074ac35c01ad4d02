//! `planish compare`: compares two models on the same images.

use crate::args::{Common, note_precision};
use crate::render::compare::text;
use planish::compare::{CompareOptions, compare};
use planish::output;
use planish::report::comparison::ComparisonReport;
use std::path::PathBuf;

/// Arguments of `planish compare`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  planish compare before.json after.json\n  planish compare vit/ \
                  tuned/ --data fashion-mnist/\n  planish compare vit/ vit/ --adapter lora/ --data \
                  fashion-mnist/\n\nA report refers to the logits that `eval \
                  --dump` or `post-train --dump` saved next to it."
)]
pub struct Args {
    /// First model: a report (.json), logits (.safetensors) or a checkpoint.
    ///
    /// Reports are those of `eval` and `post-train`, run with --json and --dump.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Second model. An adapter (--adapter) is this model's
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Options of the comparison.
    #[command(flatten)]
    pub options: CompareOptions,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Compares the models and prints the result.
///
/// # Errors
/// A side cannot be read or evaluated, or the sides have different classes or images.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    output::spare(&[args.common.json_file()], &args.a, &[&args.b])?;
    if args.options.data.is_some() {
        note_precision(args.options.precision, &args.common);
    }
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let found = compare(&args.a, &args.b, &args.options, &context)?;
    let report = ComparisonReport::new(clock.finish(), found);
    args.common.save(&report)?;
    Ok(args.common.print(&text(&report))?)
}
