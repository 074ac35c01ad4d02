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
    let rest = ["--lora", "1", "--epochs", "1", "--batch-size", "8", "--force", "--out", &out];
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
    let rest = ["--lora", "2", "--epochs", "2", "--batch-size", "8", "--lr", "0.05", "--force"];
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
