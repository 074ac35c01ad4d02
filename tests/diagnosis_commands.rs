//! Optional measurements of `diagnose`.

#[allow(dead_code)]
mod common;

use common::Bench;
use serde_json::Value;

fn diagnosis(bench: &Bench, name: &str, words: &[&str]) -> (Value, String) {
    on_threads("2", bench, name, words)
}

fn on_threads(threads: &str, bench: &Bench, name: &str, words: &[&str]) -> (Value, String) {
    let all = ["diagnose", &bench.model, "--data", &bench.data, "--json", name];
    let run = bench.plain(&[&all[..], words, &["--threads", threads]].concat());
    assert!(run.success, "{}", run.errors);
    (bench.json(name), run.output)
}

#[test]
fn spectra_are_reproducible_for_any_number_of_threads() {
    let bench = Bench::with_model();
    let words = ["--layer", "norm,head", "--density", "--operator", "ggn", "--eigenvalues", "2"];
    let (mut a, text) = diagnosis(&bench, "a.json", &words);
    let (mut b, _) = on_threads("1", &bench, "b.json", &words);
    for report in [&mut a, &mut b] {
        report.as_object_mut().unwrap().remove("run");
    }
    assert_eq!(a.to_string(), b.to_string());
    assert!(text.contains("λ_max") && text.contains("Gauss-Newton"), "{text}");
    for layer in a["layers"].as_array().unwrap() {
        let spectra = layer["spectra"].as_array().unwrap();
        assert_eq!([&spectra[0]["matrix"], &spectra[1]["matrix"]], ["hessian", "gauss_newton"]);
        for spectrum in spectra {
            assert_eq!(spectrum["largest"].as_array().unwrap().len(), 2);
            assert!(spectrum["trace"]["stderr"].is_number(), "{spectrum}");
            assert_eq!(spectrum["density"]["grid"].as_array().unwrap().len(), 201);
        }
        // The logits are linear in both layers, so both matrices are equal.
        let top = |i: usize| spectra[i]["largest"][0]["value"].as_f64().unwrap();
        assert!((top(0) / top(1) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn subsets_of_v_are_measured_before_all_of_v() {
    let bench = Bench::with_model();
    let words = ["--layer", "norm,head", "--convergence", "--spectrum"];
    let (report, text) = diagnosis(&bench, "c.json", &words);
    let parts = report["convergence"].as_array().unwrap();
    let images: Vec<u64> = parts.iter().map(|p| p["images"].as_u64().unwrap()).collect();
    let all = report["data"]["images"].as_u64().unwrap();
    assert_eq!(images.last(), Some(&all));
    assert!(images.len() > 1 && images.is_sorted(), "{images:?}");
    let last = &parts.last().unwrap()["layers"][1];
    assert_eq!(last["delta_l_nats"]["value"], report["layers"][1]["delta_l_nats"]["cross_fit"]);
    assert_eq!(
        last["largest_eigenvalue"]["value"],
        report["layers"][1]["spectra"][0]["largest"][0]["value"]
    );
    for title in ["ΔL cross-fit", "κ cross-fit", "λ_max"] {
        assert!(text.contains(title), "{text}");
    }

    let (report, text) = diagnosis(&bench, "u.json", &["--layer", "head", "--until-stderr", "5%"]);
    let sampling = &report["sampling"];
    assert_eq!((&sampling["until_stderr"], &sampling["images"]), (&0.05.into(), &all.into()));
    assert_eq!(sampling["decided"], false, "40 images do not determine any layer to 5%");
    assert!(text.contains("images were used"), "{text}");
}

#[test]
fn newton_steps_are_reported() {
    let bench = Bench::with_model();
    // ‖w‖ of the head is then the same in every half.
    let basis = ["--basis", "raw"];
    let words = ["--layer", "block.5,head", "--estimator", "newton", "--radius", "0.05"];
    let (report, _) = diagnosis(&bench, "n.json", &[&basis[..], &words].concat());
    assert_eq!(report["basis"], "raw");
    for layer in report["layers"].as_array().unwrap() {
        let length = layer["newton"]["length"].as_f64().unwrap();
        let most = 0.05 * layer["weight_norm"].as_f64().unwrap();
        assert!(length > 0.0 && length <= most * 1.0001, "{length} {most}");
    }
    let wrong = |words: &[&str], part: &str| {
        let all = [&["diagnose", &bench.model, "--data", &bench.data], words].concat();
        let run = bench.run(&all);
        assert!(!run.success && run.errors.contains(part), "{}", run.errors);
    };
    wrong(&["--radius", "2", "--estimator", "newton"], "at most 1");
    wrong(&["--until-stderr", "5"], "5%");
    wrong(&["--until-stderr", "5%", "--convergence"], "cannot be used");
    wrong(&["--eigenvalues", "0", "--spectrum"], "expected 1 to 20, found 0");
    wrong(&["--radius", "0.1"], "--estimator newton");
    wrong(&["--operator", "ggn"], "--spectrum");
}
