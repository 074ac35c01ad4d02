//! What `planish report` draws of a study.

use crate::common::Bench;
use roxmltree::Document;
use serde_json::{Value, json};
use std::fs;

/// Rows of models whose shifted figures fall on a line of the clean ones.
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
fn shifted_figures_are_drawn_against_clean_ones_and_against_the_width() {
    let bench = Bench::new();
    let text = page(&bench, &rows(7));
    let tree = Document::parse(text.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    let ids = tree.descendants().filter(|n| n.has_tag_name("section"));
    let ids: Vec<&str> = ids.filter_map(|n| n.attribute("id")).collect();
    assert_eq!(ids, ["study", "provenance"]);
    let told: Vec<&str> =
        tree.descendants().filter(|n| n.has_tag_name("desc")).filter_map(|n| n.text()).collect();
    let titles: Vec<&str> = tree
        .descendants()
        .filter(|n| n.has_tag_name("title") && n.parent().unwrap().has_tag_name("svg"))
        .filter_map(|n| n.text())
        .collect();
    // Parameters are the same for all, so nothing is drawn against them.
    let shifted = ["Top-1", "NLL", "ECE"].map(|f| format!("{f}: shifted against in distribution"));
    let scaling = ["Top-1", "NLL", "ECE"].map(|f| format!("{f} against width"));
    assert_eq!(titles, [shifted, scaling].concat());
    // The one cell that all models have: severity 1. Of width, m1 is not known.
    assert!(text.contains("mean over the 1 corruptions and severities all models have"));
    assert!(told[0].contains("m3 at 0.8300 and 0.7300"), "{}", told[0]);
    assert!(told[3].contains("m2 at 32") && !told[3].contains("m1"), "{}", told[3]);
    // The points lie on a line; of a figure that does not vary there is no correlation.
    assert!(
        text.contains("shifted; Spearman 1.00 [1.00, 1.00], Pearson 1.00 [1.00, 1.00] (7 dots)")
    );
    assert!(text.contains("no correlation is defined"));
    // The axis of the widths, 8 to 512, is logarithmic: whole powers of ten are its ticks.
    let last = tree.descendants().filter(|n| n.has_tag_name("svg")).nth(3).unwrap();
    let words: Vec<&str> =
        last.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
    let words: Vec<&str> = words.iter().map(|w| w.trim()).collect();
    assert!(
        words.contains(&"10") && words.contains(&"100") && !words.contains(&"200"),
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
    bench.plain(&words).fails_with(&["bad.jsonl", "no row in line 2"]);
}
