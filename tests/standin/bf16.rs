//! `--precision bf16`. The CPU rounds the operands of products; a GPU also stores activations in
//! bf16. Their results differ by a few bf16 roundings.

use super::common::{Bench, tensors};
use super::{bench, both, own};

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// |a − b| / |a|.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    assert!(a.len() == b.len() && norm(a) > 0.0);
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(a)
}

/// All f32 numbers of a file, in the order of names.
fn all(path: &str) -> Vec<f64> {
    let found = tensors(path);
    found.values().filter(|x| x.is_f32()).flat_map(|x| x.f32s()).map(f64::from).collect()
}

/// The file that a command writes on CPU and GPU. `{}` in its arguments stands for the device.
fn output_file(bench: &Bench, words: &[&str], file: &str) -> [Vec<f64>; 2] {
    both(bench, words);
    ["cpu", "cuda"].map(|device| all(&bench.path(&file.replace("{}", device))))
}

#[test]
fn logits_agree_within_rounding() {
    let bench = bench();
    let dump = bench.path("{}.safetensors");
    let words = ["eval", &bench.model, "--data", &bench.data, "--dump", &dump];
    let [exact, _] = output_file(&bench, &words, "{}.safetensors");
    let words = [&words[..], &["--precision", "bf16"]].concat();
    let [cpu, gpu] = output_file(&bench, &words, "{}.safetensors");
    println!(
        "\nlogits: CPU {:.1e}, GPU {:.1e} from f32",
        relative_error(&exact, &cpu),
        relative_error(&exact, &gpu)
    );
    assert!((1e-4..0.02).contains(&relative_error(&exact, &gpu)));
    assert!((1e-4..0.02).contains(&relative_error(&cpu, &gpu)));
}

#[test]
fn training_agrees_within_rounding() {
    let bench = bench();
    let before = all(&format!("{}/model.safetensors", bench.model));
    let batch = if own().is_some() { "128" } else { "3" };
    for method in ["pol", "pof", "sgd"] {
        let name = format!("{method}-{{}}");
        let out = bench.path(&name);
        let mut words = vec!["post-train", &bench.model, "--data", &bench.data, "--write-worse"];
        words.extend(["--method", method, "--epochs", "2", "--keep", "last", "--out", &out]);
        words.extend(["--batch-size", batch, "--precision", "bf16", "--remeasure", "0"]);
        words.extend(["--lr", "0.01"]);
        if method == "pol" {
            words.extend(["--perturb", "head"]);
        }
        if method != "pof" {
            words.extend(["--update", "block.1"]);
        }
        let updates =
            output_file(&bench, &words, &format!("{name}/model.safetensors")).map(|after| {
                after.iter().zip(&before).map(|(after, before)| after - before).collect::<Vec<_>>()
            });
        let error = relative_error(&updates[0], &updates[1]);
        println!("\n{method}: relative error {error:.1e}");
        assert!((1e-5..0.1).contains(&error), "{method}: {error}");
    }
}
