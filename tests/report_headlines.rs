//! The head of a report page, and the run it describes.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use roxmltree::Document;
use serde_json::{Value, json};
use std::fs;

const SMALL: [&str; 11] = [
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--remeasure",
    "0",
    "--cache",
    "off",
    "--method",
    "sgd",
    "--update=*",
];

/// Post-trains on labels unrelated to the images, so that the result is worse on V.
fn tuned(bench: &Bench, name: &str, rest: &[&str]) -> bool {
    let (wrong, json) = (bench.path("wrong"), bench.path(name));
    let out = format!("{json}-out");
    let words = ["post-train", &bench.model, "--data", &bench.data, "--train-data", &wrong];
    let words = [&words[..], &SMALL, &["--lr", "0.02", "--out", &out, "--json", &json], rest];
    bench.run(&words.concat()).success
}

fn page(bench: &Bench, results: &[&str]) -> String {
    let html = bench.path("r.html");
    let paths: Vec<String> = results.iter().map(|name| bench.path(name)).collect();
    let mut words: Vec<&str> = vec!["report", "--html", &html];
    words.extend(paths.iter().map(String::as_str));
    let out = bench.plain(&words);
    assert!(out.success, "{}", out.errors);
    fs::read_to_string(html).unwrap()
}

/// The page up to the table of contents: heading, summary and tiles.
fn head(page: &str) -> &str {
    page.split_once("<nav").unwrap().0
}

/// To two digits of its standard error.
fn nll(report: &Value, split: &str, when: &str) -> String {
    let of = |key: &str| report[split][when][key].as_f64().unwrap();
    let (mean, stderr) = (of("nll"), of("nll_stderr"));
    let places = (1.0 - stderr.log10().floor()).max(0.0) as usize;
    format!("{mean:.places$} ± {stderr:.places$}")
}

#[test]
fn kept_runs_are_the_headline_and_refused_runs_are_marked() {
    let bench = Bench::with_model();
    bench.idx("wrong", 3);
    assert!(!tuned(&bench, "refused.json", &[]));
    let refused = bench.json("refused.json");
    assert!(refused["selection"]["refusal"].as_str().unwrap().contains("worse than the input"));

    // Alone: figures of the input model on V, and the run is marked as refused everywhere.
    let text = page(&bench, &["refused.json"]);
    let expected = "the input model, on 20 images of V (half of test, seed 0).";
    assert!(head(&text).contains(expected), "{}", head(&text));
    assert!(head(&text).contains("refused.json: SGD → * was refused by the guard: epoch"));
    assert!(head(&text).contains(&nll(&refused, "validation", "before")), "{}", head(&text));
    let after = nll(&refused, "validation", "after");
    let tiles = head(&text).split_once("<dl").unwrap().1;
    assert!(!tiles.contains(&after) && !head(&text).contains("after tuning"), "{tiles}");
    for part in ["after, refused</th>", "After, refused, on V", "refused by the guard"] {
        assert!(text.contains(part), "{part}");
    }

    // With an evaluation on test, a refused run is never the headline, in any order.
    let eval = bench.path("eval.json");
    assert!(bench.run(&["eval", &bench.model, "--data", &bench.data, "--json", &eval]).success);
    for order in [["refused.json", "eval.json"], ["eval.json", "refused.json"]] {
        let text = page(&bench, &order);
        let expected = "eval.json: the input model, on 40 images (split test, whole";
        assert!(head(&text).contains(expected) && head(&text).contains("was refused"), "{text}");
    }

    // A kept run is the headline, with its figures on test rather than V.
    assert!(tuned(&bench, "kept.json", &["--write-worse"]));
    let kept = bench.json("kept.json");
    assert!(kept["selection"].get("refusal").is_none());
    let text = page(&bench, &["refused.json", "eval.json", "kept.json"]);
    let expected = "kept.json: after tuning and before, on 20 images of test.";
    assert!(head(&text).contains(expected), "{}", head(&text));
    assert!(head(&text).contains(&format!("{} before", nll(&kept, "test", "before"))));
    assert!(head(&text).contains("SGD → *, test: On these 20 images"), "{}", head(&text));
    let forced = "kept.json: SGD → * was written although it is worse than the input on V.";
    assert!(head(&text).contains(forced), "{}", head(&text));
    assert!(text.contains("<h1>SGD → *, evaluation: "), "{}", head(&text));

    // A file of an earlier build contains no reason, but the run is still marked as refused.
    let mut old = refused.clone();
    old["selection"].as_object_mut().unwrap().remove("refusal");
    fs::write(bench.path("old.json"), old.to_string()).unwrap();
    let expected = "was refused by the guard: the result was worse than the input on V";
    assert!(head(&page(&bench, &["old.json"])).contains(expected));
}

