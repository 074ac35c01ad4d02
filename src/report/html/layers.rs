//! Results of `diagnose`, by layer.

use super::chart::{Axis, Colour, svg};
use super::rows::{Mark, Row, Scale, rows};
use super::text::{escape, figure, folded, key, note, paragraph, table};
use crate::diagnose::Basis;
use crate::diagnose::findings::{Findings, Fitted, LayerResult, LossLine, Plan};
use crate::format::{ABSENT, estimate, number, optional};
use crate::objective::Matrix;

/// Half width of a 95% interval, in standard errors.
const Z: f64 = 1.96;

/// ΔL and κ with intervals, the plan with its ties, and a table of all figures.
pub fn layers(findings: &Findings) -> String {
    let (title, beside) = match findings.basis {
        Basis::Calibrated => (
            "ΔL: loss that moving one layer removes beyond temperature scaling",
            "raw ΔL, without temperature scaling",
        ),
        Basis::Raw => {
            ("ΔL: reduction in validation loss from moving one layer", "ΔL beyond a temperature")
        }
    };
    let mut out = paragraph(&plan_words(findings));
    out += &paragraph(&findings.estimand());
    out += "<div class=\"charts\">\n";
    let fields =
        |l: &LayerResult| [(l.delta_l_nats, Colour::Blue), (l.beside(), Colour::Orange)].to_vec();
    let drawn = fitted_rows(findings, title, "nats per image", fields, |plan| {
        (&plan.update, &plan.tied_update)
    });
    out += &figure(title, "nats per image; above 0 is a gain on held-out images", &drawn);
    let title = "κ: sharpness of the reduction";
    let fields = |l: &LayerResult| vec![(l.kappa, Colour::Blue)];
    let drawn = fitted_rows(findings, title, "nats / ‖Δw‖²", fields, |plan| {
        (&plan.perturb, &plan.tied_perturb)
    });
    out += &figure(title, "ΔL/‖Δw‖², nats per squared weight unit", &drawn);
    out += "</div>\n";
    out += &key(&[
        ("blue", "full", "cross-fitted, with 95% interval"),
        ("orange", "full", beside),
        ("muted", "open", "in-sample: not reliable"),
    ]);
    out += &note(
        "Rows in the stronger colour are eligible: their ΔL is significantly above 0, corrected for the \
         number of layers. ▸ marks the layer of the plan, ≈ layers that are not significantly different \
         from it.",
    );
    out + &folded("The figures", &figures(findings))
}

fn fitted_rows(
    findings: &Findings,
    title: &str,
    label: &str,
    fields: impl Fn(&LayerResult) -> Vec<(Fitted, Colour)>,
    chosen: fn(&Plan) -> (&String, &[String]),
) -> String {
    let plan = findings.plan.as_ref();
    let mark = |name: &String| match plan.map(chosen) {
        Some((best, _)) if best == name => format!("▸ {name}"),
        Some((_, tied)) if tied.contains(name) => format!("≈ {name}"),
        _ => name.clone(),
    };
    let row = |l: &LayerResult| {
        let fitted = fields(l);
        let mut marks = Vec::new();
        for (f, colour) in &fitted {
            if let Some(value) = f.cross_fit {
                let half = f.stderr.map(|e| Z * e);
                marks.push(Mark { value, half, colour: *colour, filled: true });
            }
        }
        if let Some(value) = fitted.first().and_then(|(f, _)| f.in_sample) {
            marks.push(Mark { value, half: None, colour: Colour::Muted, filled: false });
        }
        Row { name: mark(&l.name), strong: l.eligible, marks }
    };
    let all: Vec<Row> = findings.layers.iter().map(row).collect();
    let told: Vec<String> = findings
        .layers
        .iter()
        .filter_map(|l| fields(l).first().map(|(f, _)| format!("{} {}", l.name, both(f))))
        .collect();
    rows(
        (title, &format!("Cross-fitted, by layer: {}.", told.join("; "))),
        label,
        &all,
        Scale::WithZero,
    )
}

