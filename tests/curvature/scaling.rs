//! There are no absolute scales: scaling A by a power of two gives the same decisions and scales
//! every result exactly.

use crate::dense::{Dense, hessian_like};
use planish::curvature::{hutch_plus_plus, hutchinson, lanczos, quadrature, steihaug};

/// About 1e-9, 1e9, 1e-60 and 1e60.
fn factors() -> [f64; 4] {
    [-30, 30, -200, 200].map(|power| 2.0_f64.powi(power))
}

fn matrices() -> Vec<Dense> {
    let mut low_rank = vec![0.0; 40];
    low_rank[..3].copy_from_slice(&[4.0, 4.0, -1.0]);
    let mut matrices = vec![Dense::new(&hessian_like(60), 11), Dense::new(&low_rank, 12)];
    matrices.push(Dense { coarse: true, ..matrices[0].clone() });
    matrices
}

#[test]
fn eigenpairs_scale() {
    for a in matrices() {
        let settings = lanczos::LanczosSettings {
            largest: 3,
            smallest: 2,
            tolerance: 1e-5,
            max_basis: 35,
            ..Default::default()
        };
        let one = lanczos::eigenpairs(&a, &settings).unwrap();
        // 2^±200 is outside the range of f32.
        for factor in factors().into_iter().filter(|f| !a.coarse || f.log2().abs() < 100.0) {
            let mut found = lanczos::eigenpairs(&a.times(factor), &settings).unwrap();
            let pairs = found.largest.iter_mut().chain(&mut found.smallest);
            pairs.for_each(|p| p.value /= factor);
            assert_eq!(found, one, "{factor:e}");
        }
    }
}

#[test]
fn traces_scale() {
    for a in matrices().into_iter().filter(|a| !a.coarse) {
        let settings = hutchinson::HutchinsonSettings::default();
        let plus = hutch_plus_plus::HutchPlusPlusSettings { sketch: 5, ..Default::default() };
        let one = hutchinson::trace(&a, &settings).unwrap();
        let one_plus = hutch_plus_plus::trace(&a, &plus).unwrap();
        for factor in factors() {
            let scaled = a.times(factor);
            let mut t = hutchinson::trace(&scaled, &settings).unwrap();
            for x in [&mut t.trace, &mut t.stderr, &mut t.half_width_95, &mut t.rounding] {
                *x /= factor;
            }
            assert_eq!(t, one, "{factor:e}");
            let mut t = hutch_plus_plus::trace(&scaled, &plus).unwrap();
            let (trace, sketched) = (&mut t.trace, &mut t.sketched);
            for x in [trace, sketched, &mut t.stderr, &mut t.half_width_95, &mut t.rounding] {
                *x /= factor;
            }
            assert_eq!(t, one_plus, "{factor:e}");
        }
    }
}

#[test]
fn densities_scale() {
    for a in matrices().into_iter().filter(|a| !a.coarse) {
        let settings =
            quadrature::QuadratureSettings { max_probes: 20, steps: 20, ..Default::default() };
        let one = quadrature::quadrature(&a, &settings).unwrap();
        let density = one.density(50, 0.02).unwrap();
        for factor in factors() {
            let mut found = quadrature::quadrature(&a.times(factor), &settings).unwrap();
            let mut scaled = found.density(50, 0.02).unwrap();
            scaled.sigma /= factor;
            scaled.grid.iter_mut().for_each(|x| *x /= factor);
            scaled.density.iter_mut().chain(&mut scaled.stderr).for_each(|x| *x *= factor);
            assert_eq!(scaled, density, "{factor:e}");
            found.negligible /= factor;
            found.rules.iter_mut().flat_map(|r| &mut r.nodes).for_each(|x| *x /= factor);
            assert_eq!(found, one, "{factor:e}");
        }
    }
}

#[test]
fn steps_scale() {
    for a in matrices().into_iter().filter(|a| !a.coarse) {
        let g: Vec<f64> = (0..a.rows.len()).map(|i| (i as f64).cos()).collect();
        for radius in [0.01, 1.0, 100.0] {
            let settings =
                steihaug::SteihaugSettings { radius, tolerance: 1e-6, max_iterations: 100 };
            let one = steihaug::step(&a, &g, &settings).unwrap();
            for factor in factors() {
                let g: Vec<f64> = g.iter().map(|g| g * factor).collect();
                let mut found = steihaug::step(&a.times(factor), &g, &settings).unwrap();
                found.decrease /= factor;
                assert_eq!(found, one, "{factor:e}");
            }
        }
    }
}
