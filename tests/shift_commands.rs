//! `eval --shift` and `eval --ood` end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use std::fs;

#[test]
fn the_matrix_is_computed_and_resumed() {
    let bench = Bench::with_model();
    let json = bench.path("r.json");
    let run = |shift: &str, seed: &str| {
        let words = ["eval", &bench.model, "--data", &bench.data, "--json", &json, "--seed", seed];
        let out = bench.run(&[&words[..], &["--shift", shift]].concat());
        assert!(out.success, "{}", out.errors);
        (out.output, bench.json("r.json"))
    };
    let (text, some) = run("corruptions:contrast,gaussian_noise:5,1", "0");
    assert!(text.contains("mean corruption error") && text.contains("CIFAR-10-C"), "{text}");
    let cells = |of: &serde_json::Value| of["shifts"]["cells"].as_array().unwrap().clone();
    let names: Vec<String> = cells(&some)
        .iter()
        .map(|c| format!("{} {}", c["corruption"].as_str().unwrap(), c["severity"]))
        .collect();
    assert_eq!(names, ["gaussian_noise 1", "gaussian_noise 5", "contrast 1", "contrast 5"]);
    let figure = |of: &serde_json::Value, name: &str| of["figures"][name].as_f64().unwrap();
    let errors = cells(&some).iter().map(|c| 1.0 - figure(c, "top1")).sum::<f64>() / 4.0;
    assert!((some["shifts"]["mean_error"].as_f64().unwrap() - errors).abs() < 1e-12);
    assert_eq!(some["shifts"]["by_severity"][0]["nll"], some["figures"]["nll"]);
    assert_eq!(some["shifts"]["by_severity"].as_array().unwrap().len(), 3);
    assert_eq!(some["shifts"]["finished"], true);

    // An existing cell is not recomputed: an edited value in it is preserved.
    let mut marked = some.clone();
    marked["shifts"]["cells"][0]["figures"]["top5"] = 0.125.into();
    fs::write(&json, marked.to_string()).unwrap();
    let (_, more) = run("corruptions:contrast,gaussian_noise,jpeg_compression:1,5", "0");
    assert_eq!(figure(&cells(&more)[0], "top5"), 0.125);
    assert_eq!(cells(&more).len(), 6);
    let difference = figure(&cells(&more)[2], "nll") - figure(&cells(&some)[2], "nll");
    assert!(difference.abs() < 1e-12, "{difference}");
    // A cell that is not requested is preserved.
    let (text, fewer) = run("corruptions:contrast:5", "0");
    assert!(text.contains("of 6 of 75 cells"), "{text}");
    assert_eq!(cells(&fewer), cells(&more));
    // The same for a run without `--shift`.
    let words = ["eval", &bench.model, "--data", &bench.data, "--json", &json];
    assert!(bench.run(&words).success);
    assert_eq!(cells(&bench.json("r.json")), cells(&more));
}

#[test]
fn a_matrix_of_other_figures_is_not_overwritten() {
    let bench = Bench::with_model();
    let (json, model) = (bench.path("r.json"), bench.model.clone());
    let shift = ["--shift", "corruptions:contrast:1"];
    let eval = |model: &str, data: &str, rest: &[&str]| {
        bench.run(&[&["eval", model, "--data", data, "--json", &json], rest].concat())
    };
    assert!(eval(&model, &bench.data, &shift).success);
    let report = bench.json("r.json");
    let (before, digest) =
        (fs::read(&json).unwrap(), report["checkpoint"]["digest"].as_str().unwrap().to_owned());

    // Another model: one bit of its last number differs.
    let other = bench.path("other");
    fs::create_dir(&other).unwrap();
    for file in fs::read_dir(&model).unwrap().map(|e| e.unwrap().path()) {
        fs::copy(&file, format!("{other}/{}", file.file_name().unwrap().display())).unwrap();
    }
    let weights = format!("{other}/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40;
    fs::write(&weights, bytes).unwrap();
    let other_json = bench.path("elsewhere.json");
    let clean = ["eval", &other, "--data", &bench.data, "--json", &other_json];
    assert!(bench.run(&clean).success);
    let new = bench.json("elsewhere.json")["checkpoint"]["digest"].as_str().unwrap().to_owned();
    let remedy = ["r.json", "1 corrupted cells", "choose another file", "or delete"];
    for rest in [&shift[..], &[]] {
        let refused = eval(&other, &bench.data, rest);
        refused.fails_with(&remedy);
        let expected = format!("checkpoint's SHA-256 is {digest}, expected {new}");
        refused.fails_with(&[&expected]);
    }

    // The same model with another seed, other images, another preprocessing, another build.
    let seed = [&shift[..], &["--seed", "1"]].concat();
    eval(&model, &bench.data, &seed)
        .fails_with(&[&remedy[..], &["seed is 0, expected 1"]].concat());
    let data = bench.idx("others", 2);
    eval(&model, &data, &shift).fails_with(&[&remedy[..], &["images' SHA-256"]].concat());
    let brighter = [&shift[..], &["--mean", "0.1", "--std", "0.5"]].concat();
    eval(&model, &bench.data, &brighter).fails_with(&[&remedy[..], &["clean images"]].concat());
    assert_eq!(fs::read(&json).unwrap(), before);
    let edit = |field: &dyn Fn(&mut serde_json::Value)| {
        let mut value = report.clone();
        field(&mut value);
        fs::write(&json, value.to_string()).unwrap();
        eval(&model, &bench.data, &shift)
    };
    edit(&|v| v["run"]["version"] = "0.0.1".into()).fails_with(&["planish version is 0.0.1"]);
    edit(&|v| v["schema"] = "planish/evaluation/0".into()).fails_with(&["planish/evaluation/0"]);
    edit(&|v| v["shifts"]["settings"] = "others".into()).fails_with(&["settings is others"]);
}

#[test]
fn out_of_distribution_images_are_detected_and_bad_input_is_reported() {
    let bench = Bench::with_model();
    let far = bench.idx("far", 40);
    let json = bench.path("r.json");
    let ood = format!("far={far}");
    let words = ["eval", &bench.model, "--data", &bench.data, "--json", &json, "--ood", &ood];
    let out = bench.run(&words);
    assert!(out.success, "{}", out.errors);
    assert!(out.output.contains("far, energy"), "{}", out.output);
    let found = &bench.json("r.json")["others"][0];
    assert!(found["max_probability"]["fpr95"]["stderr"].is_f64());

    // For the model's own images, detection is at chance level.
    let same = format!("same={}", bench.data);
    let words = ["eval", &bench.model, "--data", &bench.data, "--json", &json, "--ood", &same];
    assert!(bench.run(&words).success);
    let found = &bench.json("r.json")["others"][0];
    assert_eq!(found["energy"]["auroc"]["mean"], 0.5);

    let words = ["eval", &bench.model, "--data", &bench.data, "--json", &json, "--dump", &json];
    let twice = bench.run(&words);
    assert!(!twice.success && twice.errors.contains("two outputs"), "{}", twice.errors);

    let usage = |option: &str, value: &str, part: &str| {
        let out = bench.run(&["eval", &bench.model, "--data", &bench.data, option, value]);
        assert_eq!(out.code, Some(2), "{}", out.errors);
        assert!(out.errors.contains(part), "{}", out.errors);
    };
    usage("--shift", "corruptions:rain", "jpeg_compression");
    usage("--shift", "corruptions:fog:0", "1 to 5");
    usage("--ood", "far", "NAME=DATA");
    let absent = ["eval", &bench.model, "--data", &bench.data, "--ood", "x=absent"];
    bench.run(&absent).fails_with(&["absent"]);
}
