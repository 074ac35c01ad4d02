//! `planish compare` end to end, with the files that `eval` and `post-train` save for it.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, I64, tensors};
use std::fs;

/// A bench with two models, their `eval` reports and saved logits.
fn two_models() -> Bench {
    let bench = Bench::with_model();
    let (data, out) = (bench.data.clone(), bench.path("b"));
    let words = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &data, "--epochs", "2"];
    let rest = ["--batch", "8", "--val-fraction", "0", "--seed", "1", "--out", &out];
    let made = bench.run(&[&words[..], &rest].concat());
    assert!(made.success, "{}", made.errors);
    for (model, name) in [(bench.model.clone(), "a"), (bench.path("b"), "b")] {
        let (json, dump) = (bench.path(&format!("{name}.json")), bench.path(&format!("{name}.st")));
        let words = ["eval", &model, "--data", &bench.data, "--json", &json, "--dump", &dump];
        let out = bench.run(&words);
        assert!(out.success, "{}", out.errors);
        assert!(out.output.contains("AURC") && out.output.contains("ECE, class-wise"));
    }
    bench
}

#[test]
fn reports_logits_and_checkpoints_give_the_same_comparison() {
    let bench = two_models();
    let (a, b) = (bench.path("a.json"), bench.path("b.json"));
    let out = bench.run(&["compare", &a, &b, "--json", &bench.path("c.json")]);
    assert!(out.success, "{}", out.errors);
    assert!(out.output.contains("On these 40 images, "), "{}", out.output);
    let report = bench.json("c.json");
    assert_eq!(report["schema"], "planish/comparison/1");
    let nll = |side: &str| bench.json(side)["figures"]["nll"].as_f64().unwrap();
    let found = &report["comparison"]["differences"][0];
    assert_eq!(found["figure"], "nll");
    let gain = found["gain"].as_f64().unwrap();
    assert!((gain - (nll("a.json") - nll("b.json"))).abs() < 1e-12, "{gain}");
    let ends: Vec<f64> = [0, 1].iter().map(|&i| found["interval"][i].as_f64().unwrap()).collect();
    assert!(ends[0] <= gain && gain <= ends[1], "{ends:?}");

    // The saved logits are those that were scored: f32 is stored without loss.
    let again = bench.run(&[
        "compare",
        &bench.model,
        &bench.path("b"),
        "--data",
        &bench.data,
        "--json",
        &bench.path("d.json"),
    ]);
    assert!(again.success, "{}", again.errors);
    assert_eq!(bench.json("d.json")["comparison"], report["comparison"]);
    let dumped = tensors(&bench.path("a.st"));
    assert_eq!(dumped["temperature"].shape, [40]);
    assert!(dumped["temperature"].f64s().iter().all(|t| *t > 0.0));

    // A report still works after it was moved together with its logits.
    fs::create_dir(bench.path("moved")).unwrap();
    for name in ["a.json", "a.st"] {
        fs::rename(bench.path(name), bench.path(&format!("moved/{name}"))).unwrap();
    }
    let moved = bench.run(&["compare", &bench.path("moved/a.json"), &b]);
    assert!(moved.success, "{}", moved.errors);
}

#[test]
fn incomparable_inputs_are_reported() {
    let bench = two_models();
    let path = |name: &str| bench.path(name);
    let (a, b) = (path("a.json"), path("b.json"));
    let edit = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = bench.json("a.json");
        change(&mut value);
        fs::write(bench.path(name), value.to_string()).unwrap();
        bench.path(name)
    };
    let newer = edit("newer.json", &|v| v["schema"] = "planish/evaluation/2".into());
    let kind = edit("kind.json", &|v| v["schema"] = "planish/diagnosis/1".into());
    let bare = edit("bare.json", &|v| v["predictions"] = serde_json::Value::Null);
    let data = edit("data.json", &|v| v["data"]["digest"] = "0".into());
    let changed = edit("changed.json", &|v| v["predictions"]["digest"] = "0".into());
    fs::write(path("no.json"), "{").unwrap();
    // Labels are 0, 1, 2, …, and the rows 1, 2, 1, 2 are not distributions.
    bench
        .write("few.safetensors", &[("logits", common::F32, vec![3, 4]), ("labels", I64, vec![3])]);
    let few = path("few.safetensors");
    bench.write(
        "wide.safetensors",
        &[("logits", common::F32, vec![40, 50]), ("labels", I64, vec![40])],
    );
    let wide = path("wide.safetensors");
    let cases = [
        (newer.as_str(), vec!["planish/evaluation/1", "planish/evaluation/2"]),
        (kind.as_str(), vec!["planish/diagnosis/1", "planish eval"]),
        (bare.as_str(), vec!["bare.json", "--dump"]),
        (data.as_str(), vec!["not scored on the same images", "SHA-256"]),
        (changed.as_str(), vec!["a.st", "was made with 0"]),
        (few.as_str(), vec!["3 images against 40"]),
        (wide.as_str(), vec!["wide.safetensors", "50 classes", "4"]),
        (bench.model.as_str(), vec!["--data"]),
    ];
    for (side, parts) in cases {
        bench.run(&["compare", side, &b]).fails_with(&parts);
    }
    bench.run(&["compare", &a, &path("no.json")]).fails_with(&["no.json", "invalid JSON"]);
    let out = bench.run(&["compare", &a, &b, "--resamples", "5"]);
    assert_eq!(out.code, Some(2));
    assert!(out.errors.contains("100 to 1000000"), "{}", out.errors);
}

