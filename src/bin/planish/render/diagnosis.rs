//! Text output of `diagnose`.

use super::table::{Align, Style, Table};
use super::{remedies, sampling};
use crate::message::in_flags;
use planish::diagnose::Basis;
use planish::diagnose::findings::{Findings, Fitted, Plan};
use planish::diagnose::spectrum::{Estimated, Spectrum};
use planish::format::{ABSENT, count, number, optional};
use planish::objective::Matrix;
use planish::report::diagnosis::DiagnosisReport;

/// The whole output, with these notes. Plan and warnings follow the tables; remedies and growing
/// samples come last.
pub fn text(report: &DiagnosisReport, notes: &[&String]) -> String {
    let findings = &report.findings;
    let loss = &findings.loss_nats;
    let of_some = match loss.training_images {
        Some(n) => format!(" ({} images)", count(n as u64)),
        None => String::new(),
    };
    let mut out = format!(
        "validation: {} images ({}); loss {}, calibrated {:.4} (cross-fitted on halves), temperature {:.3}{}\n",
        report.data.images,
        report.data.origin,
        with_error(Some(loss.validation), loss.stderr),
        loss.calibrated,
        loss.temperature,
        loss.training.map_or(String::new(), |t| format!("; training loss {t:.4}{of_some}")),
    );
    for note in notes {
        out += &format!("note: {note}\n");
    }
    out +=
        &format!("\n{}\n{}{}\n", table(findings), basis_line(findings.basis), findings.estimand());
    out += &spectra(findings);
    out += &format!("{}\n", findings.summary);
    match &findings.plan {
        Some(plan) => out += &plan_line("plan", plan),
        None => out += "plan: none\n",
    }
    out += &findings.one_layer().map_or(String::new(), |said| said + "\n");
    if let Some(plan) = &findings.plan_in_sample {
        out +=
            &format!("in-sample, as published: perturb {}, update {}\n", plan.perturb, plan.update);
    }
    match (&findings.plan_raw, findings.basis) {
        (Some(plan), Basis::Calibrated) => out += &plan_line("without temperature scaling", plan),
        (None, Basis::Calibrated) => out += "without temperature scaling: no plan\n",
        (_, Basis::Raw) => {}
    }
    for warning in &findings.warnings {
        out += &format!("warning: {}\n", in_flags(warning));
    }
    out += &report.remedies.as_ref().map_or(String::new(), remedies::text);
    out + &sampling::text(report)
}

/// What the columns of losses are.
fn basis_line(basis: Basis) -> &'static str {
    match basis {
        Basis::Calibrated => {
            "ΔL is the loss that moving one layer removes beyond temperature scaling. Raw ΔL is measured without \
             temperature scaling, on one split of V. For the head, κ, ‖w‖ and ‖Δw‖ are of its weights divided by \
             the temperature.\n"
        }
        Basis::Raw => {
            "ΔL is measured without temperature scaling. Beyond T is the ΔL of the same move with temperatures \
             fitted before and after it.\n"
        }
    }
}

fn plan_line(title: &str, plan: &Plan) -> String {
    let tied = |names: &[String]| match names {
        [] => String::new(),
        _ => format!(" (tied with {})", names.join(", ")),
    };
    format!(
        "{title}: perturb {}{}, update {}{}\n",
        plan.perturb,
        tied(&plan.tied_perturb),
        plan.update,
        tied(&plan.tied_update)
    )
}

