//! Trace estimates are exact where possible, have the theoretical variance, and stop when more
//! probes would not help.

use crate::dense::{Dense, dot, hessian_like};
use planish::curvature::{hutch_plus_plus, hutchinson};

fn hutchinson_of(a: &Dense, max_probes: usize, seed: u64) -> hutchinson::HutchinsonTrace {
    hutchinson::trace(a, &hutchinson::HutchinsonSettings { tolerance: 0.0, max_probes, seed })
        .unwrap()
}

fn diagonal(values: &[f64]) -> Dense {
    let n = values.len();
    let mut a = Dense::new(values, 0);
    let unit = |i: usize| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<_>>();
    a.rows = (0..n).map(|i| unit(i).iter().map(|x| x * values[i]).collect()).collect();
    a.vectors = (0..n).map(unit).collect();
    a
}

#[test]
fn a_diagonal_matrix_has_no_error() {
    let a = diagonal(&[3.0, -1.0, 0.5, 8.0, 2.0, -4.0, 1.5, 0.0, 0.25]);
    let found = hutchinson_of(&a, 100, 0);
    assert_eq!((found.trace, found.stderr, found.half_width_95), (10.25, 0.0, 0.0));
    assert!(found.converged && found.probes == 8);
}

#[test]
fn a_matrix_smaller_than_the_first_round_of_probes_has_an_exact_trace() {
    let spectrum = [0.3, 0.24, -0.17, 0.0, 2.0, 2.0, -0.5, 0.1];
    for n in 1..=8 {
        let a = Dense::new(&spectrum[..n], 29);
        for block in [1, 3] {
            let a = Dense { block, ..a.clone() };
            let found = hutchinson_of(&a, 100, 0);
            assert!((found.trace - a.trace()).abs() < 1e-14, "{found:?}");
            assert_eq!((found.stderr, found.half_width_95, found.probes), (0.0, 0.0, n));
            assert!(found.converged);
        }
    }
    // Hutch++ takes two products for each vector of the sketch, and eight probes.
    for (n, exact) in [(1, true), (4, true), (20, true), (21, false)] {
        let a = Dense::new(&hessian_like(n.max(6))[..n], 30);
        let settings = hutch_plus_plus::HutchPlusPlusSettings { sketch: 6, ..Default::default() };
        let found = hutch_plus_plus::trace(&a, &settings).unwrap();
        assert_eq!((found.rank == n, found.probes == 0), (exact, exact), "{found:?}");
        if exact {
            assert!((found.trace - a.trace()).abs() < 1e-14 && found.stderr == 0.0, "{found:?}");
            assert!(found.converged && found.products == n);
        }
    }
}

#[test]
fn reported_error_matches_the_theoretical_variance() {
    let a = Dense::new(&hessian_like(60), 21);
    let off_diagonal = |i: usize, j: usize| if i == j { 0.0 } else { a.rows[i][j].powi(2) };
    let variance: f64 =
        2.0 * (0..60).map(|i| (0..60).map(|j| off_diagonal(i, j)).sum::<f64>()).sum::<f64>();
    let (seeds, probes) = (400, 16);
    let found: Vec<_> = (0..seeds).map(|seed| hutchinson_of(&a, probes, seed)).collect();
    let reported: f64 =
        found.iter().map(|t| t.stderr.powi(2)).sum::<f64>() / seeds as f64 * probes as f64;
    let actual: f64 = found.iter().map(|t| (t.trace - a.trace()).powi(2)).sum::<f64>()
        / seeds as f64
        * probes as f64;
    println!("variance of a probe {variance:.3}, reported {reported:.3}, over seeds {actual:.3}");
    // 6,400 probes whose forms have kurtosis below 6 give the variance to ±2.8% (one σ); 400 nearly
    // normal traces give it to ±7.1%. Four σ of each are allowed.
    assert!((reported / variance - 1.0).abs() < 0.12 && (actual / variance - 1.0).abs() < 0.29);
    let mean = found.iter().map(|t| t.trace).sum::<f64>() / seeds as f64;
    let error = (variance / (seeds as usize * probes) as f64).sqrt();
    assert!((mean - a.trace()).abs() < 4.0 * error);
}

#[test]
fn estimates_stop_at_the_tolerance() {
    let mut positive = hessian_like(60);
    positive.iter_mut().for_each(|l| *l = l.abs() + 1.0);
    let a = Dense::new(&positive, 22);
    for tolerance in [0.1, 0.02, 0.01] {
        let settings = hutchinson::HutchinsonSettings { tolerance, max_probes: 5000, seed: 1 };
        let found = hutchinson::trace(&a, &settings).unwrap();
        assert!(found.converged && found.stderr <= tolerance * found.trace, "{found:?}");
        assert!(found.probes >= 8 && found.probes < 5000);
        assert!((found.trace - a.trace()).abs() < 4.0 * found.stderr);
        let fewer = hutchinson::HutchinsonSettings { max_probes: found.probes - 8, ..settings };
        if found.probes > 8 {
            assert!(!hutchinson::trace(&a, &fewer).unwrap().converged);
        }
    }
}

