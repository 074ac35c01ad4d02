//! Lanczos on known spectra: both ends and eigenvectors; and extreme cases: tiny matrices, extreme
//! scales, too few products, f32.

use crate::dense::{Dense, dot, hessian_like};
use planish::curvature::lanczos::{Eigenpair, LanczosSettings, bytes, eigenpairs};

fn settings(largest: usize, smallest: usize) -> LanczosSettings {
    let tolerance = 1e-10;
    LanczosSettings { largest, smallest, tolerance, vectors: true, ..LanczosSettings::default() }
}

fn values(pairs: &[Eigenpair]) -> Vec<f64> {
    pairs.iter().map(|p| p.value).collect()
}

/// Errors relative to ‖A‖ must be rounding only.
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
        let found = eigenpairs(&a, &LanczosSettings { width, ..settings(4, 2) }).unwrap();
        assert!(found.converged && found.basis < 100 && found.all.is_none(), "{found:?}");
        // The second run finds nothing.
        assert_eq!(found.starts, 2);
        assert_close(&values(&found.largest), &[9.0, 6.5, 4.0, 2.5], 9.0);
        assert_close(&values(&found.smallest), &[-1.5, -1.0], 9.0);
        for (i, pair) in found.largest.iter().chain(&found.smallest).enumerate() {
            let (y, q) = (pair.vector.as_ref().unwrap(), &a.vectors[i]);
            assert!((dot(y, y) - 1.0).abs() < 1e-14);
            assert!((dot(y, q).abs() - 1.0).abs() < 1e-12, "vector {i}");
            // The residual is the true residual.
            let ay = a.product(y);
            let remainder: f64 =
                ay.iter().zip(y).map(|(ay, y)| (ay - pair.value * y).powi(2)).sum();
            assert!((remainder.sqrt() / 9.0 - pair.residual).abs() < 1e-15, "{pair:?}");
        }
        println!("width {width}: basis of {}", found.basis);
    }
}

