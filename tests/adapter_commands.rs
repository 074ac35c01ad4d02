//! `finetune --lora`, `post-train --lora` and `--adapter` on the command line: what is trained, what is
//! written, and which combinations are refused.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, tensors};
use serde_json::Value;

/// Logits of a model on the test images, through `eval --dump`.
fn logits(bench: &Bench, words: &[&str]) -> Vec<f64> {
    let (data, dump) = (bench.data.clone(), bench.path("dump.safetensors"));
    let end = ["--data", &data, "--dump", &dump, "--json", &bench.path("eval.json")];
    let run = bench.run(&[&["eval"], words, &end].concat());
    assert!(run.success, "{}", run.errors);
    let dumped = &tensors(&dump)["logits"];
    if dumped.is_f32() { dumped.f32s().iter().map(|&x| x.into()).collect() } else { dumped.f64s() }
}

/// Names of the tensors in which two checkpoints differ.
fn changed(a: &str, b: &str) -> Vec<String> {
    let file = |folder: &str| tensors(&format!("{folder}/model.safetensors"));
    let (a, b) = (file(a), file(b));
    assert!(a.keys().eq(b.keys()));
    a.iter().filter(|(name, raw)| raw.f32s() != b[*name].f32s()).map(|(n, _)| n.clone()).collect()
}

#[test]
fn finetune_trains_adapters_and_head() {
    let bench = Bench::with_model();
    let (adapter, merged) = (bench.path("adapter"), bench.path("merged"));
    let (data, model) = (bench.data.clone(), bench.model.clone());
    let json = bench.path("f.json");
    for dora in [&[][..], &["--dora"]] {
        let words =
            ["finetune", "--from", &model, "--data", &data, "--epochs", "2", "--batch", "8"];
        let lora = ["--lora", "2", "--lora-alpha", "4", "--layers", "block.1", "--lr", "0.1"];
        let options =
            [&words[..], &lora, &["--targets", "qkv,mlp.fc2", "--json", &json], dora].concat();
        let run = bench.run(&[&options[..], &["--out", &adapter, "--force"]].concat());
        assert!(run.success, "{}", run.errors);
        let said = "of rank 2 and scale 2.000 on 2 linear layers; the head is trained beside them";
        assert!(run.output.contains(said), "{}", run.output);
        let figures = bench.json("f.json")["figures"].clone();
        assert_eq!(bench.json("f.json")["settings"]["lora"]["rank"], 2);
        let run = bench.run(&[&options[..], &["--out", &merged, "--force", "--merge"]].concat());
        assert!(run.success, "{}", run.errors);
        assert_eq!(bench.json("f.json")["figures"], figures);
        let expected =
            ["blocks.1.attn.qkv.weight", "blocks.1.mlp.fc2.weight", "head.bias", "head.weight"];
        assert_eq!(changed(&model, &merged), expected);
        let of_adapter = logits(&bench, &[&model, "--adapter", &adapter]);
        assert_eq!(of_adapter, logits(&bench, &[&merged]));
        assert_ne!(of_adapter, logits(&bench, &[&model]));
        // The report says which adapter it is about.
        logits(&bench, &[&model, "--adapter", &adapter]);
        let report = bench.json("eval.json");
        assert_eq!(report["checkpoint"]["adapter"]["path"], adapter.as_str());
        // The images that were held out are found again.
        let run =
            bench.run(&["diagnose", &model, "--adapter", &adapter, "--data", &data, "--quiet"]);
        assert!(run.output.contains("held out"), "{} {}", run.output, run.errors);
    }
    // An adapter belongs to the base that it was trained on.
    let other = bench.run(&["eval", &merged, "--data", &data, "--adapter", &adapter]);
    other.fails_with(&["the adapter was trained on checkpoint", "this one is"]);
    // Only the adapters.
    let words = ["finetune", "--from", &model, "--data", &data, "--epochs", "1", "--batch", "8"];
    let frozen = ["--lora", "1", "--freeze-head", "--merge", "--out", &merged, "--force"];
    let run = bench.run(&[&words[..], &frozen].concat());
    assert!(run.success && run.output.contains("the head is frozen"), "{}", run.errors);
    assert!(changed(&model, &merged).iter().all(|name| name.starts_with("blocks.")));
}

