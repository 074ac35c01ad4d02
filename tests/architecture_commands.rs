//! Every command on architectures other than the Vision Transformer.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, Output};
use std::fs;

/// Names for `finetune --arch`, the layers that they have, and a part of one.
const ARCHITECTURES: [(&str, &[&str], &str); 3] = [
    ("mixer_nano_patch7_14", &["stem", "block.0", "block.5", "norm", "head"], "block.1.tokens"),
    (
        "convnext_mini_patch1_16",
        &["stem", "stages.0.blocks.0", "stages.2.downsample", "stages.2.blocks.1", "head"],
        "stages.1.blocks.0",
    ),
    ("convnextv2_mini_patch1_16", &["stem", "stages.3.blocks.0", "norm", "head"], "norm"),
];

fn succeeded(out: Output) -> Output {
    assert!(out.success, "{}{}", out.output, out.errors);
    out
}

#[test]
fn every_command_supports_every_architecture() {
    for (arch, layers, part) in ARCHITECTURES {
        let bench = Bench::new();
        let (data, json) = (bench.data.clone(), bench.path("r.json"));
        let run = |words: &[&str]| succeeded(bench.run(words));
        let model = bench.path("model");
        let made = ["finetune", "--arch", arch, "--data", &data, "--epochs", "2", "--batch", "8"];
        run(&[&made[..], &["--val-fraction", "0.25", "--out", &model]].concat());

        let inspected = run(&["inspect", &model, "--json", &json]);
        for layer in layers {
            assert!(inspected.output.contains(layer), "{layer}: {}", inspected.output);
        }
        assert_eq!(bench.json("r.json")["config"]["classes"], 4);
        run(&["eval", &model, "--data", &data, "--shift", "corruptions:contrast:2"]);
        run(&["selftest", &model, "--data", &data]);
        let hvp = bench.path("hvp.safetensors");
        run(&["hvp", &model, "--data", &data, "--layer", part, "--out", &hvp]);

        let diagnosis = bench.path("diagnosis.json");
        let diagnose = ["diagnose", &model, "--data", &data, "--json", &diagnosis];
        run(&[&diagnose[..], &["--granularity", "sublayer"]].concat());
        let found = bench.json("diagnosis.json")["layers"].as_array().unwrap().clone();
        assert!(found.iter().any(|layer| layer["name"] == part), "{found:?}");

        let tuned = bench.path("tuned");
        let train = ["post-train", &model, "--data", &data, "--epochs", "1", "--batch-size", "8"];
        let pol = ["--method", "pol", "--perturb", "head", "--update", layers[1]];
        let rest = ["--perturb-batch", "16", "--write-worse", "--out", &tuned, "--json", &json];
        run(&[&train[..], &pol, &rest].concat());
        run(&["compare", &model, &tuned, "--data", &data]);
        let weights = format!("{model}/model.safetensors");
        let before = fs::read(&weights).unwrap();
        let in_place = ["--method", "sam", "--update", "head", "--write-worse", "--in-place"];
        run(&[&train[..], &in_place].concat());
        assert!(fs::read(&weights).unwrap() != before);
        succeeded(bench.plain(&["undo", &model]));
        assert!(fs::read(&weights).unwrap() == before);
        let patch = bench.path("p.safetensors");
        succeeded(bench.plain(&["patch", "diff", &model, &tuned, "--out", &patch]));

        let methods = ["--methods", "pof,pol", "--seeds", "1", "--perturb", "head"];
        let rest = ["--update", "norm", "--perturb-batch", "16", "--json", &json];
        run(&[&["bench"], &train[1..], &methods, &rest].concat());
        let page = bench.path("r.html");
        succeeded(bench.plain(&["report", &diagnosis, &json, "--html", &page]));
        let study = format!(
            "[[model]]\nname = 'a'\ncheckpoint = 'model'\n[[data]]\nname = 'grey'\nsource = 'data'\n\
             [[bench]]\nname = 'b'\nmethods = ['sgd']\nupdate = ['{part}']\ngrid = {{ epochs = 1, \
             batch-size = 8 }}\n"
        );
        fs::write(bench.path("s.toml"), study).unwrap();
        run(&["study", "s.toml"]);
    }
}

#[test]
fn unknown_architectures_list_the_known_ones() {
    let bench = Bench::new();
    let out = bench.path("out");
    let words = ["finetune", "--data", &bench.data, "--out", &out, "--arch"];
    for (name, parts) in [
        ("resnet50", ["vit_SIZE_patchP_S", "convnext_SIZE_patchP_S"]),
        ("mixer_nanno_patch7_14", ["did you mean \"nano\"?", "mixer_SIZE_patchP_S"]),
    ] {
        bench.run(&[&words[..], &[name]].concat()).fails_with(&parts);
    }
}
