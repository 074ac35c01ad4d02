//! `planish compare`: compares two models on the same images.

use crate::args::{Common, note_precision};
use crate::message::in_flags;
use crate::render::print;
use crate::render::sentence::{sentence, table};
use planish::checkpoint::{Checkpoint, Load};
use planish::data::DataOptions;
use planish::engine::Precision;
use planish::evaluate::{Bound, PredictionsInfo, RESAMPLES, compare};
use planish::output;
use planish::report::comparison::{Report, SCHEMA, Side};
use planish::report::{EVALUATION, Evaluation, post_training};
use planish::run::Running;
use planish::session::checkpoint_info;
use planish::session::evaluate::evaluate;
use planish::session::saved::{self, Error as SavedError, Saved};
use std::path::{Path, PathBuf};

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
    /// Images to evaluate checkpoints on, as in `eval`
    #[arg(long, value_name = "D")]
    pub data: Option<String>,
    /// Validation images to fit the temperatures of checkpoints on
    #[arg(long, value_name = "D", requires = "data")]
    pub val_data: Option<String>,
    /// Split to evaluate checkpoints on [default: test, or the only split]
    #[arg(long, value_name = "S", requires = "data")]
    pub split: Option<String>,
    /// Number of bootstrap resamples of the images
    #[arg(long, value_name = "N", value_parser = resamples, default_value_t = RESAMPLES)]
    pub resamples: usize,
    /// Settings that the checkpoints do not contain.
    #[command(flatten)]
    pub load: Load,
    /// Operands of matrix products: f32, or bf16 with f32 accumulation
    #[arg(long, value_name = "f32|bf16", default_value_t, help_heading = "Model options")]
    pub precision: Precision,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// 100 to a million.
fn resamples(text: &str) -> Result<usize, String> {
    let range = 100..=1_000_000;
    text.parse().ok().filter(|n| range.contains(n)).ok_or("expected 100 to 1000000".into())
}

/// Why two models cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a report of a supported command and version.
    #[error(
        "{}: expected a report of schema {EVALUATION} or {}, found {found}; pass a report of \
         `planish eval --json` or `planish post-train --json`", .path.display(), post_training::SCHEMA
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// A report without logits. A paired comparison needs the logits of each image.
    #[error(
        "{}: the report refers to no saved logits, which a paired comparison needs; run the \
         command again with --dump FILE, or compare the checkpoints with --data", .path.display()
    )]
    NoPredictions {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint without images.
    #[error(
        "{}: a checkpoint needs --data with images to evaluate it on; add --data, or pass reports \
         made with --dump", .path.display()
    )]
    NoData {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The numbers of classes differ.
    #[error(
        "{a} has {} classes and {b} has {}: probabilities over different classes cannot be \
         compared; pass models with the same classes", .classes[0], .classes[1]
    )]
    OtherClasses {
        /// The first model.
        a: String,
        /// The second.
        b: String,
        /// Classes of each.
        classes: [usize; 2],
    },
    /// Only one side has a temperature.
    #[error(
        "{path}: the logits have no temperature, but the other side has one, so calibrated figures \
         are not comparable; add a tensor `temperature` (N) F64, fitted on validation images (all \
         1 for none), or compare the checkpoints with --data"
    )]
    NoTemperature {
        /// The side without a temperature.
        path: String,
    },
    /// An adapter for logits that were already computed.
    #[error("--adapter applies to B, and {} is not a checkpoint; omit --adapter", .path.display())]
    NoBase {
        /// The second side.
        path: PathBuf,
    },
    /// The two were not scored on the same images.
    #[error("{a} and {b} were not scored on the same images: {how}; evaluate both on one split")]
    OtherImages {
        /// The first model.
        a: String,
        /// The second.
        b: String,
        /// What differs.
        how: String,
    },
}

