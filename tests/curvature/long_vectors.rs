//! Vectors of many blocks: the same bits for any number of threads, in f32 and f64.

use planish::curvature::steihaug;
use planish::curvature::{
    LinearOperator, Result, hutch_plus_plus, hutchinson, lanczos, quadrature,
};

/// diag(λ) + u uᵀ, with λᵢ evenly spaced in [0, 1) and u = (1, …, 1) · √(10/n). The largest
/// eigenvalue μ solves 1 = Σ uᵢ²/(μ − λᵢ).
struct Long {
    n: usize,
    coarse: bool,
}

impl Long {
    fn lambda(&self, i: usize) -> f64 {
        i as f64 / self.n as f64
    }

    fn largest(&self) -> f64 {
        let (mut low, mut high) = (1.0, 12.0);
        for _ in 0..60 {
            let mu = 0.5 * (low + high);
            let sum: f64 = (0..self.n).map(|i| 10.0 / self.n as f64 / (mu - self.lambda(i))).sum();
            if sum > 1.0 { low = mu } else { high = mu }
        }
        low
    }
}

impl LinearOperator for Long {
    fn dimension(&self) -> usize {
        self.n
    }

    fn apply(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let round = |x: f64| if self.coarse { f64::from(x as f32) } else { x };
        let one = |v: &Vec<f64>| {
            let along = v.iter().sum::<f64>() * 10.0 / self.n as f64;
            v.iter().enumerate().map(|(i, v)| round(self.lambda(i) * v + along)).collect()
        };
        Ok(vectors.iter().map(one).collect())
    }

    fn block(&self) -> usize {
        2
    }

    fn precision(&self) -> f64 {
        if self.coarse { f64::from(f32::EPSILON) } else { f64::EPSILON }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for coarse in [false, true] {
        // Seven blocks. The last one is short and not a multiple of a register.
        let a = Long { n: 100_003, coarse };
        let all = || {
            let settings = lanczos::LanczosSettings {
                tolerance: 1e-5,
                smallest: 0,
                width: 2,
                ..Default::default()
            };
            let pairs =
                lanczos::eigenpairs(&a, &lanczos::LanczosSettings { vectors: true, ..settings });
            let g: Vec<f64> = (0..a.n).map(|i| (i as f64).sin()).collect();
            let settings =
                steihaug::SteihaugSettings { radius: 50.0, tolerance: 1e-3, max_iterations: 9 };
            (
                pairs.unwrap(),
                hutchinson::trace(&a, &Default::default()).unwrap(),
                hutch_plus_plus::trace(&a, &Default::default()).unwrap(),
                quadrature::quadrature(
                    &a,
                    &quadrature::QuadratureSettings {
                        max_probes: 3,
                        steps: 8,
                        ..Default::default()
                    },
                )
                .unwrap(),
                steihaug::step(&a, &g, &settings).unwrap(),
            )
        };
        let threads = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let one = threads(1).install(all);
        assert!(one == threads(3).install(all));

        let (pairs, hutchinson, plus, slq, _) = one;
        let truth = a.largest();
        assert!(pairs.converged, "{pairs:?}");
        assert!((pairs.largest[0].value - truth).abs() < 1e-6 * truth, "{truth}");
        let trace = (0..a.n).map(|i| a.lambda(i)).sum::<f64>() + 10.0;
        assert!(hutchinson.converged && plus.converged);
        assert!((hutchinson.trace - trace).abs() <= 4.0 * hutchinson.stderr);
        assert!((plus.trace - trace).abs() <= 4.0 * plus.stderr);
        assert!((slq.function(|x| x).value / trace - 1.0).abs() < 1e-3);
    }
}
