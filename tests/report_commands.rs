//! `planish report` end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use planish::report::post_training::PostTrainReport;
use roxmltree::Document;
use std::fs;

/// Results of all supported kinds, of one small model.
fn results(bench: &Bench) -> Vec<String> {
    let path = |name: &str| bench.path(name);
    let (data, model) = (bench.data.clone(), bench.model.clone());
    let (val, tuned) = (path("diagnosis.json"), path("tuned"));
    let (eval, other, dump, dump2) =
        (path("eval.json"), path("b.json"), path("a.st"), path("b.st"));
    let bench_json = path("bench.json");
    let (post, compared, fine) = (path("post.json"), path("compare.json"), path("fine.json"));
    let ood = format!("same={data}");
    let small = ["--epochs", "1", "--batch-size", "8", "--remeasure", "0", "--cache", "off"];
    let small_words = |words: &[&str]| [words, &small].concat().join("\u{1}");
    let commands = [
        ["diagnose", &model, "--data", &data, "--spectrum", "--json", &val].join("\u{1}"),
        [
            "eval", &model, "--data", &data, "--json", &eval, "--dump", &dump, "--ood", &ood,
            "--shift",
        ]
        .join("\u{1}")
            + "\u{1}corruptions:fog:1,3",
        small_words(&[
            "post-train",
            &model,
            "--data",
            &data,
            "--method",
            "pol",
            "--perturb",
            "head",
            "--update",
            "block.0",
            "--lr",
            "0.1",
            "--write-worse",
            "--perturb-batch",
            "8",
            "--out",
            &tuned,
            "--json",
            &post,
        ]),
        ["eval", &tuned, "--data", &data, "--json", &other, "--dump", &dump2].join("\u{1}"),
        ["compare", &eval, &other, "--json", &compared].join("\u{1}"),
        small_words(&[
            "bench",
            &model,
            "--data",
            &data,
            "--methods",
            "pol-head",
            "--seeds",
            "2",
            "--perturb-batch",
            "8",
            "--json",
            &bench_json,
        ]),
        [
            "finetune",
            "--arch",
            "vit_nano_patch7_14",
            "--data",
            &data,
            "--epochs",
            "1",
            "--batch",
            "8",
            "--out",
            &path("fine"),
            "--json",
            &fine,
        ]
        .join("\u{1}"),
    ];
    for words in &commands {
        let words: Vec<&str> = words.split('\u{1}').collect();
        let out = bench.run(&words);
        assert!(out.success, "{words:?}: {}", out.errors);
    }
    vec![val, post, bench_json, eval, compared, fine]
}

/// Parses the page and checks that it is self-contained.
fn checked(page: &str) -> Document<'_> {
    let body = page.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
    for outside in ["http:", "https:", "//fonts", "@import", "url(", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let tree = Document::parse(body).unwrap();
    let ids: Vec<&str> = tree.descendants().filter_map(|n| n.attribute("id")).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "duplicate id");
    for node in tree.descendants().filter(|n| n.has_tag_name("svg")) {
        let children: Vec<_> = node.children().filter(|n| n.is_element()).collect();
        assert!(children[0].has_tag_name("title") && children[1].has_tag_name("desc"));
        assert!(children[1].text().is_some_and(|t| t.len() > 20), "{:?}", children[1].text());
        assert_eq!(node.attribute("aria-label"), children[0].text());
    }
    tree
}