#[test]
fn a_new_head_and_its_classes_are_stored_in_the_adapter() {
    let bench = Bench::with_model();
    let (adapter, data) = (bench.path("adapter"), bench.idx("more", 5));
    let model = bench.model.clone();
    let words = ["finetune", "--from", &model, "--data", &data, "--epochs", "1", "--batch", "8"];
    let run = bench.run(&[&words[..], &["--lora", "2", "--out", &adapter]].concat());
    assert!(run.success, "{}", run.errors);
    assert!(run.output.contains("the new head is trained beside them"), "{}", run.output);
    let run = bench.run(&["inspect", &model, "--adapter", &adapter]);
    assert!(run.success && run.output.contains("5 classes"), "{} {}", run.output, run.errors);
    let run = bench.run(&[&words[..], &["--lora", "2", "--freeze-head", "--out", "x"]].concat());
    run.is_refused_with(&["--freeze-head would leave the new head at its random values"]);
}

#[test]
fn a_kept_head_keeps_the_class_names_of_its_base() {
    let bench = Bench::with_model();
    let (data, model) = (bench.data.clone(), bench.model.clone());
    let config = format!("{model}/config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let names = serde_json::json!(["ant", "bee", "mole", "zebra"]);
    json["label_names"] = names.clone();
    std::fs::write(&config, json.to_string()).unwrap();
    let named = |adapter: &str| {
        let json = bench.path("inspect.json");
        let run = bench.run(&["inspect", &model, "--adapter", adapter, "--json", &json]);
        assert!(run.success, "{}", run.errors);
        bench.json("inspect.json")["class_names"].clone()
    };
    // The images have no names. A new head was trained on them, so it has none either.
    let finetune = ["finetune", "--from", &model, "--data", &data, "--epochs", "1", "--batch", "8"];
    for (out, more, expected) in
        [("kept", &[][..], names.clone()), ("new", &["--reset-head"], Value::Null)]
    {
        let out = bench.path(out);
        let run = bench.run(&[&finetune[..], &["--lora", "1", "--out", &out], more].concat());
        assert!(run.success, "{}", run.errors);
        assert_eq!(named(&out), expected);
    }
    let out = bench.path("post-trained");
    let words = ["post-train", &model, "--data", &data, "--method", "sgd", "--update", "block.1"];
    let rest =
        ["--lora", "1", "--epochs", "1", "--batch-size", "8", "--write-worse", "--out", &out];
    let run = bench.run(&[&words[..], &rest].concat());
    assert!(run.success, "{}", run.errors);
    assert_eq!(named(&out), names);
}

#[test]
fn post_train_trains_adapters_of_the_updated_layers() {
    let bench = Bench::with_model();
    let (adapter, merged) = (bench.path("adapter"), bench.path("merged"));
    let (data, model) = (bench.data.clone(), bench.model.clone());
    let words = ["post-train", &model, "--data", &data, "--method", "sgd", "--update", "block.1"];
    let rest =
        ["--lora", "2", "--epochs", "2", "--batch-size", "8", "--lr", "0.05", "--write-worse"];
    let json = bench.path("p.json");
    let options = [&words[..], &rest, &["--json", &json]].concat();
    let run = bench.run(&[&options[..], &["--out", &adapter]].concat());
    assert!(run.success, "{}", run.errors);
    assert!(run.errors.contains("LoRA adapters of rank 2"), "{}", run.errors);
    let test = |report: Value| report["test"].clone();
    let of_adapter = test(bench.json("p.json"));
    let run = bench.run(&[&options[..], &["--out", &merged, "--merge"]].concat());
    assert!(run.success, "{}", run.errors);
    assert_eq!(of_adapter, test(bench.json("p.json")));
    let expected: Vec<String> = ["attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2"]
        .iter()
        .map(|module| format!("blocks.1.{module}.weight"))
        .chain(["head.bias".into(), "head.weight".into()])
        .collect();
    assert_eq!(changed(&model, &merged), expected);
    assert_eq!(logits(&bench, &[&model, "--adapter", &adapter]), logits(&bench, &[&merged]));

    // In place, the adapters are merged.
    let run = bench.run(&[&options[..], &["--in-place"]].concat());
    run.is_refused_with(&[
        "--in-place replaces the whole checkpoint, and --lora writes an adapter",
    ]);
    let run = bench.run(&[&options[..], &["--out", &adapter]].concat());
    run.fails_with(&["already holds an adapter"]);
    let before = logits(&bench, &[&merged]);
    let run = bench.run(&[&options[..], &["--in-place", "--merge"]].concat());
    assert!(run.success, "{}", run.errors);
    assert_eq!(logits(&bench, &[&model]), before);
}

#[test]
fn an_adapter_is_a_layer_of_a_diagnosis() {
    let bench = Bench::with_model();
    let (adapter, json) = (bench.path("adapter"), bench.path("d.json"));
    let (data, model) = (bench.data.clone(), bench.model.clone());
    let words = ["finetune", "--from", &model, "--data", &data, "--epochs", "1", "--batch", "8"];
    let run = bench.run(&[&words[..], &["--lora", "2", "--out", &adapter]].concat());
    assert!(run.success, "{}", run.errors);
    let diagnose = ["diagnose", &model, "--data", &data, "--json", &json, "--layer"];
    let layers = "block.0.lora,block.1.attn.lora,block.1,head";
    let run = bench.run(&[&diagnose[..], &[layers, "--adapter", &adapter]].concat());
    assert!(run.success, "{}", run.errors);
    let beside = bench.json("d.json")["layers"].clone();
    let names: Vec<&str> =
        beside.as_array().unwrap().iter().filter_map(|layer| layer["name"].as_str()).collect();
    assert_eq!(names, ["block.0.lora", "block.1.attn.lora", "block.1", "head"]);
    // The other layers are those of the merged model, up to the rounding of f32.
    let run = bench.run(&[&diagnose[..], &["block.1,head", "--adapter", &adapter]].concat());
    assert!(run.success, "{}", run.errors);
    let merged = bench.json("d.json")["layers"].clone();
    for (i, layer) in merged.as_array().unwrap().iter().enumerate() {
        let gain = |layer: &Value| layer["delta_l_nats"]["in_sample"].as_f64().unwrap();
        let (found, expected) = (gain(&beside[i + 2]), gain(layer));
        assert!((found - expected).abs() < 1e-3 * expected.abs(), "{found} {expected}");
    }
    // Without an adapter there is no such layer.
    let run = bench.run(&[&diagnose[..], &["block.0.lora", "--quiet"]].concat());
    run.fails_with(&["there is no layer \"block.0.lora\""]);
}

#[test]
fn combinations_without_meaning_are_refused() {
    let bench = Bench::with_model();
    let (data, model) = (bench.data.clone(), bench.model.clone());
    let adapter = bench.path("adapter");
    let base = ["finetune", "--from", &model, "--data", &data, "--epochs", "1", "--batch", "8"];
    let run = bench.run(&[&base[..], &["--lora", "2", "--out", &adapter]].concat());
    assert!(run.success, "{}", run.errors);
    let refused = |words: &[&str], parts: &[&str]| {
        bench.run(&[&base[..], words].concat()).is_refused_with(parts);
    };
    refused(&["--dora", "--out", "x"], &["--dora only applies to adapters (--lora)"]);
    refused(
        &["--layers", "block.0", "--out", "x"],
        &["--layers only applies to adapters (--lora)"],
    );
    refused(
        &["--lora", "2", "--targets", "qkx", "--out", "x"],
        &["--targets", "fc1, fc2, proj, qkv"],
    );
    refused(&["--lora", "2", "--layers", "head", "--out", "x"], &["--layers", "linear layers"]);
    refused(&["--lora", "2", "--adapter", &adapter, "--out", "x"], &["--adapter", "--merge"]);
    let run = bench.run(&[&base[..], &["--lora", "2", "--out", "x.safetensors"]].concat());
    run.fails_with(&["an adapter is a folder", "--merge"]);
    let run = bench.run(&[&base[..], &["--lora", "2", "--out", &adapter]].concat());
    run.fails_with(&["adapter_model.safetensors exists"]);
    let new = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &data, "--out", "x"];
    bench.run(&[&new[..], &["--lora", "2"]].concat()).is_refused_with(&["--lora only applies to"]);
    let tune = ["post-train", &model, "--data", &data, "--method", "sgd", "--update", "head"];
    let run = bench.run(&[&tune[..], &["--adapter", &adapter, "--in-place"]].concat());
    run.fails_with(&["was read with the adapter", "choose --out"]);
    let pol = ["post-train", &model, "--data", &data, "--lora", "2", "--out", "x"];
    bench.run(&pol).is_refused_with(&["--lora only applies to the method sgd"]);
    let run = bench.run(&["inspect", &adapter]);
    run.fails_with(&["found a peft adapter", "--adapter", &model]);
    // The adapter of `compare` is that of B.
    let compare = ["compare", &model, &model, "--data", &data, "--adapter", &adapter];
    let run = bench.run(&compare);
    assert!(run.success, "{}", run.errors);
    let b = format!("A: {model}\nB: {model} with the adapter {adapter}\n");
    assert!(run.output.starts_with(&b), "{}", run.output);
}

