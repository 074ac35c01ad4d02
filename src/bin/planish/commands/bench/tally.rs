//! Computes rows, verdicts and the table of `bench` from its runs.

use crate::message::in_flags;
use crate::render::sentence::sentence;
use crate::render::table::{Align, Style, Table};
use anyhow::Context;
use planish::cache::CacheInfo;
use planish::data::DamagedFile;
use planish::evaluate::{Estimate, RESAMPLES, Scores, compare, mean_stderr, paired};
use planish::format::{duration, estimate, number, percent};
use planish::report::bench::{Cost, Report, Row};
use planish::report::post_training;
use planish::session::bad_samples::damage_note;
use std::collections::HashSet;

/// One trained row: its name, the position of its control, and one run per seed.
pub struct Trained {
    /// Name of the row.
    pub name: String,
    /// Position of its control.
    pub control: Option<usize>,
    /// Its runs.
    pub runs: Vec<post_training::Report>,
    /// Test scores of the first seed, at T = 1 and at the fitted temperatures.
    pub scores: Option<[Scores; 2]>,
}

/// Figures of one row.
fn row(name: &str, runs: &[post_training::Report]) -> anyhow::Result<Row> {
    let test = |f: fn(&planish::evaluate::Summary) -> f64| -> anyhow::Result<Estimate> {
        let values: Option<Vec<f64>> =
            runs.iter().map(|r| r.test.as_ref().map(|t| f(&t.after))).collect();
        let remedy = "no test images; pass --test-data, or a data set with a test split";
        Ok(mean_stderr(&values.context(remedy)?))
    };
    let last = |f: fn(&planish::train::run::Epoch) -> Option<f64>| {
        let values: Option<Vec<f64>> = runs.iter().map(|r| r.epochs.last().and_then(f)).collect();
        values.map(|v| mean_stderr(&v))
    };
    let validation: Option<Vec<f64>> =
        runs.iter().map(|r| r.validation.as_ref().map(|v| v.after.nll)).collect();
    let method = &runs.first().context("no run")?.method;
    Ok(Row {
        name: name.into(),
        method: Some(method.name.clone()),
        perturb: method.perturb.clone(),
        update: Some(method.update.clone()),
        sam: method.sam.clone(),
        nll: test(|s| s.nll)?,
        calibrated_nll: test(|s| s.calibrated_nll)?,
        temperatures_at_bound: runs
            .iter()
            .filter(|r| r.test.as_ref().is_some_and(|t| t.after.temperature_at_bound))
            .count(),
        top1: test(|s| s.top1)?,
        ece: test(|s| s.ece)?,
        validation_nll: validation.map(|v| mean_stderr(&v)),
        perturbation: last(|e| e.perturbation),
        perturbation_length: last(|e| e.perturbation_length),
        capped: last(|e| e.capped),
        training_loss: last(|e| Some(e.training_loss)),
        control: None,
        stopped: runs.iter().filter(|r| r.selection.stopped.is_some()).count(),
        gain_over_control: None,
        calibrated_gain_over_control: None,
        comparison: None,
        layers: runs.first().map(|r| r.layers.clone()).unwrap_or_default(),
    })
}

