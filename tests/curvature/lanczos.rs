//! Lanczos finds what is there: both ends, vectors, repetitions.

use crate::dense::{Dense, dot, hessian_like};
use planish::curvature::lanczos::{Pair, Settings, eigenpairs};

fn settings(largest: usize, smallest: usize) -> Settings {
    let tolerance = 1e-10;
    Settings { largest, smallest, tolerance, vectors: true, ..Settings::default() }
}

fn values(pairs: &[Pair]) -> Vec<f64> {
    pairs.iter().map(|p| p.value).collect()
}

/// The difference from what is known, relative to ‖A‖: rounding alone.
fn assert_close(found: &[f64], truth: &[f64], norm: f64) {
    assert_eq!(found.len(), truth.len());
    for (f, t) in found.iter().zip(truth) {
        assert!((f - t).abs() <= 1e-13 * norm, "{found:?} against {truth:?}");
    }
}

#[test]
fn eigenvalues_and_vectors_at_both_ends() {
    for width in [1, 2, 5] {
        let a = Dense::new(&hessian_like(120), 1);
        let found = eigenpairs(&a, &Settings { width, ..settings(4, 2) }).unwrap();
        assert!(found.converged && found.basis < 120, "{found:?}");
        assert_eq!(found.products, found.basis + 6);
        assert_close(&values(&found.largest), &[9.0, 6.5, 4.0, 2.5], 9.0);
        assert_close(&values(&found.smallest), &[-1.5, -1.0], 9.0);
        for (i, pair) in found.largest.iter().chain(&found.smallest).enumerate() {
            let (y, q) = (pair.vector.as_ref().unwrap(), &a.vectors[i]);
            assert!((dot(y, y) - 1.0).abs() < 1e-14);
            assert!((dot(y, q).abs() - 1.0).abs() < 1e-12, "vector {i}");
            // The residual is what it says it is.
            let ay = a.product(y);
            let left: f64 = ay.iter().zip(y).map(|(ay, y)| (ay - pair.value * y).powi(2)).sum();
            assert!((left.sqrt() / 9.0 - pair.residual).abs() < 1e-15, "{pair:?}");
        }
        println!("width {width}: basis of {}", found.basis);
    }
}

#[test]
fn a_loose_tolerance_stops_early_and_its_residual_bounds_the_error() {
    for (seed, tolerance) in [(1, 1e-1), (2, 1e-2), (3, 1e-3)] {
        let a = Dense::new(&hessian_like(120), seed);
        let loose = Settings { tolerance, ..settings(3, 0) };
        let found = eigenpairs(&a, &loose).unwrap();
        let tight = eigenpairs(&a, &settings(3, 0)).unwrap();
        assert!(found.converged && found.basis < tight.basis);
        for pair in &found.largest {
            let nearest = a.values.iter().map(|l| (l - pair.value).abs()).fold(9.0, f64::min);
            // An eigenvalue lies within the residual, to rounding.
            assert!(nearest <= pair.residual * 9.0 + 1e-13, "{pair:?}");
        }
    }
}

#[test]
fn a_block_finds_repeated_eigenvalues_as_often_as_it_is_wide() {
    let mut spectrum = hessian_like(120);
    spectrum[..6].copy_from_slice(&[7.0, 7.0, 7.0, 3.0, -2.0, -2.0]);
    let a = Dense::new(&spectrum, 2);
    let found = eigenpairs(&a, &Settings { width: 3, ..settings(4, 2) }).unwrap();
    assert!(found.converged && found.starts == 1);
    assert_close(&values(&found.largest), &[7.0, 7.0, 7.0, 3.0], 7.0);
    assert_close(&values(&found.smallest), &[-2.0, -2.0], 7.0);
    let vector = |i: usize| found.largest[i].vector.as_ref().unwrap();
    assert!(dot(vector(0), vector(1)).abs() < 1e-12 && dot(vector(1), vector(2)).abs() < 1e-12);
}

#[test]
fn few_distinct_eigenvalues_are_found_with_all_repetitions() {
    let mut spectrum = vec![0.0; 60];
    spectrum[..4].fill(5.0);
    spectrum[4..10].fill(-2.0);
    spectrum[10..30].fill(1.0);
    for coarse in [false, true] {
        for width in [1, 2, 7] {
            let a = Dense { coarse, ..Dense::new(&spectrum, 3) };
            let tolerance = if coarse { 1e-5 } else { 1e-10 };
            let found = eigenpairs(&a, &Settings { width, tolerance, ..settings(6, 7) }).unwrap();
            assert!(found.converged && found.starts > 1, "{found:?}");
            let slack = if coarse { 1e8 } else { 1.0 };
            let large = [5.0, 5.0, 5.0, 5.0, 1.0, 1.0];
            assert_close(&values(&found.largest), &large, 5.0 * slack);
            let small = [-2.0, -2.0, -2.0, -2.0, -2.0, -2.0, 0.0];
            assert_close(&values(&found.smallest), &small, 5.0 * slack);
            println!("width {width}, f32 {coarse}: {} starts, {}", found.starts, found.basis);
        }
    }
}

#[test]
fn a_matrix_of_low_rank_takes_few_products() {
    let mut spectrum = vec![0.0; 150];
    spectrum[..3].copy_from_slice(&[4.0, 2.0, -1.0]);
    for coarse in [false, true] {
        let a = Dense { coarse, ..Dense::new(&spectrum, 4) };
        let tolerance = if coarse { 1e-5 } else { 1e-10 };
        let found = eigenpairs(&a, &Settings { tolerance, ..settings(3, 1) }).unwrap();
        assert!(found.converged && found.basis <= 10, "{found:?}");
        assert_close(&values(&found.largest), &[4.0, 2.0, 0.0], if coarse { 1e8 } else { 4.0 });
        assert_close(&values(&found.smallest), &[-1.0], if coarse { 1e8 } else { 4.0 });
    }
}