/// A run of two epochs on the same layers, as words.
const RUN: [&str; 8] =
    ["--update", "block.1", "--epochs", "2", "--batch-size", "8", "--lr", "0.05"];

/// Figures on test of `post-train --method sgd` with these options, after the last epoch.
fn post_trained(bench: &Bench, rest: &[&str]) -> Value {
    let (out, json) = (bench.path("tuned"), bench.path("p.json"));
    let words =
        ["post-train", &bench.model, "--data", &bench.data, "--method", "sgd", "--write-worse"];
    let end = ["--keep", "last", "--remeasure", "0", "--quiet", "--out", &out, "--json", &json];
    let run = bench.run(&[&words[..], &RUN, rest, &end].concat());
    assert!(run.success, "{}", run.errors);
    std::fs::remove_dir_all(out).unwrap();
    bench.json("p.json")
}

#[test]
fn a_bench_compares_adapters_with_training_the_whole_layers() {
    let bench = Bench::with_model();
    for more in [&["--lora", "2"][..], &["--lora", "3", "--dora", "--targets", "qkv", "--merge"]] {
        let json = bench.path("bench.json");
        let words = ["bench", &bench.model, "--data", &bench.data, "--methods", "sgd,sam"];
        let end = ["--seeds", "2", "--remeasure", "0", "--quiet", "--json", &json];
        let run = bench.run(&[&words[..], &RUN, more, &end].concat());
        assert!(run.success, "{}", run.errors);
        let report = bench.json("bench.json");
        let rows = report["rows"].as_array().unwrap();
        let title = if more.len() > 2 { "DoRA 3 → block.1" } else { "LoRA 2 → block.1" };
        let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, ["untouched", "SGD → block.1", title, "SAM → block.1"]);
        let (control, adapted) = (&rows[1], &rows[2]);
        assert_eq!((&adapted["control"], &adapted["method"]), (&names[1].into(), &"sgd".into()));
        assert_eq!(adapted["lora"]["lora"].as_u64(), more[1].parse().ok());
        assert_eq!((&control["lora"], &rows[3]["lora"]), (&Value::Null, &Value::Null));
        assert_eq!(report["settings"]["methods"]["sgd"]["lora"], adapted["lora"]["lora"]);
        // Both rows are the means of the runs of `post-train` with the same seeds.
        for (row, options) in [(control, &[][..]), (adapted, more)] {
            let seed = |seed| post_trained(&bench, &[options, &["--train-seed", seed]].concat());
            let runs = [seed("0"), seed("1")];
            for figure in ["nll", "calibrated_nll", "top1", "ece"] {
                let of = |run: &Value| run["test"]["after"][figure].as_f64().unwrap();
                let mean = (of(&runs[0]) + of(&runs[1])) / 2.0;
                assert_eq!(row[figure]["mean"].as_f64(), Some(mean), "{} {figure}", row["name"]);
            }
        }
        assert_ne!(control["nll"], adapted["nll"]);
        assert!(
            run.output.contains(&format!("{title}: no verdict from 2 seeds")),
            "{}",
            run.output
        );
    }
    let words = ["bench", &bench.model, "--data", &bench.data, "--methods"];
    let bare = bench.run(&[&words[..], &["sgd"]].concat());
    bare.is_refused_with(&["--methods: sgd always runs, as the control", "set --lora"]);
    let others = bench.run(&[&words[..], &["sam", "--lora", "2"]].concat());
    others.is_refused_with(&["--lora only applies to the method sgd"]);
    let head = bench.run(&[&words[..], &["sgd", "--lora", "2", "--update", "head"]].concat());
    let expected = ["--update: expected layers that contain linear layers", "found head"];
    assert!(head.code == Some(2) && expected.iter().all(|part| head.errors.contains(part)));
}

