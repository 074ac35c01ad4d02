//! `planish bench`: methods against their controls, each run in a process of its own.

use super::children::{Words, spawn};
use super::common::Common;
use super::format::{duration, estimate, percent};
use super::images::DataArgs;
use super::model::{ModelArgs, checkpoint_info};
use super::output::print;
use super::recipe::{RecipeArgs, check, read_plan};
use super::table::{Align, Style, Table};
use crate::checkpoint::Checkpoint;
use crate::evaluate::{Estimate, mean_stderr, paired};
use crate::report::bench::{Cost, Report, Row, SCHEMA, TimedRun};
use crate::report::post_training;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Most seeds that a run may ask for: more would take weeks, and a slip of the finger with them.
const MAX_SEEDS: u64 = 1000;

/// Options of `bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish bench model/ --data fashion-mnist/ --methods \
                        pof,pol,pol-head --seeds 3 --json bench.json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Methods, each run beside its control
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pof,pol,pol-head")]
    methods: Vec<Name>,
    /// Training seeds
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Take PoL's plan from this report of `diagnose` [default: diagnose first]
    #[arg(long, value_name = "REPORT")]
    plan: Option<PathBuf>,
    /// Layer that PoL updates [default: the plan's]
    #[arg(long, value_name = "L")]
    update: Option<String>,
    /// Validation images that the plan is made on [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    common: Common,
}

/// Methods on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// head perturbed, all else updated
    Pof,
    /// by the plan
    Pol,
    /// head perturbed, the plan's layer updated
    PolHead,
}

/// One trained row: its name, its options, and the position of its control.
struct Job {
    name: String,
    options: Words,
    control: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// A run that fails, with what it printed; a report that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    check(&args.recipe)?;
    if !(1..=MAX_SEEDS).contains(&args.seeds) {
        bail!("--seeds: expected 1 to {MAX_SEEDS}, found {}", args.seeds)
    }
    let checkpoint = args.model.open()?;
    let folder = scratch()?;
    let (perturb, update, plan) = plan(args, folder.path(), &checkpoint)?;
    let jobs = jobs(&args.methods, &perturb, args.update.as_deref().unwrap_or(&update));
    let seeds: Vec<u64> = (0..args.seeds).map(|i| args.common.seed.wrapping_add(i)).collect();
    let progress = args.common.progress("bench", jobs.len() as u64 * args.seeds, "runs");
    let mut results: Vec<Vec<post_training::Report>> = Vec::new();
    for job in &jobs {
        let mut runs = Vec::new();
        for seed in &seeds {
            progress.note(format!("{}, seed {seed}", job.name));
            runs.push(train(args, job, *seed, folder.path())?);
            progress.add(1);
        }
        results.push(runs);
    }
    drop(progress);
    let rows = rows(&jobs, &results)?;
    let costs = jobs.iter().zip(&results).map(|(job, runs)| cost(job, runs)).collect();
    let report = Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), costs },
        checkpoint: checkpoint_info(&checkpoint),
        seeds,
        settings: serde_json::json!(Words::default().recipe(&args.recipe).0),
        plan,
        verdicts: verdicts(&rows, args.seeds as usize),
        rows,
    };
    print(&show(&report))?;
    args.common.save(&report)?;
    Ok(())
}

/// A folder for what the runs write, removed at the end.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("planish-bench-")
        .tempdir()
        .context("cannot make a temporary folder; set TMPDIR to one that can be written")
}

/// p and u of PoL: of a report, of a diagnosis made now, or where neither finds a layer, the head
/// and the last block.
fn plan(
    args: &Args,
    folder: &Path,
    checkpoint: &Checkpoint,
) -> anyhow::Result<(String, String, String)> {
    let path = match &args.plan {
        Some(path) => path.clone(),
        None => {
            let path = folder.join("diagnosis.json");
            let mut words = Words::new("diagnose", &args.model, &args.data);
            if let Some(n) = args.samples {
                words.option("--samples", n);
            }
            words.option("--seed", args.common.seed).option("--json", path.display());
            spawn(&words, &args.common)?;
            path
        }
    };
    Ok(match read_plan(&path, checkpoint)? {
        Some(plan) => (plan.perturb, plan.update, "by the cross-fitted diagnosis".into()),
        None => (
            "head".into(),
            format!("block.{}", checkpoint.config.depth.saturating_sub(1)),
            "no layer was eligible: head and last block stand in for a plan".into(),
        ),
    })
}

