//! `planish hvp` on checkpoints that timm and transformers made, held to torch.func.
//! `tests/reference/make_hvp.py` made the products.

#[allow(dead_code)]
mod common;

use common::{Bench, tensors};
use safetensors::tensor::{Dtype, TensorView, serialize};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference");

/// A layer's part of one of the reference's vectors, in a file of its own.
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
fn products_are_torch_funcs() {
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
                for (full, theirs) in &expected {
                    let Some(tensor) = full.strip_prefix(&format!("{kind}/{layer}/")) else {
                        continue;
                    };
                    let ours = &found[&format!("{kind}/{tensor}")];
                    assert_eq!(ours.shape, theirs.shape, "{tensor}");
                    for (a, b) in ours.f64s().iter().zip(theirs.f64s()) {
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