#[test]
fn every_kind_of_result_is_shown_on_a_self_contained_page() {
    let bench = Bench::with_model();
    let results = results(&bench);
    let html = bench.path("report.html");
    let kinds: [&[&str]; 6] = [
        &["layers", "lines", "spectrum"],
        &["tuning", "reliability", "images"],
        &["methods"],
        &["figures", "reliability", "classes", "shifts", "others"],
        &["tuning"],
        &["tuning", "reliability"],
    ];
    for (result, sections) in results.iter().zip(kinds) {
        let out = bench.plain(&["report", result, "--html", &html]);
        assert!(out.success, "{}", out.errors);
        let page = fs::read_to_string(&html).unwrap();
        let tree = checked(&page);
        let found: Vec<&str> = tree
            .descendants()
            .filter(|n| n.has_tag_name("section"))
            .filter_map(|n| n.attribute("id"))
            .collect();
        assert_eq!(found, [sections, &["provenance"]].concat(), "{result}");
    }
    let mut words: Vec<&str> = vec!["report"];
    words.extend(results.iter().map(String::as_str));
    let data = bench.data.clone();
    words.extend(["--html", &html, "--data", &data, "--quiet"]);
    let out = bench.plain(&words);
    assert!(out.success && out.output.is_empty(), "{}", out.errors);
    let page = fs::read_to_string(&html).unwrap();
    let tree = checked(&page);
    // The page shows the figures of the files.
    let text: String = tree.descendants().filter_map(|n| n.text()).collect::<Vec<_>>().join(" ");
    let post = bench.json("post.json");
    let before = |key: &str| post["test"]["before"][key].as_f64().unwrap();
    let (nll, stderr) = (before("nll"), before("nll_stderr"));
    // To two digits of the standard error.
    let places = (1.0 - stderr.log10().floor()).max(0.0) as usize;
    let digest = post["checkpoint"]["digest"].as_str().unwrap();
    let command = post["run"]["command"].as_str().unwrap();
    for part in [&format!("{nll:.places$} ± {stderr:.places$} before"), digest, command] {
        assert!(text.contains(part), "{part}");
    }
    let flips = &post["test"]["flips"];
    let shown = ["most_fixed", "most_broken"].map(|kind| flips[kind].as_array().unwrap().len());
    let pictures = tree.descendants().filter(|n| n.has_tag_name("img")).count();
    assert_eq!(pictures, shown.iter().sum::<usize>());
}

/// Earlier versions named some settings otherwise.
#[test]
fn reports_of_earlier_versions_can_be_read() {
    let bench = Bench::with_model();
    let (json, out) = (bench.path("post.json"), bench.path("tuned"));
    for (method, options) in
        [("pol", ["--perturb", "head"]), ("asam", ["--rho", "0.1"]), ("looksam", ["--rho", "0.1"])]
    {
        let words = ["post-train", &bench.model, "--data", &bench.data, "--method", method];
        let rest = ["--update", "head", "--epochs", "1", "--batch-size", "8", "--remeasure", "0"];
        let outputs = ["--write-worse", "--quiet", "--out", &out, "--json", &json];
        let run = bench.run(&[&words[..], &options, &rest, &outputs].concat());
        assert!(run.success, "{}", run.errors);
        let now = fs::read_to_string(&json).unwrap();
        let mut text = now.clone();
        for (name, earlier) in [
            ("\"batch_size\"", "\"batch\""),
            ("\"lr\"", "\"learning_rate\""),
            ("\"gamma\"", "\"gamma_max\""),
            ("\"perturb_batch\"", "\"perturbation_batch\""),
            ("\"asam_eta\"", "\"eta\""),
            ("\"look_every\"", "\"every\""),
            ("\"look_alpha\"", "\"alpha\""),
        ] {
            text = text.replace(name, earlier);
        }
        // Those of an epoch.
        text = text.replacen("\"learning_rate\"", "\"first\"", 1);
        text = text.replace("\"learning_rate\"", "\"rate\"");
        text = text.replace("\"first\"", "\"learning_rate\"");
        let read = |text: &str| -> serde_json::Value {
            let report: PostTrainReport = serde_json::from_str(text).unwrap();
            serde_json::to_value(report).unwrap()
        };
        assert_ne!(text, now);
        assert_eq!(read(&text), read(&now), "{method}");
        // The settings are there, so a name that is not read would be missing above.
        let settings = read(&now)["method"].clone();
        let known = match method {
            "pol" => ["/gamma", "/perturb_batch"],
            "asam" => ["/sam/rho", "/sam/asam_eta"],
            _ => ["/sam/look_every", "/sam/look_alpha"],
        };
        assert!(known.iter().all(|path| settings.pointer(path).unwrap().is_number()), "{settings}");
        fs::write(&json, text).unwrap();
        let page = bench.plain(&["report", "post.json", "--html", "post.html"]);
        assert!(page.success, "{}", page.errors);
    }
}

