//! Truncated Newton-CG: properties of a trust-region step.

use crate::dense::{Dense, dot, hessian_like};
use planish::curvature::steihaug::{SteihaugSettings, Step, StopReason, step};

fn positive(n: usize, seed: u64) -> Dense {
    Dense::new(&(0..n).map(|i| 0.5 + (i % 7) as f64).collect::<Vec<_>>(), seed)
}

fn gradient(n: usize) -> Vec<f64> {
    (0..n).map(|i| (1.7 * i as f64).sin()).collect()
}

fn solve(a: &Dense, g: &[f64], radius: f64, tolerance: f64) -> Step {
    let found = step(a, g, &SteihaugSettings { radius, tolerance, max_iterations: 200 }).unwrap();
    // For every stop reason: length, decrease and residual are those of the returned step.
    let p = &found.step;
    let ap = a.product(p);
    let model = dot(g, p) + 0.5 * dot(p, &ap);
    assert!((found.decrease + model).abs() <= 1e-12 * model.abs().max(1e-300), "{found:?}");
    let remainder: Vec<f64> = ap.iter().zip(g).map(|(ap, g)| ap + g).collect();
    let size = dot(g, g).sqrt();
    assert!((dot(&remainder, &remainder).sqrt() / size - found.residual).abs() < 1e-11);
    assert!((dot(p, p).sqrt() - found.length).abs() < 1e-13 * found.length);
    assert!(found.length <= radius * (1.0 + 1e-14));
    // Never worse than the Cauchy point.
    let (gg, gag) = (dot(g, g), dot(g, &a.product(g)));
    let longest = radius / size;
    let t = if gag > 0.0 { longest.min(gg / gag) } else { longest };
    let cauchy = t * gg - 0.5 * t * t * gag;
    assert!(found.decrease >= cauchy * (1.0 - 1e-12), "{} below {cauchy}", found.decrease);
    found
}

#[test]
fn interior_solution_is_the_newton_step() {
    let (a, g) = (positive(50, 51), gradient(50));
    let found = solve(&a, &g, 1e6, 1e-12);
    assert_eq!(found.end, StopReason::Converged);
    // With seven distinct eigenvalues, conjugate gradients take seven iterations.
    assert_eq!(found.iterations, 7);
    let newton = |i: usize| -> f64 {
        a.values.iter().zip(&a.vectors).map(|(l, q)| -dot(q, &g) / l * q[i]).sum()
    };
    for (i, p) in found.step.iter().enumerate() {
        assert!((p - newton(i)).abs() < 1e-10, "{p} against {}", newton(i));
    }
}

#[test]
fn boundary_solution_has_length_radius() {
    let (a, g) = (positive(50, 52), gradient(50));
    let newton = solve(&a, &g, 1e6, 1e-12);
    let mut last = 0.0;
    for share in [1e-9, 0.1, 0.5, 0.9, 0.999] {
        let radius = share * newton.length;
        let found = solve(&a, &g, radius, 1e-12);
        assert_eq!(found.end, StopReason::Boundary);
        assert!((found.length / radius - 1.0).abs() < 1e-12);
        assert!(found.decrease > last && found.decrease < newton.decrease);
        last = found.decrease;
    }
}

#[test]
fn negative_curvature_is_followed_to_the_boundary() {
    let (a, g) = (Dense::new(&hessian_like(50), 53), gradient(50));
    for radius in [1e-3, 1.0, 1e4] {
        let found = solve(&a, &g, radius, 1e-8);
        assert!(matches!(found.end, StopReason::NegativeCurvature | StopReason::Boundary));
        assert!((found.length / radius - 1.0).abs() < 1e-12);
    }
    assert_eq!(solve(&a, &g, 1e4, 1e-8).end, StopReason::NegativeCurvature);
    // Negative curvature from the start: along the negative gradient.
    let concave = Dense::new(&[-2.0; 20], 54);
    let g = gradient(20);
    let found = solve(&concave, &g, 3.0, 1e-8);
    assert_eq!((found.end, found.iterations), (StopReason::NegativeCurvature, 1));
    let size = dot(&g, &g).sqrt();
    assert!(found.step.iter().zip(&g).all(|(p, g)| (p + 3.0 * g / size).abs() < 1e-14));
}

#[test]
fn zero_curvature_is_followed_to_the_boundary() {
    let g = gradient(20);
    let found = solve(&Dense::new(&[0.0; 20], 55), &g, 2.0, 1e-8);
    assert_eq!((found.end, found.iterations), (StopReason::NegativeCurvature, 1));
    assert!((found.decrease - 2.0 * dot(&g, &g).sqrt()).abs() < 1e-13);
    // A gradient in the null space of a semidefinite matrix, up to rounding.
    let mut spectrum = vec![1.0; 20];
    spectrum[0] = 0.0;
    for coarse in [false, true] {
        let a = Dense { coarse, ..Dense::new(&spectrum, 56) };
        let g = a.vectors[0].clone();
        let found =
            step(&a, &g, &SteihaugSettings { radius: 2.0, tolerance: 1e-3, max_iterations: 9 });
        let found = found.unwrap();
        assert!((found.length - 2.0).abs() < 1e-12 && (found.decrease - 2.0).abs() < 1e-5);
    }
}

#[test]
fn zero_gradient_gives_zero_step() {
    let settings = SteihaugSettings { radius: 1.0, tolerance: 1e-8, max_iterations: 5 };
    let found = step(&positive(10, 57), &[0.0; 10], &settings).unwrap();
    assert_eq!(found.step, [0.0; 10]);
    assert_eq!((found.end, found.iterations), (StopReason::Converged, 0));
    assert_eq!((found.length, found.decrease, found.residual), (0.0, 0.0, 0.0));
}

#[test]
fn iteration_limit_is_reported() {
    let (a, g) = (positive(50, 58), gradient(50));
    let mut last = 1.0;
    for max_iterations in 1..7 {
        let settings = SteihaugSettings { radius: 1e6, tolerance: 1e-12, max_iterations };
        let found = step(&a, &g, &settings).unwrap();
        assert_eq!((found.end, found.iterations), (StopReason::IterationLimit, max_iterations));
        assert!(found.residual > 1e-12 && found.residual < 10.0 * last);
        last = found.residual;
    }
}

#[test]
fn one_dimension() {
    let a = Dense::new(&[4.0], 59);
    let found = solve(&a, &[2.0], 10.0, 1e-12);
    assert_eq!((found.end, found.iterations, found.step), (StopReason::Converged, 1, vec![-0.5]));
}
