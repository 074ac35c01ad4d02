//! `planish demo`: the main commands once, on embedded checkpoints and embedded images.

use crate::Cli;
use crate::args::Common;
use anyhow::Context;
use clap::Parser;
use planish::format::duration;
use planish::report::diagnosis::DiagnosisReport;
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
        "pretrained/model.safetensors",
        include_bytes!("../../../../assets/pretrained/model.safetensors"),
    ),
    ("pretrained/config.json", include_bytes!("../../../../assets/pretrained/config.json")),
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
    let on = ["--data", &data];
    let (calibrated, calibration) = (at("calibrated"), at("calibration.json"));
    let (pretrained, fixed) = (at("pretrained"), at("fixed"));
    let (fixing, page) = (at("fix.json"), at("fix.html"));
    let remedies = format!("toward:{pretrained},decay");
    let steps: [(&str, Vec<&str>); 5] = [
        ("What is this checkpoint?", vec!["inspect", &model]),
        ("How well does it do on unseen images?", [&["eval", &model], &on[..]].concat()),
        (
            "How much of the loss is overconfidence? Fold a temperature into the head.",
            [&["calibrate", &model], &on[..], &["--out", &calibrated, "--json", &calibration]]
                .concat(),
        ),
        (
            "Which layers overfit, and how much does moving them help?",
            [&["diagnose", &model], &on[..], &["--remedies", &remedies, "--json", &report]]
                .concat(),
        ),
        (
            "Apply what helps: move layers back to their pretrained weights, and calibrate.",
            [
                &["fix", &model, "--pretrained", &pretrained],
                &on[..],
                &["--out", &fixed, "--json", &fixing, "--html", &page],
            ]
            .concat(),
        ),
    ];
    for (question, words) in &steps {
        step(question, words, &args.common)?;
    }
    let (bench, cache) = (at("bench.json"), at("cache"));
    let layers: &[&str] = match has_plan(Path::new(&report))? {
        true => &["--plan", &report],
        false => &["--perturb", "head", "--update", "block.5"],
    };
    // The fewest seeds that give a verdict, to stay short.
    let words = [
        &["bench", &model],
        &on[..],
        &["--methods", "pol", "--seeds", "3"],
        layers,
        RECIPE,
        &["--remeasure", "0", "--json", &bench, "--cache-dir", &cache],
    ]
    .concat();
    step("Does post-training with PoL improve it more than plain SGD does?", &words, &args.common)?;
    args.common.print(&format!(
        "\nDone in {}. Files in {}: model/, pretrained/ and data/ (inputs), calibrated/ and fixed/ \
         (checkpoints), calibration.json, diagnosis.json, fix.json and bench.json (reports), fix.html \
         (page), cache/ (activations of frozen layers).",
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
    let report: DiagnosisReport = serde_json::from_str(&text)?;
    Ok(report.findings.plan.is_some())
}

/// Prints a command line and runs it.
fn step(question: &str, words: &[&str], common: &Common) -> anyhow::Result<()> {
    common.print(&format!("\n── {question}\n$ planish {}\n", words.join(" ")))?;
    let mut command = Cli::try_parse_from(std::iter::once(&"planish").chain(words))?.command;
    if let Some(own) = command.common() {
        *own = Common { json: own.json.take(), ..common.clone() };
    }
    command.run().with_context(|| format!("planish {} failed", words.join(" ")))
}