/// All rows, the untuned model first. Gains over controls are paired by seed.
///
/// # Errors
/// There are no runs or no test images.
pub fn rows(trained: &[Trained], seed: u64) -> anyhow::Result<Vec<Row>> {
    let first = trained.iter().flat_map(|t| &t.runs).next().context("no run")?;
    let before = &first.test.as_ref().context("no test images")?.before;
    let fixed = |mean: f64| Estimate { mean, stderr: None };
    let mut rows = vec![Row {
        name: "untouched".into(),
        method: None,
        perturb: None,
        update: None,
        sam: None,
        nll: fixed(before.nll),
        calibrated_nll: fixed(before.calibrated_nll),
        temperatures_at_bound: usize::from(before.temperature_at_bound),
        top1: fixed(before.top1),
        ece: fixed(before.ece),
        validation_nll: first.validation.as_ref().map(|v| fixed(v.before.nll)),
        perturbation: None,
        perturbation_length: None,
        capped: None,
        training_loss: None,
        control: None,
        stopped: 0,
        gain_over_control: None,
        calibrated_gain_over_control: None,
        comparison: None,
        layers: Vec::new(),
    }];
    for t in trained {
        let mut row = row(&t.name, &t.runs)?;
        if let Some(control) = t.control.and_then(|i| trained.get(i)) {
            let of = |runs: &[post_training::Report],
                      f: fn(&planish::evaluate::Summary) -> f64|
             -> Vec<f64> {
                runs.iter().filter_map(|r| r.test.as_ref().map(|t| f(&t.after))).collect()
            };
            let gain = |f: fn(&planish::evaluate::Summary) -> f64| {
                paired(&of(&control.runs, f), &of(&t.runs, f))
            };
            row.control = Some(control.name.clone());
            row.gain_over_control = Some(gain(|s| s.nll)?);
            row.calibrated_gain_over_control = Some(gain(|s| s.calibrated_nll)?);
            if let (Some(a), Some(b)) = (&control.scores, &t.scores) {
                row.comparison = Some(compare(a.each_ref(), b.each_ref(), seed, RESAMPLES)?);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Damaged image files that any run used, without repetition, in the order of the runs.
pub fn damaged(trained: &[Trained]) -> Vec<DamagedFile> {
    let all = trained.iter().flat_map(|t| &t.runs).flat_map(|run| &run.damaged);
    let mut seen = HashSet::new();
    all.filter(|file| seen.insert(&file.path)).cloned().collect()
}

/// Time and memory of a row.
pub fn cost(trained: &Trained) -> Cost {
    let runs = &trained.runs;
    let seconds: Vec<f64> = runs.iter().map(|r| r.run.seconds_per_epoch).collect();
    let memory: Option<Vec<f64>> =
        runs.iter().map(|r| r.run.training_peak_mib.map(|m| m as f64)).collect();
    Cost {
        name: trained.name.clone(),
        seconds_per_epoch: mean_stderr(&seconds),
        peak_mib: memory.map(|m| mean_stderr(&m)),
        cache: runs.iter().map(|r| r.run.cache.clone()).collect(),
    }
}

/// Verdict on each method's gain over its control, from a 95% interval over seeds (Student's t).
/// There is no verdict if runs of either were stopped.
pub fn verdicts(rows: &[Row], seeds: usize) -> Vec<String> {
    let word = |gain: &Estimate| match gain.stderr {
        None => "one seed is not enough for a verdict".to_owned(),
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
            let control = rows.iter().find(|r| Some(&r.name) == row.control.as_ref());
            let halted = |r: &Row| (r.stopped > 0).then(|| (r.name.clone(), r.stopped));
            if let Some((name, n)) = halted(row).or(control.and_then(halted)) {
                return format!(
                    "{}: no verdict, because {n} of {seeds} runs of {name} were stopped",
                    row.name
                );
            }
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
    T.get(n.saturating_sub(2)).copied().unwrap_or(2.201)
}

/// The tables, the verdicts, and how strong the perturbations were. Two tables fit 100 columns.
pub fn show(report: &Report) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("", Align::Left),
        right("test NLL"),
        right("calibrated NLL"),
        right("top-1 %"),
        right("gain over control"),
    ]);
    let mut costs =
        Table::new(&[("", Align::Left), right("ECE"), right("s/epoch"), right("peak MiB")]);
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
            row.gain_over_control.map_or(String::new(), estimate),
        ]);
        costs.row([
            row.name.clone(),
            estimate(row.ece),
            cost.map_or(String::new(), |c| estimate(c.seconds_per_epoch)),
            cost.and_then(|c| c.peak_mib).map_or(String::new(), estimate),
        ]);
    }
    let plan = report.plan.as_ref().map_or(String::new(), |plan| format!("PoL's layers: {plan}; "));
    let mut out = format!(
        "{plan}{} seeds, ± is the standard error over them\n\n{}\n{}\n",
        report.seeds.len(),
        table.render(Style::of_stdout()),
        costs.render(Style::of_stdout())
    );
    for verdict in &report.verdicts {
        out += &format!("{verdict}\n");
    }
    if report.seeds.len() > 1 {
        out += &format!(
            "(with {} seeds, a difference is significant at {:.1} standard errors or more)\n",
            report.seeds.len(),
            t95(report.seeds.len())
        );
    }
    for row in report.rows.iter().filter(|row| row.temperatures_at_bound > 0) {
        out += &format!(
            "note: {}: the loss on V has no minimum over the temperature ({} runs; their reports \
             contain the temperature used)\n",
            row.name, row.temperatures_at_bound
        );
    }
    for row in &report.rows {
        let perturbation = match (&row.perturbation, &row.perturbation_length) {
            (Some(share), _) => format!("‖Δw_p‖/‖w_p‖ {}", percent(share.mean)),
            (None, Some(length)) => format!("‖Δw_p‖ {} from zero weights", number(length.mean)),
            (None, None) => continue,
        };
        if let Some(loss) = &row.training_loss {
            let capped = row.capped.map_or(String::new(), |capped| {
                format!(", {} of searches capped", percent(capped.mean))
            });
            out += &format!(
                "{}: mean perturbed loss {:.4}, {perturbation}{capped}\n",
                row.name, loss.mean
            );
        }
    }
    for row in &report.rows {
        if let (Some(found), Some(control), Some(seed)) =
            (&row.comparison, &row.control, report.seeds.first())
        {
            out += &format!(
                "Seed {seed} only, over images: {}\n",
                sentence(found, control, &row.name)
            );
        }
    }
    if let Some(note) = damage_note(&report.damaged) {
        out += &format!("note: {}\n", in_flags(&note));
    }
    let all: Vec<&CacheInfo> = report.run.costs.iter().flat_map(|c| &c.cache).collect();
    let read = all.iter().filter(|c| c.found > 0 && c.found == c.views).count();
    if read > 0 {
        let n = all.len();
        out += &format!("{read} of {n} runs read the activations of frozen layers from files\n");
    }
    out + &format!("total {}\n", duration(report.run.run.seconds))
}
