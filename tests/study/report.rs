//! The page of `planish report` for a study.

use crate::common::Bench;
use roxmltree::Document;
use serde_json::{Value, json};
use std::fs;

/// Rows of models whose shifted figures are a linear function of the clean ones.
fn rows(models: usize) -> Vec<Value> {
    let row = |i: usize, shift: &str, severity: usize| {
        let (x, lost) = (i as f64 / 100.0, if shift == "none" { 0.0 } else { 0.1 });
        let width = if i == 1 { Value::Null } else { (8usize << i).into() };
        json!({
            "cell": format!("{i}{shift}{severity}"), "model": format!("m{i}"), "model_width": width,
            "model_recipe": "sgd", "checkpoint_digest": "d", "parameters": 1000, "data": "grey",
            "source": "data", "shift": shift, "severity": severity, "top1": 0.8 + x - lost,
            "top1_stderr": 0.01, "nll": 0.5 - x + lost, "nll_stderr": 0.02, "ece": 0.05,
            "ece_stderr": null, "seconds": 1.0,
        })
    };
    (0..models)
        .flat_map(|i| [row(i, "none", 0), row(i, "fog", 1), row(i, "fog", 3 + i.min(1))])
        .collect()
}

fn page(bench: &Bench, rows: &[Value]) -> String {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(bench.path("results.jsonl"), lines).unwrap();
    let html = bench.path("r.html");
    let out = bench.plain(&["report", &bench.path("results.jsonl"), "--html", &html]);
    assert!(out.success, "{}", out.errors);
    fs::read_to_string(html).unwrap()
}

