//! `planish finetune`: train all weights of a new or given model.

use crate::args::{Common, note_precision};
use crate::message::in_flags;
use crate::render::epochs::EpochLog;
use crate::render::finetune::{epochs, plan, text};
use anyhow::Context as _;
use planish::checkpoint::weights_file;
use planish::finetune::{FinetuneOptions, FinetuneSession};
use planish::output;
use planish::report::Finetuning;
use planish::report::epochs::EpochFileOptions;
use planish::session::Context;
use std::path::Path;

/// Arguments of `planish finetune`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  planish finetune --arch vit_nano_patch7_28 --data \
                  /usr/share/datasets/fashion-mnist --epochs 12 --augment flip,shift=2 --out vit/")]
pub struct Args {
    /// Options of fine-tuning.
    #[command(flatten)]
    pub options: FinetuneOptions,
    /// Files with the figures of each epoch.
    #[command(flatten)]
    pub epoch_files: EpochFileOptions,
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

/// Trains, saves and prints the outcome.
///
/// # Errors
/// Anything wrong with options, model, data or output; a loss that is no longer finite.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args { options, common, .. } = args;
    let running = common.start()?;
    options.check()?;
    note_precision(options.training().precision, common);
    args.epoch_files.check()?;
    let weights = options.from.as_deref().map(weights_file).transpose()?;
    output::spare(
        &[common.json_file(), args.epoch_files.csv.as_deref(), Some(&options.out)],
        weights.as_deref().unwrap_or(Path::new("")),
        &options.data.iter().map(Path::new).collect::<Vec<_>>(),
    )?;
    let terminal = common.terminal();
    let context = common.context(&running, &terminal);
    let session = FinetuneSession::prepare(options, &context)?;
    if !common.quiet {
        args.common.print(&plan(&session))?;
    }
    let log = EpochLog::open(&args.epoch_files, &terminal, epochs(&session))?;
    let found = session.run(&Context { observer: &log, ..context })?;
    let logged = log.finish();
    let report = Finetuning::new(running.finish(), found);
    let written = format!("{} was written", report.checkpoint);
    let saved = common.save(&report);
    let mut text = text(&report);
    for note in common.untold(&report.notes, &session.start.notes) {
        text += &format!("note: {}\n", in_flags(note));
    }
    args.common.print(&text)?;
    saved.and(logged.map_err(Into::into)).context(written)
}