/// Compares the models and prints the result.
///
/// # Errors
/// A side cannot be read or evaluated, or the sides have different classes or images.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    let inputs: Vec<&Path> = vec![&args.b];
    output::spare(&[args.common.json.as_deref()], &args.a, &inputs)?;
    let mut notes = Vec::new();
    let plain = Args { load: args.load.without_adapter(), ..args.clone() };
    let (a, of_a) = side(&args.a, &plain, &running, &mut notes)?;
    let of_a_alone = notes.len();
    let (b, of_b) = side(&args.b, args, &running, &mut notes)?;
    let mut notes = merge_notes(&notes[..of_a_alone], &notes[of_a_alone..]);
    check_same(&a, &of_a, &b, &of_b)?;
    let ([raw_a, own_a], [raw_b, own_b]) = (of_a.scores(), of_b.scores());
    let seed = args.common.seed;
    let comparison = compare([&raw_a, &own_a], [&raw_b, &own_b], seed, args.resamples)?;
    let sentence = sentence(&comparison, "A", "B");
    if a.data_digest.is_none() || b.data_digest.is_none() {
        notes.push(
            "saved logits contain no digest of the images, so only the number of images and the \
             labels were compared; pass reports to compare the digests"
                .into(),
        );
    }
    if !of_a.tempered {
        notes.push("neither side has a temperature; calibrated figures use T = 1".into());
    }
    let report =
        Report { schema: SCHEMA.into(), run: running.finish(), a, b, comparison, sentence, notes };
    args.common.save(&report)?;
    let place = |side: &Side| match side.checkpoint.as_ref().and_then(|c| c.adapter.as_ref()) {
        None => side.path.clone(),
        Some(adapter) => format!("{} with the adapter {}", side.path, adapter.path),
    };
    let mut text = format!("A: {}\nB: {}\n\n", place(&report.a), place(&report.b));
    text += &table(&report.comparison, ["A", "B"]);
    text += &format!(
        "\n{}\nIntervals are over images. They do not include variation between training runs.\n",
        report.sentence
    );
    report.notes.iter().for_each(|note| text += &format!("note: {}\n", in_flags(note)));
    Ok(print(&text)?)
}

/// Notes that apply to both sides, then notes on one side, prefixed by its name.
fn merge_notes(a: &[String], b: &[String]) -> Vec<String> {
    let own = |name: &'static str, notes: &[String], others: &[String]| -> Vec<String> {
        let alone = notes.iter().filter(|note| !others.contains(note));
        alone.map(|note| format!("{name}: {note}")).collect()
    };
    let mut notes: Vec<String> = a.iter().filter(|note| b.contains(note)).cloned().collect();
    notes.extend(own("A", a, b));
    notes.extend(own("B", b, a));
    notes
}

/// Reads or evaluates one side.
fn side(
    path: &Path,
    args: &Args,
    running: &Running,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Side, Saved)> {
    let of = |checkpoint, data_digest| Side {
        path: path.display().to_string(),
        checkpoint,
        data_digest,
    };
    let computed = path.extension().is_some_and(|e| e == "json") || saved::is_saved(path);
    if computed && args.load.adapter.is_some() {
        return Err(Error::NoBase { path: path.into() }.into());
    }
    if path.extension().is_some_and(|e| e == "json") {
        let Named { predictions, side, temperature } = report(path)?;
        notes.extend(temperature.map(temperature_note));
        let file = beside(path, Path::new(&predictions.path));
        let saved = saved::read(&file, Some((path, &predictions.digest)))?;
        return Ok((side, saved));
    }
    if saved::is_saved(path) {
        return Ok((of(None, None), saved::read(path, None)?));
    }
    let checkpoint = Checkpoint::open(path, &args.load)?;
    let Some(data) = args.data.clone() else {
        return Err(Error::NoData { path: path.into() }.into());
    };
    let data = DataOptions { data, val_data: args.val_data.clone(), ..DataOptions::default() };
    note_precision(args.precision, &args.common);
    let terminal = args.common.terminal();
    let context = args.common.context(running, &terminal);
    let found = evaluate(&checkpoint, &data, args.split.as_deref(), args.precision, &context)?;
    notes.extend(found.warnings);
    notes.extend(found.temperatures.bound().map(temperature_note));
    let temperatures = (0..found.predictions.images()).map(|i| found.temperatures.at(i)).collect();
    let side = of(Some(checkpoint_info(&checkpoint)), Some(found.data.digest));
    Ok((side, Saved { predictions: found.predictions, temperatures, tempered: true }))
}

