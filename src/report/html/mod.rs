//! Results as one self-contained HTML page: no network, no scripts, no embedded fonts. It supports
//! light and dark themes, narrow screens, print and screen readers: each chart has an accessible
//! name and description, and its figures are also in a table.

mod by_class;
mod chart;
mod density;
mod diagnosed;
mod figures;
mod find_pictures;
mod headline;
mod input;
mod layers;
mod methods;
mod moves;
mod pictures;
mod provenance;
mod rows;
mod runs;
mod scatter;
mod study;
mod summary;
mod text;

pub use find_pictures::{PictureError, find_pictures};
pub use input::{Error, Input, Report, read};
pub use pictures::Pictures;

use crate::evaluate::Summary;
use crate::format::{epochs, number, percent};
use crate::post_train::result::BeforeAfter;
use crate::post_train::search::{HEADERS, RecipeSearch};
use crate::report::{
    BASELINE_HEADERS, Conformal, Evaluation, Fixing, Merging, SET_HEADERS, STEP_HEADERS,
    laplace_sentence,
};
use crate::shift::Shifts;
use std::fmt::Write;
use text::{escape, paragraph};

const STYLE: &str = include_str!("style.css");

/// One section of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

/// Renders the page. The order of sections is fixed. `pictures` show images that tuning fixed or
/// broke.
pub fn page(inputs: &[Input], pictures: &[Pictures]) -> String {
    let sections = sections(inputs, pictures);
    let heading = escape(&summary::heading(inputs));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>planish: {heading}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <p class=\"kicker\">planish report</p>\n<h1>{heading}</h1>\n"
    );
    out += &summary::sentences(inputs);
    out += &summary::tiles(inputs);
    out += "<nav aria-label=\"Sections\"><ul>\n";
    for s in &sections {
        let _ = writeln!(out, "<li><a href=\"#{}\">{}</a></li>", s.id, escape(s.title));
    }
    out += "</ul></nav>\n</header>\n<main>\n";
    for Section { id, title, body } in &sections {
        let _ =
            write!(out, "<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n", escape(title));
    }
    out + "</main>\n</body>\n</html>\n"
}

