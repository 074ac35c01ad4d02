//! `planish hvp` on checkpoints of timm and transformers, compared with torch.func
//! (`tests/reference/make_hvp.py`), and its errors for bad input.

#[allow(dead_code)]
mod common;

use common::{Bench, F32, I64, tensors};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::fs;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference");

/// Writes the part of a reference vector that belongs to a layer to its own file.
fn vector(bench: &Bench, reference: &str, k: usize, layer: &str, kind: &str) -> String {
    let all = tensors(reference);
    let members = all.keys().filter_map(|n| n.strip_prefix(&format!("{kind}/{layer}/")));
    let parts: Vec<(String, Vec<usize>, Vec<u8>)> = members
        .map(|name| {
            let part = &all[&format!("vector{k}/{name}")];
            let bytes = part.f64s().iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.to_owned(), part.shape.clone(), bytes)
        })
        .collect();
    let views = parts.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap())
    });
    let path = bench.path(&format!("vector{k}.safetensors"));
    std::fs::write(&path, serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn products_match_torch_func() {
    let bench = Bench::new();
    for (name, checkpoint) in [("timm", "timm-tiny"), ("transformers", "layouts/transformers5")] {
        let reference = format!("{REFERENCE}/hvp/{name}.safetensors");
        let expected = tensors(&reference);
        let (data, model) = (format!("tensors:{reference}"), format!("{REFERENCE}/{checkpoint}"));
        for layer in ["block.1", "block.*"] {
            for (operator, kind) in [("hessian", "hvp"), ("ggn", "ggn")] {
                let vectors = [0, 1].map(|k| vector(&bench, &reference, k, layer, kind));
                let out = bench.path("products.safetensors");
                let mut words = vec!["hvp", &model, "--data", &data, "--dtype", "f64"];
                words.extend(["--layer", layer, "--operator", operator, "--out", &out]);
                vectors.iter().for_each(|path| words.extend(["--vector", path]));
                let run = bench.run(&words);
                assert!(run.success, "{}", run.errors);
                let found = tensors(&out);
                let (mut square, mut size, mut count) = (0.0, 0.0, 0);
                for (full, torch) in &expected {
                    let Some(tensor) = full.strip_prefix(&format!("{kind}/{layer}/")) else {
                        continue;
                    };
                    let computed = &found[&format!("{kind}/{tensor}")];
                    assert_eq!(computed.shape, torch.shape, "{tensor}");
                    for (a, b) in computed.f64s().iter().zip(torch.f64s()) {
                        square += (a - b).powi(2);
                        size += b * b;
                    }
                    count += 1;
                }
                let error = (square / size).sqrt();
                println!("{name} {layer} {operator}: {count} tensors, {error:.1e}");
                assert!(count > 10 && error < 1e-12, "{name} {layer} {operator}: {error:e}");
            }
        }
    }
}

#[test]
fn lists_and_several_vectors_match_single_calls() {
    let bench = Bench::with_model();
    let hvp = |layer: &str, operator: &str, vectors: &[&str]| {
        let out = bench.path("several.safetensors");
        let mut words = vec!["hvp", &bench.model, "--data", &bench.data, "--dtype", "f64"];
        words.extend(["--layer", layer, "--operator", operator, "--out", &out]);
        vectors.iter().for_each(|v| words.extend(["--vector", v]));
        let run = bench.run(&words);
        assert!(run.success, "{}", run.errors);
        tensors(&out)
    };
    for (operator, key) in [("hessian", "hvp"), ("ggn", "ggn")] {
        let list = hvp("norm,head", operator, &["random:1", "gradient"]);
        let joint = hvp("????", operator, &["gradient"]);
        let mut crossed = 0.0;
        for (layer, name) in [("norm", "norm.weight"), ("head", "head.weight")] {
            let name = format!("{key}/{name}");
            assert_eq!(list[&name].shape[0], 2);
            let both = list[&name].f64s();
            let single = hvp(layer, operator, &["gradient"])[&name].f64s();
            assert_eq!(both[both.len() / 2..], single);
            crossed +=
                joint[&name].f64s().iter().zip(&single).map(|(a, b)| (a - b).abs()).sum::<f64>();
        }
        assert!(crossed > 1e-9, "a glob has cross-terms");
    }
}

#[test]
fn a_vector_file_must_match_the_layer() {
    let bench = Bench::with_model();
    let hvp = |vector: &str| {
        bench.run(&[
            "hvp",
            &bench.model,
            "--data",
            &bench.data,
            "--layer",
            "head",
            "--vector",
            vector,
            "--out",
            &bench.path("hv.safetensors"),
        ])
    };
    let weight = ("head.weight", F32, vec![4, 64]);
    let bias = ("head.bias", F32, vec![4]);
    bench.write("v.safetensors", &[weight.clone(), bias.clone()]);
    assert!(hvp(&bench.path("v.safetensors")).success);
    let file = |name: &str, tensors: &[(&str, &'static str, Vec<usize>)]| {
        bench.write(name, tensors);
        bench.path(name)
    };
    let cases = [
        (file("missing.safetensors", std::slice::from_ref(&weight)), "head.bias", "found none"),
        (
            file("more.safetensors", &[weight.clone(), bias.clone(), ("norm.bias", F32, vec![64])]),
            "norm.bias",
            "remove it",
        ),
        (
            file("transposed.safetensors", &[("head.weight", F32, vec![64, 4]), bias]),
            "[4, 64]",
            "[64, 4]",
        ),
        (file("integers.safetensors", &[weight, ("head.bias", I64, vec![4])]), "head.bias", "I64"),
        (bench.path("absent.safetensors"), "absent.safetensors", "random:SEED"),
    ];
    for (path, place, more) in cases {
        hvp(&path).fails_with(&[&path, place, more]);
    }
    fs::write(bench.path("junk.safetensors"), b"not safetensors").unwrap();
    hvp(&bench.path("junk.safetensors")).fails_with(&["junk.safetensors", "header"]);
}

/// A vector file for the head of the bench's model, with all entries equal to `x`.
fn constant(bench: &Bench, x: f32) -> String {
    let parts = [("head.weight", vec![4, 64]), ("head.bias", vec![4])].map(|(name, shape)| {
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_| x.to_le_bytes()).collect();
        (name, shape, bytes)
    });
    let views = parts.iter().map(|(name, shape, bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let path = bench.path("constant.safetensors");
    fs::write(&path, serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn results_that_are_not_finite_are_reported() {
    let bench = Bench::with_model();
    let hvp = |vectors: &[&str], more: &[&str]| {
        let out = bench.path("hv.safetensors");
        let mut words = vec!["hvp", &bench.model, "--data", &bench.data, "--layer", "head"];
        words.extend(["--out", &out]);
        vectors.iter().for_each(|v| words.extend(["--vector", v]));
        bench.run(&[&words, more].concat())
    };
    // 3e38 times 64 features overflows f32.
    let path = constant(&bench, 3e38);
    hvp(&[&path], &[]).fails_with(&["layer head", "not finite", "\"linear\" of head", "f64"]);
    assert!(hvp(&[&path], &["--dtype", "f64"]).success);
    let path = constant(&bench, f32::NAN);
    hvp(&[&path], &[]).fails_with(&[&path, "NaN", "head."]);
    hvp(&["random:1"; 3], &["--memory", "1MiB"]).fails_with(&["head", "3 vectors", "--memory"]);

    let probed = hvp(&["random:1"], &["--json", "probed.json"]);
    assert!(probed.output.contains("bit-identical"), "{}", probed.output);
    assert_eq!(bench.json("probed.json")["determinism"]["identical"], true);
    let bare = hvp(&["random:1"], &["--json", "bare.json", "--no-probe"]);
    assert!(!bare.output.contains("bit-identical"), "{}", bare.output);
    assert!(bench.json("bare.json")["determinism"].is_null());
}

#[test]
fn input_files_are_not_overwritten() {
    let bench = Bench::with_model();
    let weights = format!("{}/model.safetensors", bench.model);
    let config = format!("{}/config.json", bench.model);
    let vector = constant(&bench, 1.0);
    let before = [&weights, &config, &vector].map(|path| fs::read(path).unwrap());
    let run = |words: &[&str]| {
        let out = bench.run(&[words, &["--data", &bench.data]].concat());
        out.fails_with(&["an input file", "choose another"]);
    };
    let hvp = ["hvp", &bench.model, "--layer", "head", "--vector", &vector, "--out"];
    for out in [&weights, &vector] {
        run(&[&hvp[..], &[out]].concat());
    }
    for json in [&weights, &config] {
        run(&["eval", &bench.model, "--json", json]);
        run(&["diagnose", &bench.model, "--json", json]);
    }
    run(&["eval", &bench.model, "--dump", &weights]);
    assert_eq!([&weights, &config, &vector].map(|path| fs::read(path).unwrap()), before);
}