fn plan_words(findings: &Findings) -> String {
    let tied = |names: &[String]| match names {
        [] => String::new(),
        names => format!(" (tied with {})", names.join(", ")),
    };
    let told = |plan: &Plan| {
        format!(
            "perturb {}{}, update {}{}",
            plan.perturb,
            tied(&plan.tied_perturb),
            plan.update,
            tied(&plan.tied_update)
        )
    };
    let first = match &findings.plan {
        Some(plan) => {
            let one = findings.one_layer().map_or(String::new(), |said| format!(" Here {said}."));
            format!("The plan is to {}.{one}", told(plan))
        }
        None => "There is no plan: no layer's cross-fitted ΔL is significantly above 0.".into(),
    };
    let raw = match (&findings.plan_raw, findings.basis) {
        (Some(plan), Basis::Calibrated) => {
            format!(" Without temperature scaling, the plan would be to {}.", told(plan))
        }
        (None, Basis::Calibrated) => " Without temperature scaling, no layer is eligible.".into(),
        (_, Basis::Raw) => String::new(),
    };
    let published = findings.plan_in_sample.as_ref().map_or(String::new(), |plan| {
        format!(
            " The in-sample figures, as published, would perturb {} and update {}.",
            plan.perturb, plan.update
        )
    });
    first + &raw + &published
}

fn both(f: &Fitted) -> String {
    f.estimate().map_or(ABSENT.into(), estimate)
}

fn figures(findings: &Findings) -> String {
    let beside = match findings.basis {
        Basis::Calibrated => "raw ΔL",
        Basis::Raw => "ΔL beyond T",
    };
    let headers = [
        "layer",
        "ΔL in-sample",
        "ΔL cross-fit",
        beside,
        "κ in-sample",
        "κ cross-fit",
        "κ‖w‖²",
        "‖Δw‖",
        "‖w‖",
        "parameters",
    ];
    let rows: Vec<Vec<String>> = findings
        .layers
        .iter()
        .map(|l| {
            vec![
                l.name.clone(),
                optional(l.delta_l_nats.in_sample),
                both(&l.delta_l_nats),
                both(&l.beside()),
                optional(l.kappa.in_sample),
                both(&l.kappa),
                l.kappa_relative.map_or(ABSENT.into(), |f| both(&f)),
                number(l.displacement),
                number(l.weight_norm),
                crate::format::count(l.parameters as u64),
            ]
        })
        .collect();
    table(&headers, &rows)
}

/// The loss along each layer's line; `None` if the file has no points.
pub fn lines(findings: &Findings) -> Option<String> {
    // One vertical axis for all layers, so that the noise of flat lines is not magnified.
    let changes: Vec<f64> = findings.layers.iter().flat_map(plotted).map(|p| p.1).collect();
    let drawn: String = findings
        .layers
        .iter()
        .filter(|l| l.lines.iter().any(|line| !line.points.is_empty()))
        .map(|l| figure(&l.name, "", &line_chart(l, &changes)))
        .collect();
    if drawn.is_empty() {
        return None;
    }
    let words = "Change in each fold's loss at the points of the line search (first split of V), \
                 and the quadratic prediction from gradient and Hessian at 0. The horizontal axis \
                 is the step size in units of the predicted optimum, α_q = gᵀg/gᵀHg.";
    Some(
        paragraph(words)
            + &key(&[
                ("blue", "full", "measured, first fold"),
                ("orange", "full", "measured, second fold"),
                ("muted", "line", "predicted, in the fold's colour"),
            ])
            + &format!("<div class=\"charts small\">\n{drawn}</div>\n"),
    )
}

/// The unit of a line's axis, α_q. Without positive curvature there is none; the axis then shows α.
fn unit(l: &LossLine) -> f64 {
    if l.curvature > 0.0 { -l.slope / l.curvature } else { 1.0 }
}

/// The quadratic prediction along a line.
fn curve(l: &LossLine) -> Vec<(f64, f64)> {
    let reach = 1.08 * l.points.iter().map(|p| p[0]).fold(0.0, f64::max);
    let far = reach.max(if l.curvature > 0.0 { 1.2 * unit(l) } else { 0.0 });
    let at = |i: u32| far * f64::from(i) / 40.0;
    let quadratic = |a: f64| l.slope * a + 0.5 * l.curvature * a * a;
    (0..=40).map(|i| (at(i) / unit(l), quadratic(at(i)))).collect()
}