#[test]
fn a_study_has_adapters_as_options() {
    let bench = Bench::with_model();
    let study = |grid: &str| {
        format!(
            "evaluate = false\n[[model]]\nname = \"m\"\ncheckpoint = \"model\"\n[[data]]\nname = \
             \"d\"\nsource = \"data\"\n[[bench]]\nname = \"b\"\nmethods = [\"sgd\", \"sam\"]\n\
             update = [\"block.1\"]\ngrid = {{ {grid}, epochs = 2, batch-size = 8, lr = 0.05, keep = \
             \"last\" }}\n"
        )
    };
    let runs = |name: &str, grid: &str| -> Vec<Value> {
        std::fs::write(bench.path(&format!("{name}.toml")), study(grid)).unwrap();
        let run = bench.run(&["study", &format!("{name}.toml")]);
        assert!(run.success, "{}", run.errors);
        let text = std::fs::read_to_string(bench.path(&format!("{name}/runs.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let rows = runs("with", "lora = [2, 3], rslora = true, targets = [[\"qkv\", \"fc1\"]]");
    // SAM, the control of both, and one run for each rank.
    let of = |method: &str| rows.iter().filter(|row| row["method"] == method).collect::<Vec<_>>();
    assert_eq!((of("sgd").len(), of("sam").len()), (3, 1));
    let control = of("sgd").into_iter().find(|row| row["lora"].is_null()).unwrap();
    assert_eq!((&control["rslora"], &control["targets"]), (&false.into(), &Value::Null));
    for (rank, options) in [
        (Value::Null, &[][..]),
        (2.into(), &["--lora", "2", "--rslora", "--targets", "qkv,fc1"]),
        (3.into(), &["--lora", "3", "--rslora", "--targets", "qkv,fc1"]),
    ] {
        let row = of("sgd").into_iter().find(|row| row["lora"] == rank).unwrap();
        let report = post_trained(&bench, &[options, &["--train-seed", "0"]].concat());
        for split in ["val", "test"] {
            let part = &report[if split == "val" { "validation" } else { "test" }];
            for figure in ["nll", "calibrated_nll", "top1", "ece", "temperature"] {
                let name = format!("{split}_after_{figure}");
                assert_eq!(row[&name], part["after"][figure], "{rank} {name}");
            }
        }
        let expected = if rank.is_null() { &Value::Null } else { &control["cell"] };
        assert_eq!(&row["control"], expected);
    }
    // Cells without adapters keep their names.
    let plain = runs("without", "clip = 1e9");
    let other = runs("adapted", "clip = 1e9, lora = 2");
    for row in &plain {
        assert!(other.iter().any(|of| of["cell"] == row["cell"]), "{row}");
    }
    std::fs::write(bench.path("s.toml"), study("lora = 2, targets = [[\"qkx\"]]")).unwrap();
    bench.run(&["study", "s.toml"]).fails_with(&["s.toml, line", "`targets`", "qkv"]);
    let pol = study("lora = 2").replace("\"sgd\", ", "");
    std::fs::write(bench.path("s.toml"), pol).unwrap();
    bench.run(&["study", "s.toml"]).fails_with(&["s.toml, line", "`lora`", "the method sgd"]);
}