fn sections(inputs: &[Input], pictures: &[Pictures]) -> Vec<Section> {
    let mut all = Vec::new();
    let mut add = |id, title, body: String| {
        if !body.is_empty() {
            all.push(Section { id, title, body });
        }
    };
    // Results of the same kind share a section, each under its file name.
    let each = |of: &dyn Fn(&Report) -> Option<String>| {
        let found: Vec<(&str, String)> = inputs
            .iter()
            .filter_map(|i| of(&i.report).map(|body| (i.name.as_str(), body)))
            .collect();
        match found.as_slice() {
            [(_, body)] => body.clone(),
            many => many.iter().map(|(n, b)| format!("<h3>{}</h3>\n{b}", escape(n))).collect(),
        }
    };
    let diagnosed = |of: fn(&crate::diagnose::findings::Findings) -> Option<String>| {
        each(&|r| match r {
            Report::Diagnosis(r) => of(&r.findings),
            _ => None,
        })
    };
    add(
        "layers",
        "Where it overfits",
        diagnosed(|f| Some(layers::layers(f) + &layers::warnings(&f.warnings))),
    );
    add(
        "moves",
        "Moves along remedies",
        each(&|r| match r {
            Report::Diagnosis(r) => r.remedies.as_ref().map(moves::moves),
            Report::Fixing(r) => r.looks.first().map(moves::moves),
            _ => None,
        }),
    );
    add("lines", "The loss along each layer’s gradient", diagnosed(layers::lines));
    add("spectrum", "Curvature", diagnosed(layers::spectrum));
    add("density", "Spectral density", diagnosed(density::densities));
    add(
        "search",
        "Recipes tried",
        each(&|r| match r {
            Report::PostTraining(r) => r.search.as_ref().map(search),
            Report::Fixing(r) => r.search.as_ref().map(search),
            _ => None,
        }),
    );
    add("tuning", "Before and after", each(&tuning));
    let evaluated: Vec<(String, &Evaluation)> = inputs
        .iter()
        .filter_map(|i| match &i.report {
            Report::Evaluation(r) => Some((i.name.clone(), &**r)),
            _ => None,
        })
        .collect();
    let models: Vec<(String, &Summary)> =
        evaluated.iter().map(|(name, r)| (name.clone(), &r.figures)).collect();
    if !models.is_empty() {
        add("figures", "Figures", figures::summaries(&models));
    }
    add("reliability", "Reliability", figures::reliability(&judged(inputs)).unwrap_or_default());
    add(
        "classes",
        "Classes",
        each(&|r| match r {
            Report::Evaluation(r) => r.by_class.as_ref().and_then(by_class::by_class),
            _ => None,
        }),
    );
    add(
        "methods",
        "Methods compared",
        each(&|r| match r {
            Report::Bench(r) => Some(methods::methods(r)),
            _ => None,
        }),
    );
    add("shifts", "Shifted images", shifted(&evaluated));
    let others = |r: &Evaluation| (!r.others.is_empty()).then(|| figures::others(&r.others));
    add(
        "others",
        "Out-of-distribution images",
        each(&|r| match r {
            Report::Evaluation(r) => others(r),
            _ => None,
        }),
    );
    add(
        "images",
        "Images that tuning fixed and broke",
        each(&|r| match r {
            Report::PostTraining(r) => {
                let part = r.test.as_ref().or(r.validation.as_ref())?;
                let own = pictures.iter().find(|p| p.digest == part.data.digest);
                let names = r.class_names.as_deref().unwrap_or_default();
                let refused = headline::refused(r);
                part.flips.as_ref().map(|f| pictures::flips(f, own, names, refused))
            }
            _ => None,
        }),
    );
    add(
        "study",
        "Models compared",
        each(&|r| match r {
            Report::Study(rows) => Some(study::study(rows)),
            _ => None,
        }),
    );
    add(
        "study-layers",
        "Where the models overfit",
        each(&|r| match r {
            Report::Layers(rows) => Some(diagnosed::layers(rows)),
            _ => None,
        }),
    );
    add(
        "study-others",
        "Out-of-distribution images, by model",
        each(&|r| match r {
            Report::Ood(rows) => Some(diagnosed::others(rows)),
            _ => None,
        }),
    );
    add(
        "runs",
        "Training runs",
        each(&|r| match r {
            Report::Runs(rows) => Some(runs::runs(rows)),
            _ => None,
        }),
    );
    add("provenance", "Provenance", provenance::provenance(inputs));
    all
}

/// The best recipes of a search.
fn search(search: &RecipeSearch) -> String {
    let rows: Vec<Vec<String>> = search.leading(12).into_iter().map(Vec::from).collect();
    text::paragraph(&format!("{}.", search.sentence(rows.len()))) + &text::table(&HEADERS, &rows)
}

