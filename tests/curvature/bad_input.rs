//! Invalid input is rejected with an error that says what was expected.

use crate::dense::{Dense, hessian_like};
use planish::curvature::{Error, LinearOperator, Result};
use planish::curvature::{hutch_plus_plus, hutchinson, lanczos, quadrature, steihaug};

/// An operator whose products are wrong in one way.
struct Broken {
    n: usize,
    found: fn(usize) -> Vec<Vec<f64>>,
}

impl LinearOperator for Broken {
    fn dimension(&self) -> usize {
        self.n
    }

    fn apply(&self, _: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        Ok((self.found)(self.n))
    }
}

/// The error of every estimator.
fn errors(a: &dyn LinearOperator) -> Vec<Error> {
    let newton = steihaug::SteihaugSettings { radius: 1.0, tolerance: 0.1, max_iterations: 5 };
    let g = vec![1.0; a.dimension()];
    vec![
        lanczos::eigenpairs(a, &Default::default()).unwrap_err(),
        hutchinson::trace(a, &Default::default()).unwrap_err(),
        hutch_plus_plus::trace(a, &Default::default()).unwrap_err(),
        quadrature::quadrature(a, &Default::default()).unwrap_err(),
        steihaug::step(a, &g, &newton).unwrap_err(),
    ]
}

#[test]
fn invalid_products() {
    let nan = |n| vec![(0..n).map(|i| if i == 3 { f64::NAN } else { 1.0 }).collect()];
    for error in errors(&Broken { n: 5, found: nan }) {
        assert!(matches!(error, Error::NonFinite { position: 3, .. }), "{error}");
    }
    let infinite = |n| vec![vec![f64::INFINITY; n]];
    for error in errors(&Broken { n: 5, found: infinite }) {
        assert!(matches!(error, Error::NonFinite { position: 0, .. }), "{error}");
    }
    for error in errors(&Broken { n: 5, found: |n| vec![vec![1.0; n + 1]] }) {
        assert!(matches!(error, Error::Length { expected: 5, found: 6 }), "{error}");
    }
    for error in errors(&Broken { n: 5, found: |_| Vec::new() }) {
        assert!(matches!(error, Error::Count { expected: 1, found: 0 }), "{error}");
    }
    for error in errors(&Broken { n: 0, found: |_| vec![Vec::new()] }) {
        assert!(matches!(error, Error::ZeroDimension), "{error}");
    }
}

#[test]
fn settings_out_of_range() {
    let a = Dense::new(&hessian_like(10), 61);
    let named = |error: Error, expected: &str| {
        assert!(matches!(&error, Error::Setting { name, .. } if *name == expected), "{error}");
    };
    let base = lanczos::LanczosSettings::default;
    for (settings, name) in [
        (lanczos::LanczosSettings { largest: 0, smallest: 0, ..base() }, "largest + smallest"),
        (lanczos::LanczosSettings { width: 0, ..base() }, "width"),
        (lanczos::LanczosSettings { tolerance: 0.0, ..base() }, "tolerance"),
        (lanczos::LanczosSettings { tolerance: f64::NAN, ..base() }, "tolerance"),
        (lanczos::LanczosSettings { width: 4, max_products: 3, ..base() }, "max_products"),
        (lanczos::LanczosSettings { width: 4, max_basis: 3, ..base() }, "max_basis"),
    ] {
        named(lanczos::eigenpairs(&a, &settings).unwrap_err(), name);
    }
    for (tolerance, max_probes, name) in [(-1.0, 9, "tolerance"), (0.1, 1, "max_probes")] {
        let settings = hutchinson::HutchinsonSettings { tolerance, max_probes, seed: 0 };
        named(hutchinson::trace(&a, &settings).unwrap_err(), name);
        let settings =
            hutch_plus_plus::HutchPlusPlusSettings { sketch: 2, tolerance, max_probes, seed: 0 };
        named(hutch_plus_plus::trace(&a, &settings).unwrap_err(), name);
    }
    let base = quadrature::QuadratureSettings::default;
    for (settings, name) in [
        (quadrature::QuadratureSettings { max_probes: 1, ..base() }, "max_probes"),
        (quadrature::QuadratureSettings { tolerance: -0.1, ..base() }, "tolerance"),
        (quadrature::QuadratureSettings { width: f64::NAN, ..base() }, "width"),
        (quadrature::QuadratureSettings { steps: 0, ..base() }, "steps"),
        (quadrature::QuadratureSettings { together: 0, ..base() }, "together"),
    ] {
        named(quadrature::quadrature(&a, &settings).unwrap_err(), name);
    }
    let found = quadrature::quadrature(&a, &base()).unwrap();
    named(found.density(1, 0.1).unwrap_err(), "points");
    named(found.density(10, 0.0).unwrap_err(), "width");
    for (radius, tolerance, max_iterations, name) in [
        (0.0, 0.1, 5, "radius"),
        (f64::INFINITY, 0.1, 5, "radius"),
        (1.0, 1.0, 5, "tolerance"),
        (1.0, 0.1, 0, "max_iterations"),
    ] {
        let settings = steihaug::SteihaugSettings { radius, tolerance, max_iterations };
        named(steihaug::step(&a, &[1.0; 10], &settings).unwrap_err(), name);
    }
}

/// Limits may be larger than the matrix: only the needed memory is allocated.
#[test]
fn limits_of_any_size() {
    let a = Dense::new(&[3.0, 1.0, -1.0], 63);
    let most = usize::MAX;
    let settings = lanczos::LanczosSettings {
        largest: most,
        smallest: most,
        width: most,
        max_basis: most,
        max_products: most,
        ..Default::default()
    };
    let found = lanczos::eigenpairs(&a, &settings).unwrap();
    assert!(found.converged && found.largest.len() == 3);
    let settings = hutchinson::HutchinsonSettings { max_probes: most, tolerance: 0.5, seed: 0 };
    assert!(hutchinson::trace(&a, &settings).unwrap().converged);
    let settings = hutch_plus_plus::HutchPlusPlusSettings {
        sketch: most,
        max_probes: most,
        ..Default::default()
    };
    let found = hutch_plus_plus::trace(&a, &settings).unwrap();
    assert!(found.converged && found.rank <= 3);
    let settings = quadrature::QuadratureSettings {
        max_probes: 2,
        steps: most,
        together: most,
        ..Default::default()
    };
    assert_eq!(quadrature::quadrature(&a, &settings).unwrap().products, 6);
}

#[test]
fn invalid_gradients() {
    let a = Dense::new(&hessian_like(4), 62);
    let settings = steihaug::SteihaugSettings { radius: 1.0, tolerance: 0.1, max_iterations: 5 };
    let error = steihaug::step(&a, &[1.0; 3], &settings).unwrap_err();
    assert!(matches!(error, Error::Length { expected: 4, found: 3 }), "{error}");
    let error = steihaug::step(&a, &[1.0, f64::NAN, 0.0, 0.0], &settings).unwrap_err();
    assert!(matches!(error, Error::NonFinite { what: "gradient", position: 1, .. }), "{error}");
}
