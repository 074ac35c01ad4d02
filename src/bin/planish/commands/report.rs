//! `planish report`: an HTML page of results.

use crate::render::picture;
use crate::render::print;
use planish::output;
use planish::post_train::result::Flips;
use planish::report::html::{self, Input, Pictures, Result as Found};
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

/// Errors of `planish report`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--data` without a result that names images.
    #[error(
        "--data: none of the results lists changed images; add a result of post-train, or remove \
         --data"
    )]
    NoFlips,
    /// The data set does not contain the images of a result.
    #[error(
        "{data}: expected images with SHA-256 {digest} ({origin}), found no split or half of a \
         split with this digest; pass the --data of post-train"
    )]
    OtherImages {
        /// The given data set.
        data: String,
        /// Digest of the expected images.
        digest: String,
        /// Origin of the expected images.
        origin: String,
    },
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
    let (mut shown, mut note) = (Vec::new(), None);
    if let Some(data) = &args.data {
        match pictures(data, &results) {
            Ok(found) => shown = found,
            // The page is still useful without pictures.
            Err(error) => match error.downcast::<Error>()? {
                Error::NoFlips => note = Some(Error::NoFlips.to_string()),
                other => return Err(other.into()),
            },
        }
    }
    let page = html::page(&results, &shown);
    output::write(&args.html, page.as_bytes())?;
    if let (Some(note), false) = (note, args.quiet) {
        // Continue if standard error is closed.
        let _ = writeln!(std::io::stderr(), "note: {note}");
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

/// Pictures for each result whose images are in this data set.
fn pictures(spec: &str, results: &[Input]) -> anyhow::Result<Vec<Pictures>> {
    let changed = results.iter().filter_map(|input| match &input.result {
        Found::PostTraining(r) => {
            let part = r.test.as_ref().or(r.validation.as_ref())?;
            part.flips.as_ref().map(|flips| (part, flips, r.run.run.seed))
        }
        _ => None,
    });
    let (mut shown, mut missed): (Vec<Pictures>, _) = (Vec::new(), None);
    for (part, Flips { most_fixed, most_broken, .. }, seed) in changed {
        let Some(split) = picture::split(spec, &part.data.digest, seed)? else {
            missed = missed.or(Some(&part.data));
            continue;
        };
        let at = match shown.iter().position(|p| p.digest == part.data.digest) {
            Some(at) => at,
            None => {
                let classes = split.class_names().unwrap_or_default().to_vec();
                shown.push(Pictures {
                    digest: part.data.digest.clone(),
                    classes,
                    pngs: Vec::new(),
                });
                shown.len() - 1
            }
        };
        for flip in most_fixed.iter().chain(most_broken) {
            if !shown[at].pngs.iter().any(|(image, _)| *image == flip.image) {
                shown[at].pngs.push((flip.image, picture::png(&split, flip.image)?));
            }
        }
    }
    match (shown.is_empty(), missed) {
        (false, _) => Ok(shown),
        (true, None) => Err(Error::NoFlips.into()),
        (true, Some(data)) => {
            let (digest, origin) = (data.digest.clone(), data.origin.clone());
            Err(Error::OtherImages { data: spec.into(), digest, origin }.into())
        }
    }
}
