//! `planish report`: results as one HTML page.

use crate::render::picture;
use crate::render::print;
use planish::output;
use planish::report::html::{self, Input, Pictures, Result as Found};
use planish::train::result::Flips;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `planish report`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  planish report diagnosis.json bench.json post-train.json --html \
                  report.html --data fashion-mnist/"
)]
pub struct Args {
    /// Results of diagnose, post-train, bench, eval, compare and finetune, and results.jsonl,
    /// runs.jsonl, layers.jsonl and ood.jsonl of study, in any order
    #[arg(value_name = "RESULT.json", required = true)]
    pub results: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    /// The images that post-train was judged by, to show those that tuning fixed and broke
    #[arg(long, value_name = "D")]
    pub data: Option<String>,
    /// Do not tell what was written
    #[arg(long)]
    pub quiet: bool,
}

/// Why a page cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--data` without a result that names images.
    #[error(
        "--data: expected a result of post-train that tells which images changed, found none; add \
         one to see them"
    )]
    NoFlips,
    /// The images are others.
    #[error(
        "{data}: expected the images whose SHA-256 is {digest} ({origin}), found none of its splits, \
         nor a half of one, to be these; pass the --data of post-train"
    )]
    OtherImages {
        /// What was given.
        data: String,
        /// The digest of the right images.
        digest: String,
        /// Where they came from.
        origin: String,
    },
}

/// Reads, draws and writes.
///
/// # Errors
/// A file that is no result; images that are not those of a result; a page that cannot be written.
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
            // The page is worth having without them.
            Err(error) => match error.downcast::<Error>()? {
                Error::NoFlips => note = Some(Error::NoFlips.to_string()),
                other => return Err(other.into()),
            },
        }
    }
    let page = html::page(&results, &shown);
    output::write(&args.html, page.as_bytes())?;
    if let (Some(note), false) = (note, args.quiet) {
        // A closed standard error is no reason to fail.
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

/// Pictures of every result whose images these are.
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