fn tuning(report: &Report) -> Option<String> {
    match report {
        Report::PostTraining(r) => {
            let mut out = paragraph(&format!(
                "{} over {}{}.",
                headline::method(r),
                epochs(r.settings.epochs),
                r.output.as_ref().map_or(String::new(), |f| format!("; written to {}", f.path)),
            ));
            let refused = headline::refusal(r);
            if let Some(why) = &refused {
                out += &layers::warnings(&[format!("refused by the guard: {why}")]);
            }
            let after = if refused.is_some() { "after, refused" } else { "after" };
            for (name, part) in [("test", &r.test), ("V", &r.validation)] {
                let Some(part) = part else { continue };
                let _ = writeln!(out, "<h3>{}</h3>", escape(&headline::on(name, &part.data)));
                out += &one_split(part, after);
            }
            Some(out + &layers::warnings(&r.notes))
        }
        Report::Calibration(r) => {
            let written = r
                .output
                .as_ref()
                .map_or("nothing written".into(), |f| format!("written to {}", f.path));
            let mut out = paragraph(&format!(
                "Calibration by {}, temperature {}; {written}. A perfectly calibrated model with the \
                 same confidences would have a calibration error of {} before and {} after.",
                r.method.name(),
                number(r.temperature),
                number(r.null_ece.before),
                number(r.null_ece.after),
            ));
            for (name, part) in [("test", r.test.as_ref()), ("V", Some(&r.validation))] {
                let Some(part) = part else { continue };
                let _ = writeln!(out, "<h3>{}</h3>", escape(&headline::on(name, &part.data)));
                out += &one_split(part, "after");
            }
            let laplace = r.laplace.as_ref().map(|found| paragraph(&laplace_sentence(found)));
            out += &laplace.unwrap_or_default();
            out += &r.conformal.as_ref().map_or(String::new(), conformal);
            Some(out + &layers::warnings(&r.notes))
        }
        Report::Merging(r) => {
            let mut out = paragraph(&merged(r)) + &ingredients(r);
            for (name, part) in [("test", r.test.as_ref()), ("V", Some(&r.validation))] {
                let Some(part) = part else { continue };
                let _ = writeln!(out, "<h3>{}</h3>", escape(&headline::on(name, &part.data)));
                out += &one_split(part, "after");
            }
            Some(out + &layers::warnings(&r.notes))
        }
        Report::Fixing(r) => Some(fixed(r)),
        Report::Comparison(r) => Some(
            paragraph(&r.sentence)
                + &text::facts(&[("A", r.a.path.clone()), ("B", r.b.path.clone())])
                + &figures::differences(&r.comparison, ["A", "B"]),
        ),
        Report::Finetuning(r) => {
            let of: Vec<_> = r.figures.iter().map(|(name, s)| (name.clone(), s)).collect();
            Some(figures::summaries(&of))
        }
        _ => None,
    }
}

/// The steps of a fix, figures before and after, and standard methods.
fn fixed(r: &Fixing) -> String {
    let owned =
        |rows: Vec<[String; 6]>| -> Vec<Vec<String>> { rows.into_iter().map(Vec::from).collect() };
    let mut out = paragraph(&r.conclusion()) + &text::table(&STEP_HEADERS, &owned(r.step_rows()));
    for (name, part) in [("test", r.test.as_ref()), ("V, optimistic", Some(&r.validation))] {
        let Some(part) = part else { continue };
        let _ = writeln!(out, "<h3>{}</h3>", escape(&headline::on(name, &part.data)));
        out += &one_split(part, "after");
    }
    let baselines = r.baseline_rows();
    if !baselines.is_empty() {
        out += "<h3>Standard methods, fitted on the same V</h3>\n";
        out += &text::table(&BASELINE_HEADERS, &owned(baselines));
    }
    out + &layers::warnings(&r.notes)
}

fn merged(r: &Merging) -> String {
    let alpha = r.alpha.map_or(String::new(), |alpha| match r.alpha_given {
        true => format!(", α = {alpha} as set"),
        false => format!(", α = {alpha}, the best on V"),
    });
    let written =
        r.output.as_ref().map_or("nothing written".into(), |f| format!("written to {}", f.path));
    format!("Merged by {}{alpha}; {written}. Before is {}.", r.method.name(), r.best)
}

