//! Lanczos at its limits: tiny matrices, no scale, no more products, f32.

use crate::dense::{Dense, hessian_like};
use planish::curvature::lanczos::{Settings, bytes, eigenpairs};

#[test]
fn small_matrices_give_all_they_have() {
    let all = Settings { largest: 5, smallest: 5, tolerance: 1e-10, ..Settings::default() };
    for width in [1, 2, 9] {
        let settings = Settings { width, ..all.clone() };
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
    for (n, width) in [(1, 1), (2, 3), (40, 1), (40, 4)] {
        let a = Dense::new(&vec![0.0; n], 6);
        let settings = Settings { largest: 3, smallest: 2, width, ..Settings::default() };
        let found = eigenpairs(&a, &settings).unwrap();
        assert!(found.converged && found.largest.len() == n.min(3), "{found:?}");
        let pairs = || found.largest.iter().chain(&found.smallest);
        assert!(pairs().all(|p| p.value == 0.0 && p.residual == 0.0 && p.converged));
        assert!(found.basis <= 12, "{}", found.basis);
    }
}

#[test]
fn too_few_products_are_said_to_be() {
    let a = Dense::new(&hessian_like(120), 7);
    for max_products in [1, 2, 5] {
        let settings = Settings {
            largest: 3,
            smallest: 0,
            tolerance: 1e-8,
            max_products,
            ..Settings::default()
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
    let settings = Settings { largest: 4, smallest: 2, ..Settings::default() };
    let found = eigenpairs(&a, &settings).unwrap();
    assert!(found.converged, "{found:?}");
    // Beyond rounding: it stops, says so, and is as good as rounding lets it be.
    let found = eigenpairs(&a, &Settings { tolerance: 1e-12, ..settings }).unwrap();
    assert!(!found.converged && found.basis < 100, "{found:?}");
    for (pair, truth) in found.largest.iter().zip([9.0, 6.5, 4.0, 2.5]) {
        assert!((pair.value - truth).abs() < 1e-6, "{pair:?}");
        assert!(!pair.converged && pair.residual < 3e-7, "{pair:?}");
    }
}

#[test]
fn memory_is_told_beforehand() {
    let settings = Settings { max_products: 50, width: 2, ..Settings::default() };
    // 52 basis vectors of 4 or 8 bytes a number, and 8 vectors in work.
    assert_eq!(bytes(&settings, 1000, 1e-7, 1), 1000 * (52 * 4 + 8 * 8));
    assert_eq!(bytes(&settings, 1000, 1e-16, 1), 1000 * (52 * 8 + 8 * 8));
    // A wide operator measures the residuals of eight pairs at once.
    assert_eq!(bytes(&settings, 1000, 1e-7, 8), 1000 * (52 * 4 + 16 * 8));
    let kept = Settings { vectors: true, largest: 3, smallest: 0, ..settings.clone() };
    assert_eq!(bytes(&kept, 1000, 1e-7, 1), 1000 * (52 * 4 + 11 * 8));
    let absurd = Settings { max_products: usize::MAX, ..settings };
    assert_eq!(bytes(&absurd, usize::MAX, 1e-7, 1), u64::MAX);
}
