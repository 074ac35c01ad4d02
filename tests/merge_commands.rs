//! `merge`, end to end.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output, tensors};
use serde_json::Value;
use std::fs;

/// Post-trains the model into a second checkpoint.
fn tuned(bench: &Bench, name: &str, words: &[&str]) -> String {
    let out = bench.path(name);
    let start = ["post-train", &bench.model, "--data", &bench.data, "--method", "sgd"];
    let short = ["--epochs=1", "--batch-size=8", "--remeasure=0", "--write-worse", "--quiet"];
    let done = bench.run(&[&start[..], &short, &["--out", &out], words].concat());
    assert!(done.success, "{}", done.errors);
    out
}

fn merge(bench: &Bench, words: &[&str]) -> Output {
    let rest = ["--data", &bench.data, "--quiet", "--json", &bench.path("run.json")];
    bench.run(&[&["merge"], words, &rest].concat())
}

fn values(folder: &str, name: &str) -> Vec<f32> {
    tensors(&format!("{folder}/model.safetensors"))[name].f32s()
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {value}"))
}

/// A copy of the model with the rows of its head in another order.
fn mistaken(bench: &Bench, name: &str) -> String {
    let out = bench.path(name);
    fs::create_dir(&out).unwrap();
    let [from, to] = [&bench.model, &out].map(|folder| format!("{folder}/model.safetensors"));
    fs::copy(format!("{}/config.json", bench.model), format!("{out}/config.json")).unwrap();
    let mut bytes = fs::read(from).unwrap();
    let (size, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    for tensor in ["head.weight", "head.bias"] {
        let info = header.info(tensor).unwrap();
        let (start, end) = info.data_offsets;
        let row = (end - start) / info.shape[0];
        // The data follow the header and its length, 8 bytes.
        bytes[8 + size + start..8 + size + end].rotate_left(row);
    }
    fs::write(to, bytes).unwrap();
    out
}

#[test]
fn wise_interpolates_and_v_chooses_alpha() {
    let bench = Bench::with_model();
    let b = tuned(&bench, "tuned", &["--update=*", "--lr=0.05"]);
    let out = bench.path("half");
    let done = merge(
        &bench,
        &[&b, "--pretrained", &bench.model, "--method=wise", "--alpha=0.5", "--out", &out],
    );
    assert!(done.success, "{}", done.errors);
    for name in ["head.weight", "blocks.0.attn.qkv.weight", "pos_embed"] {
        let (w0, w) = (values(&bench.model, name), values(&b, name));
        assert!(w0 != w, "{name}");
        for ((w0, w), merged) in w0.iter().zip(&w).zip(values(&out, name)) {
            let expected = 0.5 * (f64::from(*w0) + f64::from(*w));
            // One rounding to f32.
            assert!(
                (f64::from(merged) - expected).abs() <= 6e-8 * expected.abs() + 1e-12,
                "{name}"
            );
        }
    }

    let chosen = bench.path("chosen");
    let done =
        merge(&bench, &[&b, "--pretrained", &bench.model, "--method=wise", "--out", &chosen]);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    assert_eq!(report["schema"], "planish/merging/1");
    let curve = report["curve"].as_array().unwrap();
    assert_eq!(curve.len(), 11);
    let losses: Vec<f64> = curve.iter().map(|point| number(point, "/calibrated_nll")).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let used = curve.iter().find(|point| point["alpha"] == report["alpha"]).unwrap();
    assert_eq!(number(used, "/calibrated_nll"), least);
    // The ends of the curve are the two checkpoints.
    let eval = |model: &str| {
        let json = bench.path("eval.json");
        let split = ["--split", "test", "--json", &json];
        let done = bench.run(&[&["eval", model, "--data", &bench.data], &split[..]].concat());
        assert!(done.success, "{}", done.errors);
        number(&bench.json("eval.json"), "/figures/nll")
    };
    let whole = |side: &str| {
        0.5 * (number(&report, &format!("/validation/{side}/nll"))
            + number(&report, &format!("/test/{side}/nll")))
    };
    assert!((whole("before") - eval(&b)).abs() < 1e-6);
    assert!((whole("after") - eval(&chosen)).abs() < 1e-6);
    assert!(done.output.contains("the best on V"), "{}", done.output);
    assert!(bench.plain(&["inspect", &chosen]).output.contains("merge wise by"));

    let page = bench.path("page.html");
    let shown = bench.plain(&["report", &bench.path("run.json"), "--html", &page]);
    assert!(shown.success, "{}", shown.errors);
    assert!(fs::read_to_string(page).unwrap().contains("Merged by wise"));
}

#[test]
fn lines_moves_the_first_layers_most() {
    let bench = Bench::with_model();
    let b = tuned(&bench, "tuned", &["--update=*", "--lr=0.05"]);
    let out = bench.path("lines");
    let done = merge(
        &bench,
        &[&b, "--pretrained", &bench.model, "--method=lines", "--alpha=0", "--out", &out],
    );
    assert!(done.success, "{}", done.errors);
    // λ is 0 at the embedding and 1 at the head.
    assert!(values(&out, "pos_embed") == values(&bench.model, "pos_embed"));
    assert!(values(&out, "head.weight") == values(&b, "head.weight"));
}

#[test]
fn soups_are_means_of_what_helps() {
    let bench = Bench::with_model();
    let b = tuned(&bench, "b", &["--update=head", "--lr=0.05"]);
    // A model that takes each class for the next, so that a greedy soup leaves it out.
    let c = mistaken(&bench, "c");
    let out = bench.path("uniform");
    let done = merge(&bench, &[&bench.model, &b, &c, "--method=uniform", "--out", &out]);
    assert!(done.success, "{}", done.errors);
    let parts = [&bench.model, &b, &c].map(|model| values(model, "head.weight"));
    for (i, found) in values(&out, "head.weight").into_iter().enumerate() {
        let mean = parts.iter().map(|part| f64::from(part[i])).sum::<f64>() / 3.0;
        assert!((f64::from(found) - mean).abs() <= 6e-8 * mean.abs() + 1e-12);
    }

    let out = bench.path("greedy");
    let done = merge(&bench, &[&bench.model, &b, &c, "--method=greedy", "--out", &out]);
    assert!(done.success, "{}", done.errors);
    let report = bench.json("run.json");
    let used: Vec<bool> = report["ingredients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["used"].as_bool().unwrap())
        .collect();
    assert!(!used[2] && (used[0] || used[1]), "{used:?}");
    assert!(done.output.contains("left out"), "{}", done.output);
    let after = number(&report, "/validation/after/nll");
    assert!(after.is_finite());

    let out = bench.path("stock");
    let pretrained = ["--pretrained", bench.model.as_str()];
    let words = [&[bench.model.as_str(), b.as_str(), "--method=model-stock"], &pretrained[..]];
    let done = merge(&bench, &[&words.concat()[..], &["--out", &out]].concat());
    assert!(done.success, "{}", done.errors);
}

#[test]
fn validation_images_that_a_step_has_seen_are_noted() {
    let bench = Bench::with_model();
    let finetune = |from: &str, out: &str| {
        let out = bench.path(out);
        let words = ["finetune", "--from", from, "--data", &bench.data, "--epochs", "1"];
        let done = bench.run(&[&words[..], &["--batch", "8", "--out", &out]].concat());
        assert!(done.success, "{}", done.errors);
        (out, done.output)
    };
    let has_seen = "V contains images that the model has seen";
    // The model was trained on all images; this run holds out a tenth of them.
    let (tuned, said) = finetune(&bench.model, "tuned");
    assert!(said.contains(has_seen), "{said}");
    let words = [tuned.as_str(), "--method=wise", "--pretrained", &bench.model, "--dry-run"];
    let merged = merge(&bench, &words);
    assert!(merged.success, "{}", merged.errors);
    assert_eq!(merged.output.matches(has_seen).count(), 2, "{}", merged.output);
    let found = bench.run(&["diagnose", &tuned, "--data", &bench.data, "--quiet"]);
    assert!(found.output.contains(has_seen), "{}", found.output);

    // Two runs that hold out the same images.
    let first = bench.path("first");
    let arch = ["finetune", "--arch", "vit_nano_patch7_14", "--data", &bench.data];
    let rest = ["--epochs", "1", "--batch", "8", "--out", &first];
    assert!(bench.run(&[&arch[..], &rest].concat()).success);
    let (second, said) = finetune(&first, "second");
    assert!(!said.contains(has_seen), "{said}");
    let merged = merge(&bench, &[&second, "--method=wise", "--pretrained", &first, "--dry-run"]);
    assert!(merged.success && !merged.output.contains(has_seen), "{}", merged.output);
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let bench = Bench::with_model();
    let b = tuned(&bench, "b", &["--update=head"]);
    let dry = "--dry-run";
    merge(&bench, &[&b, "--method=wise", dry]).is_refused_with(&["wise", "--pretrained"]);
    merge(&bench, &[&b, "--method=uniform", dry]).fails_with(&["two or more checkpoints"]);
    merge(&bench, &[&b, &bench.model, "--method=uniform", "--pretrained", &bench.model, dry])
        .is_refused_with(&["--pretrained", "wise"]);
    merge(&bench, &[&b, "--method=wise", "--pretrained", &bench.model, "--alpha=1.5", dry])
        .is_refused_with(&["--alpha", "at most 1"]);
    merge(&bench, &[&b, &bench.model, "--method=greedy", "--alpha=0.5", dry])
        .is_refused_with(&["--alpha", "wise and lines"]);

    // The output is an ingredient.
    merge(&bench, &[&bench.model, &b, "--method=uniform", "--out", &b])
        .fails_with(&["never overwritten"]);

    // Another depth.
    let other = bench.path("other");
    let words = ["finetune", "--arch", "vit_micro_patch7_14", "--data", &bench.data];
    let rest = ["--out", &other, "--epochs", "1", "--batch-size", "8", "--lr", "0.0001"];
    let made = bench.run(&[&words[..], &rest].concat());
    assert!(made.success, "{}", made.errors);
    merge(&bench, &[&b, &other, "--method=uniform", dry]).fails_with(&["expected", "found"]);
}

#[test]
fn pretrained_weights_may_lack_the_head_or_have_another_image_size() {
    let bench = Bench::new();
    let made = |arch: &str, seed: &str| {
        let out = bench.path(arch);
        let words = ["finetune", "--arch", arch, "--data", &bench.data, "--out", &out];
        let rest = ["--epochs", "1", "--batch", "8", "--val-fraction", "0", "--seed", seed];
        // Two image sizes have different moments.
        let moments = ["--mean", "0.3", "--std", "0.2"];
        let done = bench.run(&[&words[..], &rest, &moments].concat());
        assert!(done.success, "{}", done.errors);
        out
    };
    let (small, large) = (made("vit_nano_patch7_14", "0"), made("vit_nano_patch7_28", "1"));
    let out = bench.path("half");
    let words = [&small, "--pretrained", &large, "--method=wise", "--alpha=0.5", "--out", &out];
    let done = merge(&bench, &words);
    assert!(done.success, "{}", done.errors);
    assert!(done.output.contains("resized to 5 positions for 14×14"), "{}", done.output);
    let [w, w0, merged] = [&small, &large, &out].map(|folder| values(folder, "pos_embed"));
    let dim = values(&small, "cls_token").len();
    assert_eq!((w.len(), w0.len(), merged.len()), (5 * dim, 17 * dim, 5 * dim));
    // The row of the class token is kept.
    for i in 0..dim {
        assert!((merged[i] - 0.5 * (w[i] + w0[i])).abs() < 1e-6);
    }
    // A backbone: the head is left as it is.
    let bare = bench.path("bare");
    fs::create_dir(&bare).unwrap();
    let mut all = candle_core::safetensors::load(
        format!("{large}/model.safetensors"),
        &candle_core::Device::Cpu,
    )
    .unwrap();
    all.retain(|name, _| !name.starts_with("head."));
    candle_core::safetensors::save(&all, format!("{bare}/model.safetensors")).unwrap();
    let config = fs::read_to_string(format!("{large}/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["num_classes"] = 0.into();
    config["pretrained_cfg"]["num_classes"] = 0.into();
    for key in ["label_names", "label_descriptions"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(format!("{bare}/config.json"), config.to_string()).unwrap();
    let out = bench.path("of-bare");
    let words = [&small, "--pretrained", &bare, "--method=wise", "--alpha=0.5", "--out", &out];
    let done = merge(&bench, &words);
    assert!(done.success, "{}", done.errors);
    assert!(done.output.contains("it has no head"), "{}", done.output);
    assert!(values(&out, "head.weight") == values(&small, "head.weight"));
    assert!(values(&out, "norm.weight") != values(&small, "norm.weight"));

    // A file alone does not show the number of attention heads, which fine-tuning keeps.
    fs::remove_file(format!("{bare}/config.json")).unwrap();
    let again = bench.path("of-file");
    let words = [&small, "--pretrained", &bare, "--method=wise", "--alpha=0.5", "--out", &again];
    let done = merge(&bench, &words);
    assert!(done.success, "{}", done.errors);
    let heads = "it does not state its number of attention heads; assumed: ";
    assert!(done.output.contains(heads), "{}", done.output);
    for name in ["blocks.0.attn.qkv.weight", "pos_embed", "head.weight"] {
        assert!(values(&again, name) == values(&out, name), "{name}");
    }
}