/// The rows to train, every method after its control.
fn jobs(methods: &[Name], perturb: &str, update: &str) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut add = |name: String, options: Words, control: Option<usize>| -> usize {
        if let Some(known) = jobs.iter().position(|j| j.name == name) {
            return known;
        }
        jobs.push(Job { name, options, control });
        jobs.len() - 1
    };
    let words = |method: &str, perturb: Option<&str>, update: Option<&str>| {
        let mut words = Words::default();
        words.option("--method", method);
        for (name, value) in [("--perturb", perturb), ("--update", update)] {
            if let Some(value) = value {
                words.option(name, value);
            }
        }
        words
    };
    for method in methods {
        let (name, own, updated) = match method {
            Name::Pof => {
                ("PoF head → all else".into(), words("pof", None, None), "embed,block.*,norm")
            }
            Name::Pol => (
                format!("PoL {perturb} → {update}"),
                words("pol", Some(perturb), Some(update)),
                update,
            ),
            Name::PolHead => {
                (format!("PoL head → {update}"), words("pol", Some("head"), Some(update)), update)
            }
        };
        let label = if *method == Name::Pof { "all else" } else { updated };
        let control = add(format!("SGD → {label}"), words("sgd", None, Some(updated)), None);
        add(name, own, Some(control));
    }
    jobs
}

/// One run in a process of its own, and its report.
fn train(
    args: &Args,
    job: &Job,
    seed: u64,
    folder: &Path,
) -> anyhow::Result<post_training::Report> {
    let (json, out) = (folder.join("run.json"), folder.join("run.safetensors"));
    let words = Words::new("post-train", &args.model, &args.data)
        .recipe(&args.recipe)
        .and(&job.options)
        .option("--seed", args.common.seed)
        .option("--train-seed", seed)
        .option("--json", json.display())
        .option("--out", out.display())
        .clone();
    spawn(&words, &args.common).with_context(|| format!("{}, seed {seed}", job.name))?;
    let text = std::fs::read_to_string(&json)
        .with_context(|| format!("cannot read {}", json.display()))?;
    let _ = std::fs::remove_file(out);
    Ok(serde_json::from_str(&text)?)
}

/// Figures of one row.
fn row(job: &Job, runs: &[post_training::Report]) -> anyhow::Result<Row> {
    let test = |f: fn(&crate::evaluate::Summary) -> f64| -> anyhow::Result<Estimate> {
        let values: Option<Vec<f64>> =
            runs.iter().map(|r| r.test.as_ref().map(|t| f(&t.after))).collect();
        let remedy = "there are no test images: pass --test-data, or data with a test split";
        Ok(mean_stderr(&values.context(remedy)?))
    };
    let last = |f: fn(&crate::train::post::Epoch) -> Option<f64>| {
        let values: Option<Vec<f64>> = runs.iter().map(|r| r.epochs.last().and_then(f)).collect();
        values.map(|v| mean_stderr(&v))
    };
    let validation: Option<Vec<f64>> =
        runs.iter().map(|r| r.validation.as_ref().map(|v| v.after.nll)).collect();
    let method = &runs.first().context("no run")?.method;
    Ok(Row {
        name: job.name.clone(),
        method: Some(method.name.clone()),
        perturb: method.perturb.clone(),
        update: Some(method.update.clone()),
        nll: test(|s| s.nll)?,
        calibrated_nll: test(|s| s.calibrated_nll)?,
        top1: test(|s| s.top1)?,
        ece: test(|s| s.ece)?,
        validation_nll: validation.map(|v| mean_stderr(&v)),
        perturbation: last(|e| e.perturbation),
        capped: last(|e| e.capped),
        training_loss: last(|e| Some(e.training_loss)),
        gain_over_control: None,
        calibrated_gain_over_control: None,
    })
}

