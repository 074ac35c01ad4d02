//! `planish demo`: every step once, on an embedded checkpoint and embedded images.

use crate::Cli;
use crate::args::Common;
use crate::render::print;
use anyhow::Context;
use clap::Parser;
use planish::format::duration;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `demo`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish demo --out planish-demo")]
pub struct Args {
    /// Folder for images, checkpoints and reports
    #[arg(long, value_name = "DIR", default_value = "planish-demo")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// The embedded files: path and content. `assets/README.md` describes how they were made.
const ASSETS: &[(&str, &[u8])] = &[
    ("model/model.safetensors", include_bytes!("../../../../assets/model/model.safetensors")),
    ("model/config.json", include_bytes!("../../../../assets/model/config.json")),
    (
        "data/train-images-idx3-ubyte.gz",
        include_bytes!("../../../../assets/data/train-images-idx3-ubyte.gz"),
    ),
    (
        "data/train-labels-idx1-ubyte.gz",
        include_bytes!("../../../../assets/data/train-labels-idx1-ubyte.gz"),
    ),
    (
        "data/t10k-images-idx3-ubyte.gz",
        include_bytes!("../../../../assets/data/t10k-images-idx3-ubyte.gz"),
    ),
    (
        "data/t10k-labels-idx1-ubyte.gz",
        include_bytes!("../../../../assets/data/t10k-labels-idx1-ubyte.gz"),
    ),
    ("data/LICENSE", include_bytes!("../../../../assets/data/LICENSE")),
];

/// Writes the embedded checkpoint, `model/`, to a temporary folder that is removed on drop.
///
/// # Errors
/// The temporary folder cannot be written.
pub fn carried_model() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    for (name, bytes) in ASSETS.iter().filter(|(name, _)| name.starts_with("model/")) {
        write(&folder.path().join(name), bytes)?;
    }
    Ok(folder)
}

/// Training settings of the demo, from the search on validation images described in
/// `assets/README.md`.
const RECIPE: &[&str] = &["--epochs", "4", "--lr", "0.03"];

/// Runs the command.
///
/// # Errors
/// The folder cannot be written, or a step fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    for (name, bytes) in ASSETS {
        write(&args.out.join(name), bytes)?;
    }
    let at = |name: &str| args.out.join(name).display().to_string();
    let (model, data, report) = (at("model"), at("data"), at("diagnosis.json"));
    let (tuned, cache) = (at("tuned"), at("cache"));
    let steps: Vec<(&str, Vec<&str>)> = vec![
        ("What is this checkpoint?", vec!["inspect", &model]),
        ("How well does it do on unseen images?", vec!["eval", &model, "--data", &data]),
        ("Which layers overfit?", vec!["diagnose", &model, "--data", &data, "--json", &report]),
    ];
    for (question, words) in &steps {
        step(question, words, &args.common)?;
    }
    let bench = at("bench.json");
    // The fewest seeds that give a verdict, to stay short.
    let mut words = vec!["bench", &model, "--data", &data, "--plan", &report, "--seeds", "3"];
    words.extend(RECIPE);
    words.extend(["--remeasure", "0", "--json", &bench, "--cache-dir", &cache]);
    step("Does post-training improve it more than plain SGD does?", &words, &args.common)?;
    let result = at("post-train.json");
    let mut words = vec!["post-train", &model, "--data", &data, "--method", "pol"];
    if has_plan(Path::new(&report))? {
        words.extend(["--plan", &report]);
    } else {
        words.extend(["--perturb", "head", "--update", "block.5"]);
    }
    words.extend(RECIPE);
    words.extend(["--remeasure", "1000", "--json", &result, "--out", &tuned]);
    words.extend(["--cache-dir", &cache]);
    // On this checkpoint, the bench above shows no gain.
    words.push("--force");
    step(
        "Tune one layer and keep the result, even if it is worse on validation images.",
        &words,
        &args.common,
    )?;
    print(&format!(
        "\nDone in {}. Files in {}: model/ and data/ (inputs), diagnosis.json, bench.json, \
         post-train.json (reports), tuned/ (tuned checkpoint), cache/ (activations of frozen \
         layers).",
        duration(clock.seconds()),
        args.out.display()
    ))?;
    args.common.save(&serde_json::json!({
        "schema": "planish/demo/1",
        "run": clock.finish(),
        "out": args.out,
    }))?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let remedy = || format!("cannot write {}; choose another folder with --out", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(remedy)?;
    }
    fs::write(path, bytes).with_context(remedy)
}

fn has_plan(report: &Path) -> anyhow::Result<bool> {
    let text =
        fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    Ok(!report["plan"].is_null())
}

/// Prints a command line and runs it.
fn step(question: &str, words: &[&str], common: &Common) -> anyhow::Result<()> {
    print(&format!("\n── {question}\n$ planish {}\n", words.join(" ")))?;
    let mut command = Cli::try_parse_from(std::iter::once(&"planish").chain(words))?.command;
    if let Some(own) = command.common() {
        *own = Common { json: own.json.take(), ..common.clone() };
    }
    command.run().with_context(|| format!("planish {} failed", words.join(" ")))
}