/// The measured points of a line.
fn points(l: &LossLine) -> Vec<(f64, f64)> {
    let of = l.points.iter().map(|p| (p[0] / unit(l), p[1] - l.at_zero));
    std::iter::once((0.0, 0.0)).chain(of).collect()
}

/// Everything that a layer's chart shows.
fn plotted(layer: &LayerResult) -> Vec<(f64, f64)> {
    layer.lines.iter().flat_map(|l| [points(l), curve(l)].concat()).collect()
}

/// The chart of a layer; `changes` are those of all layers.
fn line_chart(layer: &LayerResult, changes: &[f64]) -> String {
    let x = Axis::around("α/α_q", plotted(layer).iter().map(|p| p.0));
    let y = Axis::around("", changes.iter().copied());
    let told = match layer.quadratic.delta_l_nats {
        Some(q) => {
            let least = |l: &LossLine| l.points.iter().fold(l.at_zero, |least, p| least.min(p[1]));
            let fall: f64 = layer.lines.iter().map(|l| l.at_zero - least(l)).sum();
            format!(
                "The lowest point measured is {} nats below the start, the quadratic predicts {}.",
                number(fall / layer.lines.len() as f64),
                number(q)
            )
        }
        None => "The curvature along the gradient is not positive.".into(),
    };
    let title = format!("Loss along the gradient of {}", layer.name);
    svg((400, 320), (&title, &told), (x, y), 92, |chart| {
        chart.x_axis();
        chart.y_axis();
        for (line, colour) in layer.lines.iter().zip(Colour::SERIES) {
            chart.line(&curve(line), colour, 2);
            points(line).iter().for_each(|&(x, y)| chart.dot(x, y, colour, 6, true));
        }
    })
}

/// Eigenvalues and traces; `None` if none were measured.
pub fn spectrum(findings: &Findings) -> Option<String> {
    let all = findings.layers.iter().flat_map(|l| l.spectra.iter().map(move |s| (l, s)));
    let of = |m: Matrix| if m == Matrix::Hessian { "Hessian" } else { "Gauss-Newton" };
    let (mut drawn, mut told) = (Vec::new(), Vec::new());
    for (layer, s) in all {
        let name = match s.matrix {
            Matrix::Hessian => layer.name.clone(),
            Matrix::GaussNewton => format!("{} (GN)", layer.name),
        };
        let mut marks: Vec<Mark> = s
            .largest
            .iter()
            .enumerate()
            .map(|(i, l)| Mark { value: l.value, half: None, colour: Colour::Blue, filled: i == 0 })
            .collect();
        marks.extend(s.trace.map(|t| Mark {
            value: t.value,
            half: None,
            colour: Colour::Orange,
            filled: true,
        }));
        drawn.push(Row { name, strong: layer.eligible, marks });
        let value = |mean, stderr| estimate(crate::evaluate::Estimate { mean, stderr });
        told.push(vec![
            layer.name.clone(),
            of(s.matrix).into(),
            s.largest.first().map_or(ABSENT.into(), |l| value(l.value, s.largest_stderr)),
            optional(s.largest.get(1).map(|l| l.value)),
            optional(s.smallest.first().map(|l| l.value)),
            s.trace.map_or(ABSENT.into(), |t| value(t.value, Some(t.stderr))),
            s.effective_dimension.map_or(ABSENT.into(), |e| value(e.value, e.stderr)),
        ]);
    }
    if drawn.is_empty() {
        return None;
    }
    let title = "Largest eigenvalues and trace, by layer";
    let headers = ["layer", "matrix", "λ_max", "next", "λ_min", "trace", "tr/λ_max"];
    let words: Vec<String> = told.iter().map(|r| format!("{} {}", r[0], r[2])).collect();
    let description = format!("Largest eigenvalue: {}.", words.join("; "));
    Some(
        key(&[
            ("blue", "full", "largest eigenvalue"),
            ("blue", "open", "the next ones"),
            ("orange", "full", "trace"),
        ]) + &figure(
            title,
            "nats per squared weight unit",
            &rows((title, &description), "nats per squared weight unit", &drawn, Scale::Log),
        ) + &table(&headers, &told),
    )
}

/// Warnings, as a list.
pub fn warnings(warnings: &[String]) -> String {
    let items: String = warnings.iter().map(|w| format!("<li>{}</li>\n", escape(w))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"note\">\n{items}</ul>\n") }
}