#[test]
fn a_loose_tolerance_stops_early_and_its_residual_bounds_the_error() {
    for (seed, tolerance) in [(1, 1e-1), (2, 1e-2), (3, 1e-3)] {
        let a = Dense::new(&hessian_like(120), seed);
        let loose = LanczosSettings { tolerance, ..settings(3, 0) };
        let found = eigenpairs(&a, &loose).unwrap();
        let tight = eigenpairs(&a, &settings(3, 0)).unwrap();
        assert!(found.converged && found.largest[2].residual > tight.largest[2].residual);
        for pair in &found.largest {
            let nearest = a.values.iter().map(|l| (l - pair.value).abs()).fold(9.0, f64::min);
            // An eigenvalue is within the residual, up to rounding.
            assert!(nearest <= pair.residual * 9.0 + 1e-13, "{pair:?}");
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
        let found = eigenpairs(&a, &LanczosSettings { tolerance, ..settings(3, 1) }).unwrap();
        assert!(found.converged && found.basis <= 10, "{found:?}");
        assert_close(&values(&found.largest), &[4.0, 2.0, 0.0], if coarse { 1e8 } else { 4.0 });
        assert_close(&values(&found.smallest), &[-1.0], if coarse { 1e8 } else { 4.0 });
    }
}

#[test]
fn small_matrices_give_all_eigenvalues() {
    let all =
        LanczosSettings { largest: 5, smallest: 5, tolerance: 1e-10, ..LanczosSettings::default() };
    let a = Dense::new(&hessian_like(60), 9);
    for (max_basis, exact) in [(60, true), (59, false)] {
        let found = eigenpairs(&a, &LanczosSettings { max_basis, ..all.clone() }).unwrap();
        assert_eq!(found.all.is_some(), exact, "{found:?}");
        if let Some(mut values) = found.all {
            assert_eq!((found.basis, found.starts, found.products), (60, 1, 70));
            values.reverse();
            assert_close(&values, &a.descending(), 9.0);
            assert!(found.largest.iter().chain(&found.smallest).all(|p| p.missing < 1e-14));
        }
    }
    for width in [1, 2, 9] {
        let settings = LanczosSettings { width, ..all.clone() };
        for spectrum in [&[-3.0][..], &[2.0, -1.0], &[4.0, 4.0, 4.0], &[1.0, 0.0, -1.0, 2.0]] {
            let a = Dense::new(spectrum, 5);
            let found = eigenpairs(&a, &settings).unwrap();
            assert!(found.converged && found.basis == spectrum.len(), "{found:?}");
            let mut truth = a.descending();
            for end in [&found.largest, &found.smallest] {
                assert_eq!(end.len(), truth.len());
                for (pair, t) in end.iter().zip(&truth) {
                    assert!((pair.value - t).abs() < 1e-14, "{found:?} against {truth:?}");
                }
                truth.reverse();
            }
        }
    }
}

#[test]
fn the_zero_matrix_has_converged_zeros() {
    for (n, width) in [(1, 1), (2, 3), (200, 1), (200, 4)] {
        let a = Dense::new(&vec![0.0; n], 6);
        let settings =
            LanczosSettings { largest: 3, smallest: 2, width, ..LanczosSettings::default() };
        let found = eigenpairs(&a, &settings).unwrap();
        assert!(found.converged && found.largest.len() == n.min(3), "{found:?}");
        let pairs = || found.largest.iter().chain(&found.smallest);
        assert!(pairs().all(|p| p.value == 0.0 && p.residual == 0.0 && p.missing == 0.0));
        assert!(found.basis <= 12, "{}", found.basis);
    }
}

#[test]
fn too_few_products_are_reported() {
    let a = Dense::new(&hessian_like(120), 7);
    for max_products in [1, 2, 5] {
        let settings = LanczosSettings {
            largest: 3,
            smallest: 0,
            tolerance: 1e-8,
            max_products,
            ..LanczosSettings::default()
        };
        let found = eigenpairs(&a, &settings).unwrap();
        assert_eq!((found.basis, found.converged), (max_products, false));
        assert_eq!(found.largest.len(), max_products.min(3));
        assert!(found.largest.iter().all(|p| !p.converged && p.residual > 1e-8));
    }
}

#[test]
fn f32_products_resolve_what_f32_can() {
    let a = Dense { coarse: true, ..Dense::new(&hessian_like(120), 8) };
    let settings = LanczosSettings { largest: 4, smallest: 2, ..LanczosSettings::default() };
    let found = eigenpairs(&a, &settings).unwrap();
    assert!(found.converged, "{found:?}");
    // With a tolerance below rounding it stops unconverged, as accurate as rounding allows.
    let found = eigenpairs(&a, &LanczosSettings { tolerance: 1e-12, ..settings }).unwrap();
    assert!(!found.converged && found.basis < 100, "{found:?}");
    for (pair, truth) in found.largest.iter().zip([9.0, 6.5, 4.0, 2.5]) {
        assert!((pair.value - truth).abs() < 1e-6, "{pair:?}");
        assert!(!pair.converged && pair.residual < 3e-7, "{pair:?}");
    }
}

#[test]
fn memory_forecast_is_exact() {
    let settings = LanczosSettings { max_basis: 50, width: 2, ..LanczosSettings::default() };
    // 52 basis vectors of 4 or 8 bytes per number, 8 work vectors, and two eigenvectors.
    assert_eq!(bytes(&settings, 1000, 1e-7, 1), 1000 * (52 * 4 + 10 * 8));
    assert_eq!(bytes(&settings, 1000, 1e-16, 1), 1000 * (52 * 8 + 10 * 8));
    // An operator with large blocks measures the residuals of sixteen pairs at once.
    assert_eq!(bytes(&settings, 1000, 1e-7, 16), 1000 * (52 * 4 + 18 * 8));
    let huge = LanczosSettings { max_basis: usize::MAX, ..settings };
    assert_eq!(bytes(&huge, usize::MAX, 1e-7, 1), u64::MAX);
}
