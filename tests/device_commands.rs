//! `--device` in a build for the CPU; a build with feature `cuda` is tested by `tests/standin`.
#![cfg(not(feature = "cuda"))]

#[allow(dead_code)]
mod common;

use common::Bench;

#[test]
fn options_that_the_cpu_cannot_use_are_rejected() {
    let bench = Bench::new();
    let run = |words: &[&str]| {
        bench.plain(&[&["eval", "model", "--data", &bench.data][..], words].concat())
    };
    run(&["--device", "cuda:1"]).fails_with(&["--device cuda:1", "--features cuda", "device cpu"]);
    run(&["--tf32"]).is_refused_with(&["--tf32", "--device cuda"]);
    run(&["--tiles", "--device", "cuda"]).is_refused_with(&["--tiles", "--device"]);
}

#[test]
fn tiles_do_not_change_the_loss() {
    let bench = Bench::with_model();
    let loss = |words: &[&str], name: &str| {
        let eval = ["eval", &bench.path("model"), "--data", &bench.data, "--json"];
        let output = bench.plain(&[&eval[..], &[&bench.path(name)], words].concat());
        output.code.eq(&Some(0)).then(|| bench.json(name)["figures"]["nll"].as_f64().unwrap())
    };
    let vectors = loss(&[], "vectors.json").unwrap();
    match loss(&["--tiles"], "tiles.json") {
        Some(tiles) => assert!((tiles - vectors).abs() < 1e-5 * vectors, "{tiles}, {vectors}"),
        None => assert!(!planish_kernels::bf16::split::available()),
    }
}