/// All rows, the untouched model first, gains over controls paired by seed.
fn rows(jobs: &[Job], results: &[Vec<post_training::Report>]) -> anyhow::Result<Vec<Row>> {
    let first = results.iter().flatten().next().context("no run")?;
    let before = &first.test.as_ref().context("there are no test images")?.before;
    let fixed = |mean: f64| Estimate { mean, stderr: None };
    let mut rows = vec![Row {
        name: "untouched".into(),
        method: None,
        perturb: None,
        update: None,
        nll: fixed(before.nll),
        calibrated_nll: fixed(before.calibrated_nll),
        top1: fixed(before.top1),
        ece: fixed(before.ece),
        validation_nll: first.validation.as_ref().map(|v| fixed(v.before.nll)),
        perturbation: None,
        capped: None,
        training_loss: None,
        gain_over_control: None,
        calibrated_gain_over_control: None,
    }];
    for (job, runs) in jobs.iter().zip(results) {
        let mut row = row(job, runs)?;
        if let Some(control) = job.control {
            let of = |runs: &[post_training::Report],
                      f: fn(&crate::evaluate::Summary) -> f64|
             -> Vec<f64> {
                runs.iter().filter_map(|r| r.test.as_ref().map(|t| f(&t.after))).collect()
            };
            let gain = |f: fn(&crate::evaluate::Summary) -> f64| {
                paired(&of(&results[control], f), &of(runs, f))
            };
            row.gain_over_control = Some(gain(|s| s.nll)?);
            row.calibrated_gain_over_control = Some(gain(|s| s.calibrated_nll)?);
        }
        rows.push(row);
    }
    Ok(rows)
}

fn cost(job: &Job, runs: &[post_training::Report]) -> Cost {
    let seconds: Vec<f64> = runs.iter().map(|r| r.run.seconds_per_epoch).collect();
    let memory: Option<Vec<f64>> =
        runs.iter().map(|r| r.run.run.peak_mib.map(|m| m as f64)).collect();
    Cost {
        name: job.name.clone(),
        seconds_per_epoch: mean_stderr(&seconds),
        peak_mib: memory.map(|m| mean_stderr(&m)),
    }
}

/// What each method's gain over its control establishes: a 95% interval over seeds, Student's t.
fn verdicts(rows: &[Row], seeds: usize) -> Vec<String> {
    let word = |gain: &Estimate| match gain.stderr {
        None => "one seed shows nothing either way".to_owned(),
        Some(se) if gain.mean > t95(seeds) * se => "better than its control".into(),
        Some(se) if gain.mean < -t95(seeds) * se => "worse than its control".into(),
        Some(_) => "not distinguishable from its control".into(),
    };
    rows.iter()
        .filter_map(|row| {
            let (raw, calibrated) =
                (row.gain_over_control.as_ref()?, row.calibrated_gain_over_control.as_ref()?);
            Some((row, raw, calibrated))
        })
        .map(|(row, raw, calibrated)| {
            format!(
                "{}: NLL {} ({}); calibrated NLL {} ({})",
                row.name,
                word(raw),
                estimate(*raw),
                word(calibrated),
                estimate(*calibrated),
            )
        })
        .collect()
}

/// Two-sided 95% quantile of Student's t for the mean of n values.
fn t95(n: usize) -> f64 {
    const T: [f64; 10] = [12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    T.get(n.saturating_sub(2)).copied().unwrap_or(2.1)
}

fn show(report: &Report) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("", Align::Left),
        right("test NLL"),
        right("calibrated NLL"),
        right("top-1 %"),
        right("ECE"),
        right("gain over control"),
        right("s/epoch"),
        right("peak MiB"),
    ]);
    for row in &report.rows {
        let cost = report.run.costs.iter().find(|c| c.name == row.name);
        let share = |e: &Estimate| {
            estimate(Estimate { mean: 100.0 * e.mean, stderr: e.stderr.map(|s| 100.0 * s) })
        };
        table.row([
            row.name.clone(),
            estimate(row.nll),
            estimate(row.calibrated_nll),
            share(&row.top1),
            estimate(row.ece),
            row.gain_over_control.map_or(String::new(), estimate),
            cost.map_or(String::new(), |c| estimate(c.seconds_per_epoch)),
            cost.and_then(|c| c.peak_mib).map_or(String::new(), |m| format!("{:.0}", m.mean)),
        ]);
    }
    let mut out = format!(
        "PoL's layers {}; {} seeds, ± is the standard error over them\n\n{}\n",
        report.plan,
        report.seeds.len(),
        table.render(Style::of_stdout())
    );
    for verdict in &report.verdicts {
        out += &format!("{verdict}\n");
    }
    for row in &report.rows {
        if let (Some(p), Some(c), Some(loss)) = (&row.perturbation, &row.capped, &row.training_loss)
        {
            out += &format!(
                "{}: mean perturbed loss {:.4}, ‖Δw_p‖/‖w_p‖ {}, {} of searches capped\n",
                row.name,
                loss.mean,
                percent(p.mean),
                percent(c.mean)
            );
        }
    }
    out + &format!("in all {}\n", duration(report.run.run.seconds))
}
