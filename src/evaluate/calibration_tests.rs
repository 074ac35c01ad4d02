use super::*;
use crate::random::{below, stream, unit};

fn scores(values: Vec<f64>, classes: usize, labels: &[u32]) -> (Predictions, Scores) {
    let p = Predictions::new(values, classes, labels).unwrap();
    let s = Scores::at(&p, |_| 1.0);
    (p, s)
}

/// Labels that follow softmax(z), logits that are 1.7 z.
fn sample(n: usize, classes: usize, seed: u64) -> Predictions {
    let mut rng = stream(seed, "calibration test");
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let z: Vec<f64> = (0..classes).map(|_| 4.0 * unit(&mut rng)).collect();
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        let mut remaining = total * unit(&mut rng);
        let label = z.iter().position(|z| {
            remaining -= z.exp();
            remaining < 0.0
        });
        labels.push(label.unwrap_or(classes - 1) as u32);
        values.extend(z.iter().map(|z| 1.7 * z));
    }
    Predictions::new(values, classes, &labels).unwrap()
}

#[test]
fn a_certain_prediction_is_calibrated_only_if_correct() {
    for (label, expected) in [(1, 0.0), (0, 1.0)] {
        let (p, s) = scores(vec![0.0, 900.0], 2, &[label]);
        let all = [ece_of(&s), ece(&p, 1.0), ece_equal_mass(&s), ece_class_wise(&p, |_| 1.0)];
        assert_eq!(all, [Estimate { mean: expected, stderr: None }; 4]);
        assert_eq!(reliability(&s)[BINS - 1].images, 1);
    }
}

#[test]
fn bins_match_a_hand_calculation() {
    // Two classes, p = 0.9 = 1/(1+e^-z): z = ln 9. Bin 13 holds [13/15, 14/15).
    // Three of four correct: |0.75 − 0.9|. Two at p = 0.6 (bin 9), one correct: |0.5 − 0.6|.
    let (a, b) = (9f64.ln(), 1.5f64.ln());
    let values = [a, a, a, a, b, b].iter().flat_map(|&z| [z, 0.0]).collect();
    let (p, s) = scores(values, 2, &[0, 0, 0, 1, 0, 1]);
    let bars = reliability(&s);
    let filled: Vec<usize> = (0..BINS).filter(|&i| bars[i].images > 0).collect();
    assert_eq!(filled[1], 13);
    let expected = (4.0 * 0.15 + 2.0 * 0.1) / 6.0;
    assert!((ece_of(&s).mean - expected).abs() < 1e-12);
    // Each image is its own bin and ties share their accuracy, so the sum is the same.
    assert!((ece_equal_mass(&s).mean - expected).abs() < 1e-12);
    // The probability of the other class is 0.1 or 0.4, with the same error.
    assert!((ece_class_wise(&p, |_| 1.0).mean - expected).abs() < 1e-12);
}

#[test]
fn a_class_without_images_contributes_its_mean_probability() {
    // Three classes at 1/3 each, two of them seen: |0.5 − 1/3| twice and 1/3.
    let (p, _) = scores(vec![0.0; 12], 3, &[0, 1, 0, 1]);
    let expected = (2.0 / 6.0 + 1.0 / 3.0) / 3.0;
    assert!((ece_class_wise(&p, |_| 1.0).mean - expected).abs() < 1e-15);
}

#[test]
fn the_order_of_images_does_not_matter() {
    // Rounded logits create many ties across the edges of equal-mass bins.
    let all = sample(100, 3, 5);
    let values: Vec<f64> = all.values().iter().map(|z| z.round()).collect();
    let all = Predictions::new(values, 3, all.labels()).unwrap();
    let backward: Vec<usize> = (0..100).rev().collect();
    let reversed = all.subset(&backward).unwrap();
    let of = |p: &Predictions| ece_equal_mass(&Scores::at(p, |_| 1.0)).mean;
    assert!((of(&all) - of(&reversed)).abs() < 1e-14);
}

#[test]
fn jackknife_leaves_out_one_image_and_agrees_with_the_bootstrap() {
    let all = sample(600, 4, 1);
    let class_wise = |p: &Predictions| ece_class_wise(p, |_| 1.0);
    let top = |p: &Predictions| ece(p, 1.0);
    let figures: [&dyn Fn(&Predictions) -> Estimate; 2] = [&top, &class_wise];
    for figure in figures {
        let found = figure(&all).stderr.unwrap();
        let without = |i| all.subset(&(0..600).filter(|&j| j != i).collect::<Vec<_>>()).unwrap();
        let naive: Vec<f64> = (0..600).map(|i| figure(&without(i)).mean).collect();
        let naive = jackknife::stderr(&naive).unwrap();
        assert!((found / naive - 1.0).abs() < 1e-9, "{found} {naive}");
        let mut rng = stream(2, "calibration bootstrap");
        let draws: Vec<f64> = (0..800)
            .map(|_| (0..600).map(|_| below(&mut rng, 600) as usize).collect::<Vec<_>>())
            .map(|images| figure(&all.subset(&images).unwrap()).mean)
            .collect();
        let mean = draws.iter().sum::<f64>() / 800.0;
        let spread = (draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 799.0).sqrt();
        println!("jackknife {found:.5}, bootstrap {spread:.5}");
        // The bootstrap smooths the kinks of |gap| at 0, so its spread is slightly smaller.
        assert!((found / spread - 1.0).abs() < 0.25, "{found} {spread}");
    }
}

#[test]
fn the_null_error_of_one_bin_is_that_of_a_mean() {
    // n predictions of confidence p in one bin: E|mean − p| is √(2p(1 − p)/(πn)) for large n.
    let (n, p) = (2500usize, 0.7f64);
    let values = [(p / (1.0 - p)).ln(), 0.0].repeat(n);
    let (_, s) = scores(values, 2, &vec![0; n]);
    let expected = (2.0 * p * (1.0 - p) / (std::f64::consts::PI * n as f64)).sqrt();
    // The standard error over 200 draws is 0.76 of the mean / √200, five per cent.
    let found = null_ece(&s, 3);
    assert!((found / expected - 1.0).abs() < 0.16, "{found} against {expected}");
    let (_, certain) = scores([900.0, 0.0].repeat(50), 2, &[0; 50]);
    assert_eq!(null_ece(&certain, 0), 0.0);
}

/// Against SciPy: `binomtest(k, n).proportion_ci(0.95, method="wilson")`.
#[test]
fn intervals_of_bins_are_wilsons() {
    let cases = [
        (2, 3, [0.207_659_600_802_047_82, 0.938_508_055_279_603_8]),
        (0, 5, [0.0, 0.434_482_464_783_174_76]),
        (190, 200, [0.910_421_851_861_224, 0.972_617_354_399_236_1]),
        (7, 7, [0.645_669_564_933_312_6, 1.0]),
    ];
    for (right, images, expected) in cases {
        let accuracy = f64::from(right) / f64::from(images);
        let bin = Bin { low: 0.0, high: 1.0, images: images as usize, confidence: 0.5, accuracy };
        for (found, expected) in bin.interval().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{right} of {images}: {found}");
        }
    }
}
