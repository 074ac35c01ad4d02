//! Compares figures with scikit-learn, torchmetrics, netcal and SciPy; see
//! `tests/reference/make_evaluation.py`.

use super::*;
use crate::predictions::Predictions;
use serde_json::Value;

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/evaluation.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(of: &Value) -> Vec<f64> {
    of.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn predictions(values: &Value, case: &Value) -> Predictions {
    let classes = case["classes"].as_u64().unwrap() as usize;
    let values = numbers(values);
    let labels = match &case["labels"] {
        Value::Null => vec![0; values.len() / classes],
        labels => numbers(labels).iter().map(|&y| y as u32).collect(),
    };
    Predictions::new(values, classes, &labels).unwrap()
}

fn close(name: &str, got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    let error = (got - expected).abs() / expected.abs().max(1e-3);
    println!("{name}: {got:.6}, off by {error:.1e}");
    assert!(error < tolerance, "{name}: {got} ≠ {expected}");
}

#[test]
fn figures_of_a_model() {
    let cases = reference()["figures"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let p = predictions(&case["logits"], case);
        let s = summarise(&p, Temperature::FittedOn(&p)).unwrap();
        let d = s.details.unwrap();
        for (name, got) in [
            ("nll", s.nll),
            ("top1", s.top1),
            ("top5", s.top5),
            ("brier", d.brier),
            ("ece", s.ece),
            ("ece_equal_mass", d.ece_equal_mass),
            ("ece_class_wise", d.ece_class_wise),
            ("confidence", d.confidence),
            ("entropy", d.entropy),
            ("aurc", d.aurc),
        ] {
            close(name, got, &case[name], 1e-12);
        }
        assert_eq!(case["absent_classes"], d.absent_classes);
        let found = by_class(&p, None, None);
        let class = |i: usize| &case["by_class"][i];
        for (i, of) in found.classes.iter().enumerate() {
            let expected = class(i);
            assert_eq!(
                (&expected["images"], &expected["predicted"]),
                (&of.images.into(), &of.predicted.into())
            );
            let own = [("recall", of.top1), ("recall_stderr", of.top1_stderr), ("nll", of.nll)];
            let own = own.into_iter().chain([("nll_stderr", of.nll_stderr)]);
            for (name, value) in own.filter(|_| of.images > 0) {
                close(name, value.unwrap(), &expected[name], 1e-12);
            }
            close("ece", of.ece, &expected["ece"], 1e-12);
        }
        let mut matrix = vec![vec![0; p.classes()]; p.classes()];
        found.confusion.iter().for_each(|&[label, predicted, n]| matrix[label][predicted] = n);
        assert_eq!(case["confusion"], serde_json::json!(matrix));
    }
}

#[test]
fn detection_of_other_images() {
    let case = &reference()["detection"];
    let [known, others] = ["known", "others"].map(|set| predictions(&case[set], case));
    let scores = [
        ("max_probability", [&known, &others].map(max_probability)),
        ("negative_energy", [&known, &others].map(negative_energy)),
    ];
    for (name, [known, others]) in scores {
        let found = detect(&known, &others, 0);
        close(name, found.auroc.mean, &case[name]["auroc"], 1e-12);
        close(name, found.fpr95.mean, &case[name]["fpr95"], 1e-12);
    }
}

#[test]
fn comparison_of_two_models() {
    let case = &reference()["comparison"];
    let [a, b] = ["a", "b"].map(|set| Scores::at(&predictions(&case[set], case), |_| 1.0));
    let found = compare([&a, &a], [&b, &b], 0, 20_000).unwrap();
    let nll = found.of("nll").unwrap();
    close("gain", nll.gain, &case["gain"], 1e-12);
    close("stderr", nll.gain_stderr.unwrap(), &case["gain_stderr"], 1e-12);
    // Quantiles of 20,000 draws are accurate to 2% of the standard error.
    let ends = nll.interval.unwrap().into_iter().zip(numbers(&case["interval"]));
    for (end, expected) in ends {
        let deviation = (end - expected).abs() / nll.gain_stderr.unwrap();
        println!("end of the interval {end:.5}, off by {deviation:.3} standard errors");
        assert!(deviation < 0.08, "{end} {expected}");
    }
    assert_eq!((case["only_a"].clone(), case["only_b"].clone()), {
        (found.mcnemar.only_a.into(), found.mcnemar.only_b.into())
    });
    close("p", found.mcnemar.p, &case["p"], 1e-11);
    for larger in case["larger"].as_array().unwrap() {
        let [a, b] = [0, 1].map(|i| larger[i].as_u64().unwrap() as usize);
        close("p", mcnemar(a, b).p, &larger[2], 1e-11);
    }
}