fn temperature_note(bound: Bound) -> String {
    format!("temperature: {}", bound.note())
}

/// What a report refers to.
struct Named {
    predictions: PredictionsInfo,
    side: Side,
    temperature: Option<Bound>,
}

fn report(path: &Path) -> anyhow::Result<Named> {
    let bytes =
        std::fs::read(path).map_err(|source| SavedError::Read { path: path.into(), source })?;
    let other = |found: String| Error::Schema { path: path.into(), found };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| other(format!("invalid JSON ({e})")))?;
    let no_logits = || Error::NoPredictions { path: path.into() };
    let damaged =
        |e: serde_json::Error| other(format!("that schema with unexpected contents ({e})"));
    let schema = value["schema"].as_str().unwrap_or("none").to_owned();
    let (predictions, checkpoint, digest, temperature) = match schema.as_str() {
        EVALUATION => {
            let found: Evaluation = serde_json::from_value(value).map_err(damaged)?;
            let (digest, bound) = (found.data.digest, found.figures.temperature_bound);
            (found.predictions, found.checkpoint, Some(digest), bound)
        }
        post_training::SCHEMA => {
            let found: post_training::Report = serde_json::from_value(value).map_err(damaged)?;
            let bound = found.test.as_ref().and_then(|test| test.after.temperature_bound);
            let digest = found.test.map(|test| test.data.digest);
            (found.predictions, found.checkpoint, digest, bound)
        }
        _ => return Err(other(schema).into()),
    };
    let side = Side {
        path: path.display().to_string(),
        checkpoint: Some(checkpoint),
        data_digest: digest,
    };
    Ok(Named { predictions: predictions.ok_or_else(no_logits)?, side, temperature })
}

/// The path in the report if it exists, else a file of that name next to the report.
fn beside(report: &Path, file: &Path) -> PathBuf {
    match (file.exists(), file.file_name()) {
        (false, Some(name)) => report.with_file_name(name),
        _ => file.into(),
    }
}

fn check_same(a: &Side, of_a: &Saved, b: &Side, of_b: &Saved) -> Result<(), Error> {
    let other = |how: String| Error::OtherImages { a: a.path.clone(), b: b.path.clone(), how };
    let (x, y) = (&of_a.predictions, &of_b.predictions);
    if x.images() != y.images() {
        return Err(other(format!("{} images against {}", x.images(), y.images())));
    }
    if x.classes() != y.classes() {
        return Err(Error::OtherClasses {
            a: a.path.clone(),
            b: b.path.clone(),
            classes: [x.classes(), y.classes()],
        });
    }
    let differ = x.labels().iter().zip(y.labels()).position(|(x, y)| x != y);
    if let Some(i) = differ {
        let [x, y] = [x, y].map(|p| p.labels()[i]);
        return Err(other(format!("image {i} has label {x} in the first and {y} in the second")));
    }
    if let (true, false, without) | (false, true, without) =
        (of_a.tempered, of_b.tempered, if of_a.tempered { b } else { a })
    {
        return Err(Error::NoTemperature { path: without.path.clone() });
    }
    match (&a.data_digest, &b.data_digest) {
        (Some(x), Some(y)) if x != y => Err(other(format!("their SHA-256 is {x} and {y}"))),
        _ => Ok(()),
    }
}
