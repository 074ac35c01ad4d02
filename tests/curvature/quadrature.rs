//! Stochastic Lanczos quadrature: the Gauss rule, its density, and degenerate matrices.

use crate::dense::{Dense, hessian_like};
use planish::curvature::quadrature::{
    GaussRule, Quadrature, QuadratureSettings, bytes, quadrature,
};

/// Uses exactly `max_probes` probes.
fn fixed(max_probes: usize, steps: usize, together: usize) -> QuadratureSettings {
    QuadratureSettings {
        tolerance: 0.0,
        max_probes,
        steps,
        together,
        seed: 5,
        ..Default::default()
    }
}

fn slq(a: &Dense, probes: usize, steps: usize, together: usize) -> Quadrature {
    quadrature(a, &fixed(probes, steps, together)).unwrap()
}

fn moment(rule: &GaussRule, power: i32) -> f64 {
    rule.nodes.iter().zip(&rule.weights).map(|(x, w)| w * x.powi(power)).sum()
}

#[test]
fn a_rule_of_m_steps_is_exact_to_degree_two_m_minus_one() {
    let a = Dense::new(&hessian_like(50), 41);
    // With all steps the rule is exact; the same seed gives the same probes.
    let (exact, short) = (slq(&a, 3, 50, 1), slq(&a, 3, 4, 1));
    assert_eq!((exact.products, short.products), (150, 12));
    for (exact, short) in exact.rules.iter().zip(&short.rules) {
        assert_eq!(short.nodes.len(), 4);
        for power in 0..8 {
            let error = moment(exact, power) - moment(short, power);
            assert!(error.abs() < 1e-12 * 9.0_f64.powi(power), "degree {power}: {error:e}");
        }
        let error = moment(exact, 8) - moment(short, 8);
        assert!(error > 1e-9 * 9.0_f64.powi(8), "the rule is not exact at degree 8: {error:e}");
    }
}

#[test]
fn known_eigenvalues_give_an_exact_density() {
    let spectrum = [2.0, 2.0, 0.5, 0.0, -1.0];
    let found = Quadrature::of_eigenvalues(&spectrum, f64::EPSILON);
    assert!(found.exact && found.converged && (found.error, found.products) == (0.0, 0));
    let squares = found.function(|x| x * x);
    assert_eq!((squares.stderr, squares.half_width_95), (0.0, 0.0));
    assert!((squares.value - 9.25).abs() < 1e-14);
    assert!((found.mass_below_zero().value - 0.2).abs() < 1e-15);
    let density = found.density(50, 0.1).unwrap();
    let sigma = 0.3;
    for (x, d) in density.grid.iter().zip(&density.density) {
        let bell = |l: &f64| (-0.5 * ((x - l) / sigma).powi(2)).exp();
        let sum: f64 = spectrum.iter().map(bell).sum();
        let expected = sum / (5.0 * sigma * (2.0 * std::f64::consts::PI).sqrt());
        assert!((d - expected).abs() < 1e-14, "{d} {expected}");
    }
    assert!(density.stderr.iter().all(|e| *e == 0.0));
}

#[test]
fn blocks_of_probes_match_single_probes() {
    let a = Dense::new(&hessian_like(50), 42);
    let one = slq(&a, 5, 20, 1);
    for together in [2, 5, 9] {
        assert_eq!(slq(&Dense { block: 3, ..a.clone() }, 5, 20, together), one);
    }
}

#[test]
fn the_density_integrates_to_one_and_follows_the_spectrum() {
    let a = Dense::new(&hessian_like(80), 43);
    let found = slq(&a, 60, 40, 1);
    let (low, high) = found.range();
    assert!((low + 1.5).abs() < 1e-10 && (high - 9.0).abs() < 1e-10);
    let density = found.density(2000, 0.02).unwrap();
    let sigma = density.sigma;
    assert!((sigma - 0.02 * 10.5).abs() < 1e-10);
    let spacing = density.grid[1] - density.grid[0];
    let integral: f64 = density.density.iter().sum::<f64>() * spacing;
    // The grid ends three σ beyond the nodes, where 0.13% of an end node's mass is cut off. An end
    // node has a few per cent of the mass.
    assert!((integral - 1.0).abs() < 1e-4, "{integral}");
    let bell = |x: f64, l: f64| {
        (-0.5 * ((x - l) / sigma).powi(2)).exp() / (sigma * (2.0 * std::f64::consts::PI).sqrt())
    };
    let true_density = |x: f64| a.values.iter().map(|&l| bell(x, l)).sum::<f64>() / 80.0;
    let distance: f64 = density
        .grid
        .iter()
        .zip(&density.density)
        .map(|(&x, d)| (d - true_density(x)).abs() * spacing)
        .sum();
    let expected: f64 = density.stderr.iter().sum::<f64>() * spacing;
    println!("∫|density − truth| = {distance:.4}, ∫ standard error = {expected:.4}");
    // The mean of |normal| is 0.8 σ. Neighbouring points are correlated, hence the wide bounds.
    assert!(distance < 2.0 * expected && distance > 0.2 * expected && expected < 0.1);
}