#[test]
fn probabilities_and_wrong_tensors_are_rejected() {
    let bench = Bench::new();
    let half = |n: usize| 0.5f32.to_le_bytes().repeat(n);
    let write = |name: &str, logits: (Vec<usize>, Vec<u8>), labels: Vec<i64>, t: f64| {
        use safetensors::tensor::{Dtype, TensorView, serialize};
        let n = labels.len();
        let labels: Vec<u8> = labels.iter().flat_map(|y| y.to_le_bytes()).collect();
        let t = t.to_le_bytes().repeat(n);
        let views = [
            ("logits", TensorView::new(Dtype::F32, logits.0, &logits.1).unwrap()),
            ("labels", TensorView::new(Dtype::I64, vec![n], &labels).unwrap()),
            ("temperature", TensorView::new(Dtype::F64, vec![n], &t).unwrap()),
        ];
        fs::write(bench.path(name), serialize(views, None).unwrap()).unwrap();
        bench.path(name)
    };
    let sure = write("p.safetensors", (vec![2, 2], half(4)), vec![0, 1], 1.0);
    bench.run(&["compare", &sure, &sure]).fails_with(&["p.safetensors", "before softmax"]);
    let flat = write("f.safetensors", (vec![4], half(4)), vec![0, 1], 1.0);
    bench.run(&["compare", &flat, &flat]).fails_with(&["\"logits\"", "(N,C)", "[4]"]);
    let label = write("l.safetensors", (vec![2, 2], half(4)), vec![0, -1], 1.0);
    bench.run(&["compare", &label, &label]).fails_with(&["\"labels\" holds -1 at image 1"]);
    let class = write("c.safetensors", (vec![2, 2], half(4)), vec![0, 2], 1.0);
    bench.run(&["compare", &class, &class]).fails_with(&["label 2 is out of range"]);
    let cold = write("t.safetensors", (vec![2, 2], half(4)), vec![0, 1], 0.0);
    bench.run(&["compare", &cold, &cold]).fails_with(&["\"temperature\" holds 0 at image 0"]);
    let nan = f32::NAN.to_le_bytes().repeat(4);
    let nan = write("n.safetensors", (vec![2, 2], nan), vec![0, 1], 1.0);
    bench.run(&["compare", &nan, &nan]).fails_with(&["image 0, class 0", "NaN"]);
}

#[test]
fn post_train_prints_a_comparison_and_saves_its_logits() {
    let bench = Bench::with_model();
    let (data, out) = (bench.data.clone(), bench.path("tuned"));
    let (json, dump) = (bench.path("p.json"), bench.path("p.st"));
    let words =
        ["post-train", &bench.model, "--data", &data, "--method", "sgd", "--update", "head"];
    let rest = [
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--write-worse",
        "--remeasure",
        "0",
        "--cache",
        "off",
    ];
    let files = ["--out", &out, "--json", &json, "--dump", &dump];
    let run = bench.run(&[&words[..], &rest, &files].concat());
    assert!(run.success, "{}", run.errors);
    let last = run.output.lines().last().unwrap();
    assert!(last.starts_with("On these ") && last.contains("before"), "{last}");
    let report = bench.json("p.json");
    let test = &report["test"];
    assert_eq!(test["comparison"]["differences"][0]["gain"], test["nll_gain"]["mean"]);
    let same = bench.run(&["compare", &json, &json]);
    assert!(same.success, "{}", same.errors);
    assert!(same.output.contains("undecided between A and B"), "{}", same.output);
    // The tuned model records V, so evaluating it on V gives a note. The first model has no V.
    let mentions_v = |model: &str| {
        let out = bench.run(&["eval", model, "--data", &data]);
        assert!(out.success, "{}", out.errors);
        (out.output + &out.errors).contains("half of these images are V")
    };
    assert!(mentions_v(&out) && !mentions_v(&bench.model));
}

