//! `--device` in a build for the CPU; a build with feature `cuda` is tested by `tests/standin`.
#![cfg(not(feature = "cuda"))]

#[allow(dead_code)]
mod common;

use common::Bench;

#[test]
fn what_the_cpu_cannot_do_is_said_in_a_line() {
    let bench = Bench::new();
    let run = |words: &[&str]| {
        bench.plain(&[&["eval", "model", "--data", &bench.data][..], words].concat())
    };
    run(&["--device", "cuda:1"]).fails_with(&[
        "--device cuda:1",
        "--features cuda",
        "--device cpu",
    ]);
    run(&["--tf32"]).fails_with(&["--tf32", "--device cuda"]);
}
