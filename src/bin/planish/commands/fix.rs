//! `planish fix`: calibrate, move layers where it helps, and measure once on test.

use crate::args::{Common, ModelArgs, PlaceArgs};
use crate::render::fix::text;
use anyhow::Context;
use planish::checkpoint::weights_file;
use planish::data::DataOptions;
use planish::fix::{FixOptions, FixSession};
use planish::output;
use planish::report::Fixing;
use planish::report::html::{self, Input};
use std::path::{Path, PathBuf};

/// Options of `fix`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  planish fix tuned/ --pretrained vit/ --data images/ --out fixed/\n  \
                  planish fix tuned/ --pretrained vit/ --data images/ --budget 10m --in-place --html \
                  fix.html"
)]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The images.
    #[command(flatten)]
    pub data: DataOptions,
    /// Options of the fix.
    #[command(flatten)]
    pub options: FixOptions,
    /// Where the result is written.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Also write the result as an HTML page
    #[arg(long, value_name = "FILE", help_heading = "Fixing options")]
    pub html: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The model cannot be fixed, or the result cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    args.options.check()?;
    args.html.as_deref().map_or(Ok(()), output::check)?;
    let checkpoint = args.model.open()?;
    let outputs = [args.common.json_file(), args.place.out.as_deref(), args.html.as_deref()];
    let before = args.options.pretrained.as_deref().map(weights_file).transpose()?;
    let read: Vec<&Path> = args.data.files().into_iter().chain(before.as_deref()).collect();
    output::spare(&outputs, &checkpoint.path, &read)?;
    let terminal = args.common.terminal();
    let context = args.common.context(&clock, &terminal);
    let mut session =
        FixSession::prepare(&args.options, checkpoint, &args.data, &args.place.place(), &context)?;
    let plan = session.plan(clock.seconds(), &context)?;
    context.info(&plan.line(context.engine, args.options.budget));
    let found = session.run(&plan, &context)?;
    let report = Fixing::new(clock.finish(), &session, found, plan.expected);
    finish(&args.common, args.html.as_deref(), &report, &session.told())
}

/// Writes and prints the report. The notes of `told` were printed before.
///
/// # Errors
/// The report cannot be written.
pub fn finish(
    common: &Common,
    html: Option<&Path>,
    report: &Fixing,
    told: &[String],
) -> anyhow::Result<()> {
    let saved = common.save(report);
    let saved = saved.and_then(|()| html.map_or(Ok(()), |path| page(path, report)));
    common.print(&text(report, &common.untold(&report.notes, told)))?;
    saved.with_context(|| match &report.output {
        Some(file) => format!("{} was written", file.path),
        None => "nothing was written".into(),
    })
}

/// Writes the page.
fn page(path: &Path, report: &Fixing) -> anyhow::Result<()> {
    let report = html::Report::Fixing(Box::new(report.clone()));
    let input = Input { name: "fix".into(), report };
    Ok(output::write(path, html::page(&[input], &[]).as_bytes())?)
}