#[test]
fn both_or_neither_side_needs_a_temperature() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let bench = Bench::new();
    let write = |name: &str, temperature: Option<f64>| {
        let logits: Vec<u8> = (0..8).flat_map(|i| ((i % 3) as f32).to_le_bytes()).collect();
        let labels: Vec<u8> = [0i64, 1, 1, 0].iter().flat_map(|y| y.to_le_bytes()).collect();
        let t = temperature.unwrap_or_default().to_le_bytes().repeat(4);
        let mut views = vec![
            ("logits", TensorView::new(Dtype::F32, vec![4, 2], &logits).unwrap()),
            ("labels", TensorView::new(Dtype::I64, vec![4], &labels).unwrap()),
        ];
        if temperature.is_some() {
            views.push(("temperature", TensorView::new(Dtype::F64, vec![4], &t).unwrap()));
        }
        fs::write(bench.path(name), serialize(views, None).unwrap()).unwrap();
        bench.path(name)
    };
    let (with, without) = (write("with.safetensors", Some(2.0)), write("bare.safetensors", None));
    for pair in [[&with, &without], [&without, &with]] {
        let found = bench.run(&["compare", pair[0], pair[1]]);
        found.fails_with(&["bare.safetensors: the logits have no temperature", "all 1"]);
    }
    let bare = bench.run(&["compare", &without, &without]);
    assert!(bare.success && bare.output.contains("use T = 1"), "{}", bare.errors);
    assert!(bench.run(&["compare", &with, &with]).success);
}

#[test]
fn one_image_and_absent_classes_are_evaluated() {
    let bench = Bench::with_model();
    let folder = bench.path("one");
    fs::create_dir(&folder).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 14, 0, 0, 0, 14];
    images.extend([90; 196]);
    fs::write(format!("{folder}/t10k-images-idx3-ubyte"), images).unwrap();
    fs::write(format!("{folder}/t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 2]).unwrap();
    let (json, dump) = (bench.path("r.json"), bench.path("r.st"));
    let words = ["eval", &bench.model, "--data", &folder, "--json", &json, "--dump", &dump];
    let out = bench.run(&words);
    assert!(out.success, "{}", out.errors);
    assert!(
        out.output.contains("3 of the model's classes have no image in this split"),
        "{}",
        out.output
    );
    let figures = &bench.json("r.json")["figures"];
    assert!(figures["nll_stderr"].is_null() && figures["aurc_stderr"].is_null());
    assert_eq!((&figures["temperature"], &figures["absent_classes"]), (&1.0.into(), &3.into()));
    assert_eq!(figures["calibrated_nll"], figures["nll"]);
    let same = bench.run(&["compare", &json, &json]);
    assert!(same.success && same.output.contains("One image is not enough for a comparison."));
}

/// A model whose classes are renumbered is the same model.
#[test]
fn classes_are_matched_by_name() {
    let bench = Bench::with_model();
    let (other, images) = (bench.path("renumbered"), bench.path("images"));
    let names = ["ant", "bee", "mole", "zebra"];
    // Class c of the copy is class `order[c]` of the model.
    let order = [2usize, 0, 3, 1];
    fs::create_dir(&other).unwrap();
    let [from, to] = [&bench.model, &other].map(|folder| format!("{folder}/model.safetensors"));
    let mut bytes = fs::read(&from).unwrap();
    let whole = bytes.clone();
    let (size, header) = safetensors::SafeTensors::read_metadata(&whole).unwrap();
    for tensor in ["head.weight", "head.bias"] {
        let (start, end) = header.info(tensor).unwrap().data_offsets;
        let (at, row) = (8 + size + start, (end - start) / names.len());
        for (c, &old) in order.iter().enumerate() {
            let row_of = |class: usize| at + class * row..at + (class + 1) * row;
            bytes[row_of(c)].copy_from_slice(&whole[row_of(old)]);
        }
    }
    fs::write(&to, bytes).unwrap();
    let config = fs::read_to_string(format!("{}/config.json", bench.model)).unwrap();
    let named = |order: &[usize]| {
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let own: Vec<&str> = order.iter().map(|&c| names[c]).collect();
        config["label_names"] = serde_json::json!(own);
        config.to_string()
    };
    fs::write(format!("{other}/config.json"), named(&order)).unwrap();
    fs::write(format!("{}/config.json", bench.model), named(&[0, 1, 2, 3])).unwrap();
    for (c, name) in names.iter().enumerate() {
        fs::create_dir_all(format!("{images}/{name}")).unwrap();
        for k in 0..3u8 {
            let shade = |x: u32, y: u32| image::Luma([40 * c as u8 + 9 * k + (x * y % 30) as u8]);
            let picture = image::GrayImage::from_fn(14, 14, shade);
            picture.save(format!("{images}/{name}/{k}.png")).unwrap();
        }
    }
    let json = bench.path("same.json");
    let out = bench.run(&["compare", &bench.model, &other, "--data", &images, "--json", &json]);
    assert!(out.success, "{}", out.errors);
    let report = bench.json("same.json");
    for difference in report["comparison"]["differences"].as_array().unwrap() {
        assert!(difference["gain"].as_f64().unwrap().abs() < 1e-12, "{difference}");
    }
    assert!(report["notes"].to_string().contains("matched by name"), "{}", report["notes"]);
}