/// The figures on V of the checkpoints, or of the models along α.
fn ingredients(r: &Merging) -> String {
    let cells = |name: String, nll, calibrated, top1, note: &str| {
        vec![name, number(nll), number(calibrated), percent(top1), note.into()]
    };
    let checkpoints = r.ingredients.iter().map(|one| {
        let note = if one.used { "" } else { "left out" };
        cells(one.path.clone(), one.nll, one.calibrated_nll, one.top1, note)
    });
    let along = r.curve.iter().map(|point| {
        let note = if Some(point.alpha) == r.alpha { "used" } else { "" };
        let name = format!("α = {}", point.alpha);
        cells(name, point.nll, point.calibrated_nll, point.top1, note)
    });
    let rows: Vec<Vec<String>> = checkpoints.chain(along).collect();
    text::table(&["on V", "NLL", "NLL at T, in-sample", "top-1", ""], &rows)
}

/// Conformal sets before and after calibration.
fn conformal(conformal: &Conformal) -> String {
    let rows: Vec<Vec<String>> = conformal.rows().into_iter().map(Vec::from).collect();
    format!("<h3>Conformal sets for {} coverage</h3>\n", percent(1.0 - conformal.alpha))
        + &text::table(&SET_HEADERS, &rows)
}

fn one_split(part: &BeforeAfter, after: &str) -> String {
    match &part.comparison {
        Some(comparison) => figures::differences(comparison, ["before", after]),
        None => figures::summaries(&[("before".into(), &part.before), (after.into(), &part.after)]),
    }
}

/// Every model with a reliability diagram.
fn judged(inputs: &[Input]) -> Vec<(String, &Summary)> {
    let is_tuning = |i: &&Input| {
        matches!(
            i.report,
            Report::PostTraining(_)
                | Report::Calibration(_)
                | Report::Merging(_)
                | Report::Fixing(_)
        )
    };
    let tuned = inputs.iter().any(|i| is_tuning(&i));
    // Show before and after if there is a tuning, else the evaluations.
    let shown = inputs.iter().filter(|i| !tuned || is_tuning(i));
    shown.flat_map(models).collect()
}

/// A model before and after.
fn both<'a>((role, part): (&str, &'a BeforeAfter)) -> Vec<(String, &'a Summary)> {
    vec![(format!("Before, on {role}"), &part.before), (format!("After, on {role}"), &part.after)]
}

fn models(input: &Input) -> Vec<(String, &Summary)> {
    match &input.report {
        Report::PostTraining(r) => {
            let refused = if headline::refused(r) { ", refused" } else { "" };
            headline::final_figures(r).map_or_else(Vec::new, |(role, part)| {
                let named = |when: &str| format!("{when}, on {role}");
                vec![
                    (named("Before"), &part.before),
                    (named(&format!("After{refused}")), &part.after),
                ]
            })
        }
        Report::Calibration(r) => both(headline::test_or_v(r.test.as_ref(), &r.validation)),
        Report::Merging(r) => both(headline::test_or_v(r.test.as_ref(), &r.validation)),
        Report::Fixing(r) => both(r.judged()),
        Report::Evaluation(r) => vec![(input.name.clone(), &r.figures)],
        Report::Finetuning(r) => r.figures.iter().map(|(n, s)| (n.clone(), s)).collect(),
        _ => Vec::new(),
    }
}

fn shifted(evaluated: &[(String, &Evaluation)]) -> String {
    let with: Vec<(&String, &Evaluation, &Shifts)> = evaluated
        .iter()
        .filter_map(|(name, r)| r.shifts.as_ref().map(|s| (name, *r, s)))
        .filter(|(_, _, s)| !s.cells.is_empty())
        .collect();
    if with.is_empty() {
        return String::new();
    }
    let lines: Vec<(String, &Shifts)> =
        with.iter().map(|(name, _, s)| ((*name).clone(), *s)).collect();
    let maps: String = with
        .iter()
        .map(|(name, r, s)| format!("<div>{}</div>\n", figures::heat(name, &r.figures, s)))
        .collect();
    figures::by_severity(&lines)
        + &paragraph(
            "Accuracy by corruption and severity. A stronger colour means a larger loss of \
                      accuracy relative to clean images.",
        )
        + &format!("<div class=\"charts\">\n{maps}</div>\n")
}
