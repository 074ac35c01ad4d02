//! `planish report`: an HTML page of results.

use crate::message::in_flags;
use crate::render::print;
use planish::output;
use planish::report::html::{self, Input, PictureError, find_pictures};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `planish report`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  planish report diagnosis.json bench.json post-train.json --html \
                  report.html --data fashion-mnist/"
)]
pub struct Args {
    /// Results to show: JSON reports, or tables of a study, in any order.
    ///
    /// Accepted are the --json files of diagnose, post-train, bench, eval, calibrate, merge, fix, compare and finetune,
    /// and the study tables results.jsonl, runs.jsonl, layers.jsonl and ood.jsonl.
    #[arg(value_name = "RESULT.json", required = true)]
    pub results: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    /// Data set of post-train, to show the images that tuning fixed or broke
    #[arg(long, value_name = "D")]
    pub data: Option<String>,
    /// Do not print what was written
    #[arg(long)]
    pub quiet: bool,
}

/// Reads the results and writes the page.
///
/// # Errors
/// A file is not a result, the images belong to no result, or the page cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    output::check(&args.html)?;
    let inputs: Vec<&Path> = args.results.iter().map(PathBuf::as_path).collect();
    if let Some((first, rest)) = inputs.split_first() {
        output::spare(&[Some(&args.html)], first, rest)?;
    }
    let results: Vec<Input> = inputs.into_iter().map(html::read).collect::<Result<_, _>>()?;
    let (shown, note) = match args.data.as_ref().map(|data| find_pictures(data, &results)) {
        None => (Vec::new(), None),
        Some(Ok(shown)) => (shown, None),
        // The page is still useful without pictures.
        Some(Err(none @ PictureError::NoFlips)) => (Vec::new(), Some(none.to_string())),
        Some(Err(error)) => return Err(error.into()),
    };
    let page = html::page(&results, &shown);
    output::write(&args.html, page.as_bytes())?;
    if let (Some(note), false) = (note, args.quiet) {
        // Continue if standard error is closed.
        let _ = writeln!(std::io::stderr(), "note: {}", in_flags(&note));
    }
    if !args.quiet {
        let kib = page.len().div_ceil(1024);
        print(&format!(
            "{} result{} in {} ({kib} KiB)",
            results.len(),
            if results.len() == 1 { "" } else { "s" },
            args.html.display()
        ))?;
    }
    Ok(())
}
