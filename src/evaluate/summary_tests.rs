use super::super::{losses, paired};
use super::*;

#[derive(Deserialize)]
struct Case {
    name: String,
    classes: usize,
    logits: Vec<f64>,
    labels: Vec<u32>,
    #[serde(flatten)]
    figures: serde_json::Value,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn predictions(case: &Case) -> Predictions {
    Predictions::new(case.logits.clone(), case.classes, &case.labels).unwrap()
}

#[test]
fn figures_agree_with_scipy() {
    let cases = cases();
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let p = predictions(case);
        let s = summarise(&p, Temperature::FittedOn(&p)).unwrap();
        let close = |name: &str, got: f64, tolerance: f64| {
            let expected = case.figures[name].as_f64().unwrap();
            let error = (got / expected - 1.0).abs();
            assert!(error < tolerance, "{} {name}: {got} ≠ {expected}", case.name);
        };
        close("nll", s.nll, 1e-12);
        close("nll_stderr", s.nll_stderr.unwrap(), 1e-12);
        close("top1", s.top1, 1e-12);
        close("top5", s.top5, 1e-12);
        close("ece", s.ece, 1e-12);
        // SciPy stops when the loss no longer changes in f64, which gives half the digits of T.
        close("temperature", s.temperature, 1e-6);
        close("calibrated_nll", s.calibrated_nll, 1e-12);
        close("calibrated_nll_stderr", s.calibrated_nll_stderr.unwrap(), 1e-6);
        close("calibrated_ece", s.calibrated_ece, 1e-6);
        let details = s.details.unwrap();
        close("brier", details.brier, 1e-12);
        assert!(!s.temperature_at_bound);
    }
}

#[test]
fn a_fitted_temperature_never_increases_the_loss_on_its_own_images() {
    for case in cases() {
        let p = predictions(&case);
        let fitted = fit(&p);
        let gain = paired(&losses(&p, 1.0), &losses(&p, fitted.temperature)).unwrap();
        assert!(gain.mean >= 0.0, "{}: {gain:?}", case.name);
    }
}

#[test]
fn each_half_uses_the_temperature_of_the_other_half() {
    let p = predictions(&cases()[0]);
    let first: Vec<usize> = (0..p.images()).step_by(2).collect();
    let second: Vec<usize> = (1..p.images()).step_by(2).collect();
    let s = summarise(&p, Temperature::CrossFitted(&first)).unwrap();
    let [a, b] = [&first, &second].map(|half| p.subset(half).unwrap());
    let crossed = [losses(&a, fit(&b).temperature), losses(&b, fit(&a).temperature)].concat();
    assert!((s.calibrated_nll - mean_stderr(&crossed).mean).abs() < 1e-12);
    assert_eq!(s.temperature, fit(&p).temperature);
    let in_sample = summarise(&p, Temperature::FittedOn(&p)).unwrap();
    assert!(s.calibrated_nll > in_sample.calibrated_nll);
}

#[test]
fn the_temperature_reported_is_the_one_used() {
    // Ten images of each class, all with the logits (4, 0, 0, 0). This is no better than guessing,
    // so the loss decreases towards log 4 as T grows.
    let labels: Vec<u32> = (0..40).map(|i| i % 4).collect();
    let p = Predictions::new([4.0, 0.0, 0.0, 0.0].repeat(40), 4, &labels).unwrap();
    let first: Vec<usize> = (0..20).collect();
    for from in [Temperature::FittedOn(&p), Temperature::CrossFitted(&first)] {
        let chosen = Temperatures::of(&p, from).unwrap();
        let s = summarise_at(&p, &chosen);
        assert_eq!(s.temperature_bound, Some(Bound::Guessing));
        assert!((s.calibrated_nll - 4f64.ln()).abs() < 1e-5, "{s:?}");
        assert!((s.calibrated_nll - mean_stderr(&losses(&p, s.temperature)).mean).abs() < 1e-12);
        assert!((0..40).all(|image| chosen.at(image) == s.temperature));
        let halves = [s.temperature_of_first_half, s.temperature_of_second_half];
        let expected = matches!(from, Temperature::CrossFitted(_)).then_some(s.temperature);
        assert_eq!(halves, [expected; 2]);
    }
}

#[test]
fn a_single_image_and_perfect_accuracy() {
    let one = Predictions::new(vec![1.0, 0.0], 2, &[0]).unwrap();
    let s = summarise(&one, Temperature::FittedOn(&one)).unwrap();
    assert_eq!((s.images, s.top1, s.top5, s.nll_stderr), (1, 1.0, 1.0, None));
    // Nothing can be fitted, so nothing is scaled.
    assert_eq!((s.temperature, s.temperature_bound), (1.0, Some(Bound::AllRight)));
    assert!(s.temperature_at_bound && s.calibrated_nll == s.nll);
    assert!(serde_json::to_value(&s).unwrap()["nll_stderr"].is_null());
    let single = summarise(&one, Temperature::CrossFitted(&[0])).unwrap();
    assert_eq!((single.temperature, single.calibrated_nll), (1.0, s.nll));
    assert_eq!(single.temperature_bound, Some(Bound::Unfitted));
    let d = single.details.unwrap();
    assert_eq!((d.ece_stderr, d.aurc, d.aurc_stderr, d.absent_classes), (None, 0.0, None, 1));
    let two = Predictions::new(vec![1.0, 0.0, 1.0, 0.0], 2, &[0, 0]).unwrap();
    let empty = summarise(&two, Temperature::CrossFitted(&[0, 1]));
    assert_eq!(empty, Err(crate::predictions::Error::NoImages.into()));
    let correct = summarise(&two, Temperature::FittedOn(&two)).unwrap();
    assert_eq!((correct.top1_stderr, correct.details.unwrap().aurc_stderr), (Some(0.0), Some(0.0)));
}