#[test]
fn probes_stop_at_the_requested_error() {
    let a = Dense::new(&hessian_like(80), 47);
    let until = |tolerance, max_probes| {
        let settings = QuadratureSettings { tolerance, width: 0.02, max_probes, ..fixed(0, 40, 1) };
        quadrature(&a, &settings).unwrap()
    };
    let (coarse, fine, short) = (until(0.08, 400), until(0.02, 400), until(0.01, 20));
    let probes = [&coarse, &fine, &short].map(|q| q.rules.len());
    println!("{probes:?} probes, errors {} {} {}", coarse.error, fine.error, short.error);
    assert!(coarse.converged && coarse.error <= 0.08 && fine.converged && fine.error <= 0.02);
    assert!(!short.converged && short.error > 0.01 && probes[2] == 20);
    assert!(probes[0] < probes[1] && probes[1] < 400 && probes[1] % 8 == 0);
    // Errors decrease as 1/√probes; both runs draw the same probes.
    assert_eq!(coarse.rules[..], fine.rules[..probes[0]]);
    let (ratio, expected) =
        (coarse.error / fine.error, (probes[1] as f64 / probes[0] as f64).sqrt());
    assert!((ratio / expected - 1.0).abs() < 0.2, "{ratio} {expected}");
    // The reported error is the sum of the density's own errors.
    let density = fine.density(3000, 0.02).unwrap();
    let sum = density.stderr.iter().sum::<f64>() * (density.grid[1] - density.grid[0]);
    assert!((fine.error / sum - 1.0).abs() < 1e-3, "{} {sum}", fine.error);
}

#[test]
fn probes_that_agree_to_rounding_are_enough() {
    for (value, coarse) in [(-7.0, false), (1e-9, true), (0.0, false)] {
        let a = Dense { coarse, ..Dense::new(&[value; 30], 48) };
        let found = slq(&a, 100, 10, 1);
        assert!(found.converged, "{value}: {:e}", found.error);
        assert_eq!(found.rules.len(), 8, "{value}: {:e}", found.error);
    }
}

#[test]
fn rounding_does_not_count_as_negative_mass() {
    let mut spectrum = vec![0.0; 50];
    spectrum[..5].copy_from_slice(&[9.0, 5.0, 3.0, 1.0, 0.5]);
    for coarse in [false, true] {
        let mut a = Dense { coarse, ..Dense::new(&spectrum, 44) };
        let found = slq(&a, 10, 30, 1);
        let mass = found.mass_below_zero();
        assert_eq!((mass.value, mass.stderr), (0.0, 0.0));
        a.rows.iter_mut().flatten().for_each(|a| *a = -*a);
        let mass = slq(&a, 10, 30, 1).mass_below_zero();
        assert!((mass.value - 0.1).abs() < 4.0 * mass.stderr && mass.stderr > 0.0, "{mass:?}");
    }
}

#[test]
fn the_zero_matrix_and_multiples_of_the_identity() {
    for n in [1, 30] {
        let zero = slq(&Dense::new(&vec![0.0; n], 45), 3, 10, 1);
        assert!(zero.rules.iter().all(|r| r.nodes == [0.0] && r.weights == [1.0]));
        assert_eq!(zero.products, 3);
        let density = zero.density(100, 0.01).unwrap();
        assert!(density.grid.is_empty() && density.sigma == 0.0);
        assert_eq!(zero.function(|x| x + 1.0).value, n as f64);
        assert_eq!(zero.mass_below_zero().value, 0.0);

        let same = slq(&Dense::new(&vec![-7.0; n], 46), 3, 10, 1);
        let density = same.density(101, 0.01).unwrap();
        assert!((density.sigma - 0.07).abs() < 1e-12 && (density.grid[50] + 7.0).abs() < 1e-12);
        let peak = 1.0 / (0.07 * (2.0 * std::f64::consts::PI).sqrt());
        assert!((density.density[50] - peak).abs() < 1e-9 * peak);
        assert_eq!(same.mass_below_zero().value, 1.0);
    }
}

#[test]
fn memory_forecast_is_exact() {
    let settings = fixed(10, 60, 2);
    assert_eq!(bytes(&settings, 1000, 1e-7), 2 * 1000 * (61 * 4 + 24));
    assert_eq!(bytes(&settings, 10, 1e-16), 2 * 10 * (10 * 8 + 24));
}