#[test]
fn a_plan_of_one_layer_is_explained() {
    let bench = Bench::with_model();
    let json = bench.path("d.json");
    let words = ["diagnose", &bench.model, "--data", &bench.data, "--json", &json];
    assert!(bench.run(&[&words[..], &["--layer", "norm,head"]].concat()).success);
    let mut report = bench.json("d.json");
    let plan = |p: &str, tied: &[&str]| {
        json!({"perturb": p, "update": "head", "tied_perturb": tied, "tied_update": [],
               "basis": "cross_fit"})
    };
    let mut page_with = |plan: Value, eligible: [bool; 2]| {
        report["plan"] = plan;
        for (i, eligible) in eligible.into_iter().enumerate() {
            report["layers"][i]["eligible"] = eligible.into();
        }
        fs::write(bench.path("edited.json"), report.to_string()).unwrap();
        page(&bench, &["edited.json"])
    };
    let meaning =
        "each gradient is computed with head perturbed and applied to its unperturbed weights";
    let both = page_with(plan("head", &["norm"]), [true, true]);
    for part in [
        "p = u = head, since of 2 eligible layers it has a κ that does not differ significantly from that \
         of norm (of tied layers, the one nearest the head is chosen), and the highest ΔL",
        meaning,
    ] {
        assert!(both.contains(part), "{part}");
    }
    let one = page_with(plan("head", &[]), [false, true]);
    assert!(one.contains("since it is the only eligible layer; ") && one.contains(meaning));
    assert!(!page_with(plan("norm", &[]), [true, true]).contains("p = u"));

    // The same if the user names one layer twice.
    let out = bench.path("out");
    let words = ["post-train", &bench.model, "--data", &bench.data, "--dry-run", "--out", &out];
    let layers = ["--batch-size", "8", "--perturb-batch", "8", "--perturb", "head", "--update"];
    let dry = |update: &str| bench.run(&[&words[..], &layers, &[update]].concat()).output;
    assert!(dry("head").contains(&format!("p = u: {meaning}")), "{}", dry("head"));
    assert!(!dry("norm").contains("p = u"), "{}", dry("norm"));
}

#[test]
fn diagrams_have_titles_axes_and_class_names() {
    let bench = Bench::with_model();
    let names = ["boot", "coat", "hat", "glove"];
    fs::write(format!("{}/classes.txt", bench.data), names.join("\n")).unwrap();
    let (json, out) = (bench.path("t.json"), bench.path("out"));
    let words = ["post-train", &bench.model, "--data", &bench.data, "--out", &out, "--json", &json];
    let done = bench.run(&[&words[..], &SMALL, &["--lr", "0.1", "--write-worse"]].concat());
    assert!(done.success, "{}", done.errors);
    let mut report = bench.json("t.json");
    assert_eq!(report["class_names"], json!(names));
    // Each printed loss names its images, including the loss of the input.
    for part in ["epoch 0: loss on V ", " on its 20 images before training", "training loss "] {
        assert!(done.errors.contains(part), "{part}: {}", done.errors);
    }
    let flip = json!({"image": 3, "label": 1, "mistaken_for": 3, "confidence": 0.5});
    report["test"]["flips"]["most_fixed"] = json!([flip]);
    fs::write(&json, report.to_string()).unwrap();
    let text = page(&bench, &["t.json"]);
    assert!(text.contains("coat, predicted glove (50.0%)"));
    let tree = Document::parse(text.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    let diagrams: Vec<_> = tree
        .descendants()
        .filter(|n| n.has_tag_name("figure"))
        .filter(|n| n.descendants().any(|t| t.text().is_some_and(|t| t.contains("Reliability: "))))
        .collect();
    assert_eq!(diagrams.len(), 2);
    for diagram in diagrams {
        let drawn = diagram.descendants().filter(|n| n.has_tag_name("text"));
        let words: Vec<&str> = drawn.filter_map(|n| n.text()).map(str::trim).collect();
        assert!(words.contains(&"confidence") && words.contains(&"accuracy"), "{words:?}");
    }
    // The table of verdicts wraps on narrow pages.
    let fits = |n: &roxmltree::Node| n.attribute("class") == Some("fits");
    let verdicts = tree.descendants().find(fits).unwrap();
    let cells = verdicts.descendants().filter(|n| n.has_tag_name("td"));
    assert!(
        cells
            .filter_map(|n| n.text())
            .any(|t| ["better", "worse", "no difference", "undecided"].contains(&t))
    );
}
