//! Calibration of error bars: over many seeds, reported 95% intervals cover the truth 95% of the
//! time.

use crate::dense::{Dense, hessian_like};
use planish::curvature::{hutch_plus_plus, hutchinson, quadrature};

const SEEDS: u64 = 400;

/// A function of eigenvalues.
type Named = (&'static str, fn(f64) -> f64);

/// An estimate, its standard error, and half of its 95% interval.
type Interval = (f64, f64, f64);

/// The number of covering intervals out of 400 at 95% is binomial: mean 380, σ = √(400 · 0.95 ·
/// 0.05) = 4.36. Three σ: 367 to 393. With t₁₅ = 2.131, errors understated by a factor of 1.5 would
/// cover P(|t₁₅| < 1.42) = 82%, or 330, which fails. Overstated ones would cover 99.4%, which is
/// too close to 393. So the ratio of actual to reported variance is bounded too: for 400 nearly
/// normal estimates it has σ = √(2/400) = 7.1%, and four σ are allowed. A factor of 1.5 makes the
/// ratio 0.44 or 2.25.
fn assert_calibrated(name: &str, interval: impl Fn(u64) -> Interval, truth: f64) {
    let (covered, ratio) = covered(interval, truth);
    println!("{name}: {covered} of {SEEDS} cover, actual / reported variance {ratio:.3}");
    assert!((367..=393).contains(&covered), "{name}: {covered}");
    assert!((ratio - 1.0).abs() < 0.29, "{name}: {ratio}");
}

/// The number of intervals that contain the truth, and the ratio of actual to reported variance.
fn covered(interval: impl Fn(u64) -> Interval, truth: f64) -> (usize, f64) {
    let (mut covered, mut actual, mut reported) = (0, 0.0, 0.0);
    for (value, stderr, half) in (0..SEEDS).map(interval) {
        covered += usize::from((value - truth).abs() <= half);
        actual += (value - truth).powi(2);
        reported += stderr.powi(2);
    }
    (covered, actual / reported)
}

fn hutchinson_interval(a: &Dense, max_probes: usize) -> impl Fn(u64) -> Interval {
    move |seed| {
        let settings = hutchinson::HutchinsonSettings { tolerance: 0.0, max_probes, seed };
        let found = hutchinson::trace(a, &settings).unwrap();
        (found.trace, found.stderr, found.half_width_95)
    }
}

#[test]
fn hutchinson_covers() {
    let even: Vec<f64> = (0..60).map(|i| -1.0 + 0.05 * i as f64).collect();
    for (spectrum, max_probes) in [(hessian_like(60), 16), (even.clone(), 16), (even, 9)] {
        let a = Dense::new(&spectrum, 31);
        let name = format!("Hutchinson, {max_probes} probes");
        assert_calibrated(&name, hutchinson_interval(&a, max_probes), a.trace());
    }
}

/// A single eigenvalue: the forms are χ²₁, and intervals from 16 of them cover less, as documented.
#[test]
fn a_single_eigenvalue_skews_the_forms() {
    let mut spectrum = vec![0.0; 60];
    spectrum[0] = 3.0;
    let a = Dense::new(&spectrum, 37);
    let (covered, _) = covered(hutchinson_interval(&a, 16), 3.0);
    println!("rank one: {covered} of {SEEDS} cover");
    assert!((340..367).contains(&covered), "{covered}");
}

#[test]
fn hutch_plus_plus_covers() {
    let a = Dense::new(&hessian_like(60), 33);
    for sketch in [0, 4, 12] {
        let interval = |seed| {
            let settings = hutch_plus_plus::HutchPlusPlusSettings {
                sketch,
                tolerance: 0.0,
                max_probes: 16,
                seed,
            };
            let found = hutch_plus_plus::trace(&a, &settings).unwrap();
            (found.trace, found.stderr, found.half_width_95)
        };
        assert_calibrated(&format!("Hutch++, sketch of {sketch}"), interval, a.trace());
    }
}

/// Stopping on the estimated error costs some coverage, as documented.
#[test]
fn stopping_early_costs_little_coverage() {
    let mut positive = hessian_like(60);
    positive.iter_mut().for_each(|l| *l = l.abs() + 0.2);
    let a = Dense::new(&positive, 34);
    let interval = |seed| {
        let settings = hutchinson::HutchinsonSettings { tolerance: 0.08, max_probes: 1000, seed };
        let found = hutchinson::trace(&a, &settings).unwrap();
        assert!(found.converged);
        (found.trace, found.stderr, found.half_width_95)
    };
    let (covered, _) = covered(interval, a.trace());
    println!("Hutchinson stopped at 8%: {covered} of {SEEDS} intervals cover");
    // At least 85%, minus three binomial σ (21).
    assert!(covered >= 340 - 21, "{covered}");
}

/// The settings of `diagnose --spectrum` on a matrix like a layer's Hessian: a few large
/// eigenvalues of either sign and many small ones.
#[test]
fn diagnosis_settings_cover() {
    let a = Dense::new(&hessian_like(200), 38);
    let trace = |seed| {
        let settings = hutch_plus_plus::HutchPlusPlusSettings {
            sketch: 6,
            tolerance: 0.1,
            max_probes: 40,
            seed,
        };
        let found = hutch_plus_plus::trace(&a, &settings).unwrap();
        (found.trace, found.stderr, found.half_width_95)
    };
    let (covered_trace, _) = covered(trace, a.trace());
    let all: Vec<quadrature::Quadrature> = (0..SEEDS)
        .map(|seed| {
            let settings = quadrature::QuadratureSettings {
                tolerance: 0.05,
                width: 0.01,
                max_probes: 24,
                steps: 24,
                together: 4,
                seed,
            };
            quadrature::quadrature(&a, &settings).unwrap()
        })
        .collect();
    let squares = |seed: u64| {
        let found = all[seed as usize].function(|x| x * x);
        (found.value, found.stderr, found.half_width_95)
    };
    let (covered_squares, _) = covered(squares, a.values.iter().map(|l| l * l).sum());
    let probes: usize = all.iter().map(|q| q.rules.len()).sum();
    println!(
        "of {SEEDS} intervals {covered_trace} cover the trace, {covered_squares} the sum of \
         squares; {:.1} probes of Lanczos on average",
        probes as f64 / SEEDS as f64
    );
    // As above: at least 85%, minus three binomial σ.
    assert!(covered_trace >= 340 - 21 && covered_squares >= 340 - 21);
}

fn slq(a: &Dense, steps: usize, seed: u64) -> quadrature::Quadrature {
    let settings = quadrature::QuadratureSettings {
        tolerance: 0.0,
        max_probes: 16,
        steps,
        together: 4,
        seed,
        ..Default::default()
    };
    quadrature::quadrature(a, &settings).unwrap()
}

#[test]
fn functions_of_the_spectrum_are_covered() {
    let a = Dense::new(&hessian_like(40), 35);
    let all: Vec<quadrature::Quadrature> = (0..SEEDS).map(|seed| slq(&a, 25, seed)).collect();
    let functions: [Named; 4] = [
        ("Σ λ", |x| x),
        ("Σ λ²", |x| x * x),
        ("Σ exp(-λ²)", |x| (-x * x).exp()),
        ("effective dimension Σ λ²/(λ²+1)", |x| x * x / (x * x + 1.0)),
    ];
    for (name, f) in functions {
        let truth = a.values.iter().map(|&l| f(l)).sum();
        let interval = |seed: u64| {
            let found = all[seed as usize].function(f);
            (found.value, found.stderr, found.half_width_95)
        };
        assert_calibrated(name, interval, truth);
    }
}

#[test]
fn densities_and_negative_mass_are_covered() {
    // Evenly spaced eigenvalues from -1 to 2. Many of them contribute to the density at each point,
    // so the mean over probes is nearly normal, as the interval assumes.
    let n = 42;
    let spectrum: Vec<f64> = (0..n).map(|i| -1.0 + 3.0 * (i as f64 + 0.5) / n as f64).collect();
    let a = Dense::new(&spectrum, 36);
    let all: Vec<quadrature::Quadrature> = (0..SEEDS).map(|seed| slq(&a, n, seed)).collect();
    let interval = |seed: u64| {
        let found = all[seed as usize].mass_below_zero();
        (found.value, found.stderr, found.half_width_95)
    };
    assert_calibrated("mass below zero", interval, 14.0 / 42.0);

    // With all n steps the rule is exact and spans the spectrum, so all densities have the same
    // grid.
    let densities: Vec<quadrature::Density> =
        all.iter().map(|q| q.density(30, 0.08).unwrap()).collect();
    let (first, t) = (&densities[0], planish::curvature::student_95(15));
    for i in (5..25).step_by(4) {
        let x = first.grid[i];
        let bell = |l: &f64| {
            let z = (x - l) / first.sigma;
            (-0.5 * z * z).exp() / (first.sigma * (2.0 * std::f64::consts::PI).sqrt())
        };
        let truth = spectrum.iter().map(bell).sum::<f64>() / n as f64;
        let interval = |seed: u64| {
            let d = &densities[seed as usize];
            assert!((d.grid[i] - x).abs() < 1e-10);
            (d.density[i], d.stderr[i], t * d.stderr[i])
        };
        assert_calibrated(&format!("density at {x:.2}"), interval, truth);
    }
}

#[test]
fn student_quantiles_match_tables() {
    let table = [
        (1, 12.706),
        (2, 4.303),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (60, 2.000),
        (120, 1.980),
        (100_000_000, 1.960),
    ];
    for (freedom, t) in table {
        let found = planish::curvature::student_95(freedom);
        assert!((found - t).abs() < 0.0011, "{freedom}: {found} against {t}");
    }
    assert_eq!(planish::curvature::student_95(0), f64::INFINITY);
}
