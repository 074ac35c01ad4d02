//! Compares steps and clipping with torch, in f32 and f64.

use super::*;
use serde_json::Value;

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/optimizers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<Vec<f32>> {
    let rows = value.as_array().unwrap().iter();
    rows.map(|row| {
        let row = row.as_array().unwrap().iter();
        row.map(|x| x.as_f64().unwrap() as f32).collect()
    })
    .collect()
}

fn tensors(value: &Value, dtype: DType) -> Vec<Tensor> {
    let shapes: [&[usize]; 2] = [&[3, 4], &[5]];
    let make =
        |(row, shape)| Tensor::from_vec(row, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    numbers(value).into_iter().zip(shapes).map(make).collect()
}

/// Maximum difference: a few roundings of numbers near 1, 6e-8 each.
fn assert_close(found: &[Tensor], expected: &Value, what: &str) {
    for (found, expected) in found.iter().zip(numbers(expected)) {
        let found = found.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        let found: Vec<f32> = found.to_vec1().unwrap();
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{what}: {a} is not {b}");
        }
    }
}

#[test]
fn steps_agree_with_torch() {
    for case in reference()["cases"].as_array().unwrap() {
        let number = |key: &str| case["settings"][key].as_f64().unwrap();
        let rule = match case["rule"].as_str().unwrap() {
            "sgd" => OptimizerRule::Sgd {
                momentum: number("momentum"),
                nesterov: case["settings"]["nesterov"].as_bool().unwrap(),
            },
            _ => OptimizerRule::AdamW {
                beta1: case["settings"]["betas"][0].as_f64().unwrap(),
                beta2: case["settings"]["betas"][1].as_f64().unwrap(),
                eps: number("eps"),
            },
        };
        // torch's steps are in f32, so f64 may differ by f32 rounding.
        for dtype in [DType::F32, DType::F64] {
            let mut optimizer = Optimizer::new(rule, number("weight_decay"));
            let mut weights = tensors(&case["weights"], dtype);
            for (i, step) in case["steps"].as_array().unwrap().iter().enumerate() {
                let gradients = tensors(&step["gradients"], dtype);
                let rate = step["rate"].as_f64().unwrap();
                weights = optimizer.step(&weights, &gradients, rate).unwrap();
                assert!(weights.iter().all(|w| w.dtype() == dtype));
                let what = format!("{}, {dtype:?}, step {i}", case["name"]);
                assert_close(&weights, &step["weights"], &what);
            }
        }
    }
}

#[test]
fn clipping_agrees_with_torch() {
    let case = &reference()["clip"];
    let max_norm = case["max_norm"].as_f64().unwrap();
    for dtype in [DType::F32, DType::F64] {
        let gradients = || tensors(&case["gradients"], dtype);
        let (clipped, before) = clip(gradients(), max_norm).unwrap();
        assert!((before / case["norm"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert_close(&clipped, &case["clipped"], "clip");
        let (unclipped, _) = clip(gradients(), 1e3).unwrap();
        assert_close(&unclipped, &case["gradients"], "no clip");
    }
}

#[test]
fn rejects_tensors_that_do_not_match() {
    let w = |n: usize, dtype| Tensor::zeros(n, dtype, &Device::Cpu).unwrap();
    let (w3, w4) = (w(3, DType::F32), w(4, DType::F32));
    let rule = OptimizerRule::Sgd { momentum: 0.9, nesterov: true };
    let mut optimizer = Optimizer::new(rule, 0.0);
    let mut fails = |weights: &[Tensor], gradients: &[Tensor]| {
        matches!(optimizer.step(weights, gradients, 0.1), Err(Error::Mismatch { .. }))
    };
    assert!(fails(std::slice::from_ref(&w3), &[]));
    assert!(fails(std::slice::from_ref(&w3), std::slice::from_ref(&w4)));
    assert!(fails(std::slice::from_ref(&w3), &[w(3, DType::F64)]));
    assert!(!fails(std::slice::from_ref(&w3), std::slice::from_ref(&w3)));
    assert!(fails(std::slice::from_ref(&w4), std::slice::from_ref(&w4)));
    assert!(fails(&[w3.clone(), w4.clone()], &[w3, w4]));
}