#[test]
fn blocks_of_probes_do_not_change_results() {
    let a = Dense::new(&hessian_like(60), 23);
    let blocks = Dense { block: 4, ..a.clone() };
    assert_eq!(hutchinson_of(&a, 18, 3), hutchinson_of(&blocks, 18, 3));
    let settings = hutch_plus_plus::HutchPlusPlusSettings {
        sketch: 6,
        tolerance: 0.0,
        max_probes: 18,
        seed: 3,
    };
    let one = hutch_plus_plus::trace(&a, &settings).unwrap();
    assert_eq!(hutch_plus_plus::trace(&blocks, &settings).unwrap(), one);
    // The block size does not affect the stopping decision either.
    let settings =
        hutch_plus_plus::HutchPlusPlusSettings { tolerance: 0.08, max_probes: 500, ..settings };
    let one = hutch_plus_plus::trace(&a, &settings).unwrap();
    assert!(one.converged && (8..500).contains(&one.probes), "{one:?}");
    for block in [3, 5, 8, 16] {
        let blocks = Dense { block, ..a.clone() };
        assert_eq!(hutch_plus_plus::trace(&blocks, &settings).unwrap(), one, "{block}");
    }
}

#[test]
fn a_zero_trace_terminates() {
    let zero = Dense::new(&[0.0; 60], 24);
    let found = hutchinson_of(&zero, 100, 0);
    assert!(found.converged && found.probes == 8 && found.trace == 0.0 && found.stderr == 0.0);
    let plus = hutch_plus_plus::HutchPlusPlusSettings::default();
    let found = hutch_plus_plus::trace(&zero, &plus).unwrap();
    assert!(found.converged && found.rank == 0 && found.trace == 0.0, "{found:?}");

    let mut spectrum = vec![0.0; 60];
    spectrum[..2].copy_from_slice(&[1.0, -1.0]);
    let a = Dense::new(&spectrum, 25);
    let settings = hutchinson::HutchinsonSettings { tolerance: 1e-9, max_probes: 50, seed: 0 };
    let found = hutchinson::trace(&a, &settings).unwrap();
    assert!(!found.converged && found.probes == 50 && found.trace.abs() < 4.0 * found.stderr);
    // Hutch++ projects out both directions. Only rounding remains, and it reports convergence.
    let found = hutch_plus_plus::trace(&a, &plus).unwrap();
    assert!(found.converged && found.rank == 2 && found.trace.abs() < 1e-14, "{found:?}");
}

#[test]
fn hutch_plus_plus_is_exact_on_low_rank() {
    let mut spectrum = vec![0.0; 100];
    spectrum[..5].copy_from_slice(&[9.0, 5.0, 5.0, 1.0, -0.5]);
    for coarse in [false, true] {
        let a = Dense { coarse, ..Dense::new(&spectrum, 26) };
        let exact = if coarse { 2e-5 } else { 1e-12 };
        for sketch in [8, 20, 40] {
            let settings = hutch_plus_plus::HutchPlusPlusSettings { sketch, ..Default::default() };
            let found = hutch_plus_plus::trace(&a, &settings).unwrap();
            assert!(found.converged && found.rank == 5, "{found:?}");
            assert!((found.trace - 19.5).abs() < exact && found.stderr < exact, "{found:?}");
            assert_eq!(found.products, sketch + found.rank + found.probes);
        }
    }
}

#[test]
fn hutch_plus_plus_beats_hutchinson_on_low_rank_plus_small() {
    let mut spectrum: Vec<f64> = (0..100).map(|i| 0.05 * (i as f64).sin()).collect();
    spectrum[..6].copy_from_slice(&[50.0, 40.0, 30.0, 20.0, 10.0, -10.0]);
    let a = Dense::new(&spectrum, 28);
    let errors = |trace: &dyn Fn(u64) -> f64| {
        let e: Vec<f64> = (0..100).map(|seed| trace(seed) - a.trace()).collect();
        dot(&e, &e) / 100.0
    };
    let settings = |seed| hutch_plus_plus::HutchPlusPlusSettings {
        sketch: 12,
        tolerance: 0.0,
        max_probes: 12,
        seed,
    };
    let plus = |seed| {
        let found = hutch_plus_plus::trace(&a, &settings(seed)).unwrap();
        assert_eq!(found.products, 36);
        found.trace
    };
    let (plus, plain) = (errors(&plus), errors(&|seed| hutchinson_of(&a, 36, seed).trace));
    println!("36 products: squared error of Hutchinson {plain:.3e}, of Hutch++ {plus:.3e}");
    assert!(plus < plain / 1000.0);
}