#[test]
fn shifted_figures_are_plotted_against_clean_ones_and_width() {
    let bench = Bench::new();
    let text = page(&bench, &rows(7));
    let tree = Document::parse(text.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    let ids = tree.descendants().filter(|n| n.has_tag_name("section"));
    let ids: Vec<&str> = ids.filter_map(|n| n.attribute("id")).collect();
    assert_eq!(ids, ["study", "provenance"]);
    let descriptions: Vec<&str> =
        tree.descendants().filter(|n| n.has_tag_name("desc")).filter_map(|n| n.text()).collect();
    let titles: Vec<&str> = tree
        .descendants()
        .filter(|n| n.has_tag_name("title") && n.parent().unwrap().has_tag_name("svg"))
        .filter_map(|n| n.text())
        .collect();
    // All models have the same number of parameters, so there is no chart for it.
    let shifted = ["Top-1", "NLL", "ECE"].map(|f| format!("{f}: shifted against in distribution"));
    let scaling = ["Top-1", "NLL", "ECE"].map(|f| format!("{f} against width"));
    assert_eq!(titles, [shifted, scaling].concat());
    // Only severity 1 is present for all models. The width of m1 is unknown.
    assert!(text.contains("mean over the 1 corruptions and severities that all models have"));
    assert!(descriptions[0].contains("m3 at 0.8300 and 0.7300"), "{}", descriptions[0]);
    assert!(
        descriptions[3].contains("m2 at 32") && !descriptions[3].contains("m1"),
        "{}",
        descriptions[3]
    );
    // All shifted figures are worse than all clean ones, so the diagonal is outside the charts.
    assert!(!text.contains("dashed:"), "a legend for a line that is not drawn");
    // The points are on a line. A constant figure has no correlation.
    assert!(
        text.contains("shifted; Spearman 1.00 [1.00, 1.00], Pearson 1.00 [1.00, 1.00] (7 dots)")
    );
    assert!(text.contains("no correlation is defined (7 dots)"));
    // The axis of widths, 8 to 512, is logarithmic, with ticks at 1, 2 and 5 times powers of ten.
    let last = tree.descendants().filter(|n| n.has_tag_name("svg")).nth(3).unwrap();
    let words: Vec<&str> =
        last.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
    let words: Vec<&str> = words.iter().map(|w| w.trim()).collect();
    assert!(
        ["10", "20", "50", "100", "200", "500"].iter().all(|tick| words.contains(tick))
            && !words.contains(&"300"),
        "{words:?}"
    );
}

#[test]
fn a_study_without_shifts_or_with_one_model_is_a_table() {
    let bench = Bench::new();
    let clean: Vec<Value> = rows(1).into_iter().take(1).collect();
    let text = page(&bench, &clean);
    assert!(text.contains("80.0% ± 1.0%") && !text.contains("<svg"), "{text}");
    fs::write(bench.path("bad.jsonl"), "{\"cell\": 1}\n").unwrap();
    let words = ["report", "bad.jsonl", "--html", "x.html"];
    bench.plain(&words).fails_with(&["bad.jsonl", "results, runs, layers or ood", "none of them"]);
    fs::write(bench.path("bad.jsonl"), "{\"shift\": 1}\nx\n").unwrap();
    bench.plain(&words).fails_with(&["bad.jsonl", "an invalid row in line 2"]);
}

#[test]
fn few_dots_have_no_correlation_and_a_visible_diagonal_is_labelled() {
    let bench = Bench::new();
    let mut close = rows(4);
    for row in close.iter_mut().filter(|row| row["shift"] != "none") {
        row["top1"] = (row["top1"].as_f64().unwrap() + 0.09).into();
    }
    let text = page(&bench, &close);
    let expected = "shifted; 4 dots, too few for a correlation; dashed: no change under the shift";
    assert!(text.contains(expected), "{text}");
    assert_eq!(text.matches("dashed:").count(), 1);
    assert!(!text.contains("Spearman") && !text.contains("Pearson"));
}

#[test]
fn layers_and_out_of_distribution_images_are_shown_by_model() {
    let bench = Bench::new();
    let layer = |model: &str, name: &str, gap: f64, eligible: bool| {
        json!({
            "cell": "c", "model": model, "checkpoint_digest": "d", "data": "grey", "layer": name,
            "delta_l_cross_fit": gap, "delta_l_stderr": 0.002, "delta_l_in_sample": 0.03,
            "delta_l_calibrated_cross_fit": 0.001, "delta_l_calibrated_stderr": null,
            "kappa_cross_fit": 0.5, "kappa_stderr": 0.1, "kappa_in_sample": null,
            "displacement": 0.25, "eligible": eligible, "seconds": 1.0,
        })
    };
    let made =
        [("a", "norm", 0.0125, true), ("a", "head", -0.0004, false), ("b", "norm", 0.5, true)];
    let lines: String =
        made.map(|(m, l, gap, eligible)| format!("{}\n", layer(m, l, gap, eligible))).concat();
    fs::write(bench.path("layers.jsonl"), lines).unwrap();
    let other = json!({
        "cell": "c", "model": "a", "checkpoint_digest": "d", "data": "grey", "ood": "far",
        "images": 40, "ood_images": 1200, "auroc_probability": 0.75,
        "auroc_probability_stderr": 0.01, "fpr95_probability": 0.5, "fpr95_probability_stderr": null,
        "auroc_energy": 0.8125, "auroc_energy_stderr": 0.012, "fpr95_energy": 0.25,
        "fpr95_energy_stderr": 0.02, "seconds": 1.0,
    });
    fs::write(bench.path("ood.jsonl"), format!("{other}\n")).unwrap();
    let html = bench.path("r.html");
    let out = bench.plain(&["report", "ood.jsonl", "layers.jsonl", "--html", &html]);
    assert!(out.success, "{}", out.errors);
    let text = fs::read_to_string(html).unwrap();
    let tree = Document::parse(text.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    let ids = tree.descendants().filter(|n| n.has_tag_name("section"));
    let ids: Vec<&str> = ids.filter_map(|n| n.attribute("id")).collect();
    assert_eq!(ids, ["study-layers", "study-others", "provenance"]);
    for part in [
        "<h3>a on grey</h3>",
        "<h3>b on grey</h3>",
        "<th scope=\"row\">norm</th><td>0.03000</td><td>0.0125 ± 0.0020</td><td>0.001000</td><td>–</td>\
         <td>0.50 ± 0.10</td><td>0.2500</td><td>yes</td>",
        "<th scope=\"row\">head</th><td>0.03000</td><td>-0.0004 ± 0.0020</td>",
        "Cross-fitted, by layer: norm 0.0125 ± 0.0020; head -0.0004 ± 0.0020.",
        "<th scope=\"row\">a</th><td>grey</td><td>far</td><td>1,200</td><td>0.750 ± 0.010</td>\
         <td>0.5000</td><td>0.812 ± 0.012</td><td>0.250 ± 0.020</td>",
    ] {
        assert!(text.contains(part), "{part}");
    }
    // Two charts for each of the two models.
    assert_eq!(tree.descendants().filter(|n| n.has_tag_name("svg")).count(), 4);
}
