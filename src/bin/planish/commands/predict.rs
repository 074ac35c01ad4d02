//! `planish predict`: the most probable classes of images without labels.

use crate::args::{Common, ModelArgs};
use planish::format::images;
use planish::output;
use planish::predict::{PredictOptions, PredictSession};
use planish::report::Prediction;
use planish::session::checkpoint_info;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `planish predict`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  planish predict vit/ --data photos/ --csv classes.csv")]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub options: PredictOptions,
    /// Write one line per image to this CSV file: its path, classes and probabilities
    #[arg(long, value_name = "FILE", help_heading = "Prediction options")]
    pub csv: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Classes in the summary.
const SHOWN: usize = 10;
/// Images in the output without `--csv`.
const LISTED: usize = 20;

/// Predicts, writes and prints.
///
/// # Errors
/// Invalid checkpoint, images or outputs, or logits that are not finite.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    args.csv.as_deref().map_or(Ok(()), output::check)?;
    let checkpoint = args.model.open()?;
    let outputs = [args.csv.as_deref(), args.common.json_file()];
    output::spare(&outputs, &checkpoint.path, &[&args.options.data])?;
    let session = PredictSession::prepare(&args.options, checkpoint)?;
    let terminal = args.common.terminal();
    let found = session.run(&args.common.context(&clock, &terminal))?;
    let report = Prediction::new(clock.finish(), checkpoint_info(&session.checkpoint), found);
    if let Some(path) = &args.csv {
        output::write(path, &report.csv()?)?;
    }
    args.common.save(&report)?;
    Ok(args.common.print(&text(&report, args.csv.is_some()))?)
}

fn text(report: &Prediction, written: bool) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for image in &report.images {
        let first = image.classes.first().map_or("", |found| &found.class);
        *counts.entry(first).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let mut out = format!("{} of {}\n", images(report.images.len()), report.data.path);
    for (class, count) in counts.iter().take(SHOWN) {
        out += &format!("{count:>7}  {class}\n");
    }
    if counts.len() > SHOWN {
        out += &format!("        other classes: {}\n", counts.len() - SHOWN);
    }
    if !written {
        out += "\n";
        for image in report.images.iter().take(LISTED) {
            let classes = image.classes.iter();
            let classes: Vec<String> =
                classes.map(|found| format!("{} {:.3}", found.class, found.probability)).collect();
            out += &format!("{}: {}\n", image.path.display(), classes.join(", "));
        }
        if report.images.len() > LISTED {
            let more = images(report.images.len() - LISTED);
            out += &format!("{more} not shown; write all with --csv\n");
        }
    }
    for note in &report.notes {
        out += &format!("note: {note}\n");
    }
    out
}