/// ΔL of each layer, then the steps and κ. Two tables, so that lines fit a terminal.
fn table(findings: &Findings) -> String {
    let right = |name| (name, Align::Right);
    let both = |f: &Fitted| with_error(f.cross_fit, f.stderr);
    let beside = match findings.basis {
        Basis::Calibrated => "raw ΔL",
        Basis::Raw => "beyond T",
    };
    let mut gains = Table::new(&[
        ("layer", Align::Left),
        right("ΔL in-sample"),
        right("ΔL cross-fit"),
        right(beside),
        ("", Align::Left),
    ]);
    let mut steps = Table::new(&[
        ("layer", Align::Left),
        right("κ in-sample"),
        right("κ cross-fit"),
        right("κ‖w‖²"),
        right("‖Δw‖"),
        right("α*/α_q"),
        ("", Align::Left),
    ]);
    for l in &findings.layers {
        let cells = [
            l.name.clone(),
            optional(l.delta_l_nats.in_sample),
            both(&l.delta_l_nats),
            both(&l.beside()),
            if l.eligible { "eligible" } else { "" }.into(),
        ];
        // A bar's length is relative to the largest, so noise must not have one.
        let gap = l.delta_l_nats.cross_fit.filter(|_| l.eligible);
        gains.row_with_bar(cells, gap.unwrap_or(0.0));
        let mut flags = Vec::new();
        if l.capped {
            flags.push("capped");
        }
        if l.negative_curvature {
            flags.push("gᵀHg ≤ 0");
        }
        if l.weight_norm == 0.0 {
            flags.push("w = 0");
        }
        steps.row([
            l.name.clone(),
            optional(l.kappa.in_sample),
            both(&l.kappa),
            optional(l.kappa_relative.and_then(|f| f.cross_fit)),
            number(l.displacement),
            match (&l.newton, l.quadratic.alpha) {
                (None, Some(q)) => format!("{:.2}", l.alpha / q),
                _ => ABSENT.into(),
            },
            flags.join(", "),
        ]);
    }
    format!("{}\n{}", gains.render(Style::of_stdout()), steps.render(Style::of_stdout()))
}

pub fn with_error(mean: Option<f64>, stderr: Option<f64>) -> String {
    mean.map_or(ABSENT.into(), |mean| {
        planish::format::estimate(planish::evaluate::Estimate { mean, stderr })
    })
}

/// Eigenvalues and traces by layer, one row per matrix.
fn spectra(findings: &Findings) -> String {
    let all: Vec<(&str, &Spectrum)> = findings
        .layers
        .iter()
        .flat_map(|l| l.spectra.iter().map(|s| (l.name.as_str(), s)))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("matrix", Align::Left),
        right("λ_max"),
        right("next"),
        right("λ_min"),
        right("trace"),
        right("tr/λ_max"),
        ("", Align::Left),
    ]);
    for (name, s) in all {
        let matrix = match s.matrix {
            Matrix::Hessian => "Hessian",
            Matrix::GaussNewton => "Gauss-Newton",
        };
        let top = s.largest.first().map(|l| l.value);
        let bottom = s.smallest.first().map(|l| {
            let scale = top.unwrap_or(0.0).abs().max(l.value.abs());
            match l.residual {
                Some(r) if l.value.abs() <= r * scale => "≈ 0".into(),
                _ => number(l.value),
            }
        });
        let mut flags = Vec::new();
        if s.largest.iter().chain(&s.smallest).any(|l| !l.converged) {
            flags.push("eigenvalues not converged");
        }
        if s.trace.is_some_and(|t| !t.converged) {
            flags.push("trace error above 10%");
        }
        let both = |e: Option<Estimated>| e.map_or(ABSENT.into(), |e| value(&e));
        table.row([
            name.to_owned(),
            matrix.to_owned(),
            with_error(top, s.largest_stderr),
            optional(s.largest.get(1).map(|l| l.value)),
            bottom.unwrap_or(ABSENT.into()),
            s.trace.map_or(ABSENT.into(), |t| with_error(Some(t.value), Some(t.stderr))),
            both(s.effective_dimension),
            flags.join(", "),
        ]);
    }
    let raw = match findings.basis {
        Basis::Calibrated => {
            "Eigenvalues and traces are of the loss without temperature scaling.\n"
        }
        Basis::Raw => "",
    };
    format!("{}\n{raw}", table.render(Style::of_stdout()))
}

/// A value and its standard error.
pub fn value(e: &Estimated) -> String {
    with_error(Some(e.value), e.stderr)
}