#[test]
fn points_and_bins_match_the_figures() {
    let bench = Bench::with_model();
    let json = bench.path("d.json");
    let words =
        ["diagnose", &bench.model, "--data", &bench.data, "--repeats", "1", "--json", &json];
    let out = bench.run(&words);
    assert!(out.success, "{}", out.errors);
    for layer in bench.json("d.json")["layers"].as_array().unwrap() {
        let lines = layer["lines"].as_array().unwrap();
        assert_eq!(lines.len(), 2);
        // In-sample ΔL is the mean over folds of the initial minus the lowest loss.
        let decrease = |line: &serde_json::Value| {
            let points = line["points"].as_array().unwrap().iter();
            let least = points.map(|p| p[1].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
            line["at_zero"].as_f64().unwrap() - least
        };
        let mean = (decrease(&lines[0]) + decrease(&lines[1])) / 2.0;
        let reported = layer["delta_l_nats"]["in_sample"].as_f64().unwrap();
        assert!((mean - reported).abs() <= 1e-9 * reported.abs().max(1e-3), "{layer}");
        let slope = |line: &serde_json::Value| line["slope"].as_f64().unwrap();
        let norm = lines.iter().map(|l| (-slope(l)).sqrt()).sum::<f64>() / 2.0;
        assert!((norm / layer["gradient_norm"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    }
    let json = bench.path("e.json");
    let out = bench.run(&["eval", &bench.model, "--data", &bench.data, "--json", &json]);
    assert!(out.success, "{}", out.errors);
    let figures = &bench.json("e.json")["figures"];
    for (kind, ece) in [("raw", "ece"), ("calibrated", "calibrated_ece")] {
        let bins = figures["reliability"][kind].as_array().unwrap();
        let gap = |b: &serde_json::Value| {
            let of = |key: &str| b[key].as_f64().unwrap();
            of("images") / 40.0 * (of("accuracy") - of("confidence")).abs()
        };
        let sum: f64 = bins.iter().map(gap).sum();
        assert!((sum - figures[ece].as_f64().unwrap()).abs() < 1e-12, "{kind}");
    }
}

#[test]
fn files_that_are_not_results_are_reported() {
    let bench = Bench::with_model();
    let json = bench.path("e.json");
    let made = bench.run(&["eval", &bench.model, "--data", &bench.data, "--json", &json]);
    assert!(made.success, "{}", made.errors);
    let html = bench.path("r.html");
    let edit = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = bench.json("e.json");
        change(&mut value);
        fs::write(bench.path(name), value.to_string()).unwrap();
        bench.path(name)
    };
    let newer = edit("newer.json", &|v| v["schema"] = "planish/evaluation/2".into());
    let kind = edit("kind.json", &|v| v["schema"] = "planish/patch/1".into());
    let less = edit("less.json", &|v| v["figures"] = 1.into());
    fs::write(bench.path("no.json"), "{").unwrap();
    let (no, absent) = (bench.path("no.json"), bench.path("absent.json"));
    let cases: [(&str, &[&str]); 5] = [
        (&newer, &["newer.json", "planish/evaluation/1", "planish/evaluation/2"]),
        (&kind, &["kind.json", "planish/diagnosis/1", "found planish/patch/1"]),
        (&less, &["less.json", "unexpected contents"]),
        (&no, &["no.json", "invalid JSON"]),
        (&absent, &["absent.json", "cannot be read"]),
    ];
    for (result, parts) in cases {
        bench.plain(&["report", result, "--html", &html]).fails_with(parts);
    }
    bench.plain(&["report", &json, "--html", &json]).fails_with(&["e.json", "input file"]);
    assert!(!fs::exists(&html).unwrap());
    let data = bench.data.clone();
    let words = ["report", &json, "--html", &html, "--data", &data];
    let out = bench.plain(&words);
    assert!(out.success, "{}", out.errors);
    assert!(
        out.errors.contains("note: --data: none of the results lists changed images"),
        "{}",
        out.errors
    );
}
