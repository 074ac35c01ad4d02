//! Spectra and Newton steps of a diagnosis against direct computations on the same small model.

#[allow(dead_code)]
mod small;

use candle_core::DType;
use planish::curvature::{LayerOperator, LinearOperator, lanczos};
use planish::data::folds::stratified_halves;
use planish::diagnose::findings::{Findings, LayerResult};
use planish::diagnose::spectrum::SpectrumOptions;
use planish::diagnose::{Basis, Estimator, MeasureOptions, Request, diagnose};
use planish::models::Layer;
use planish::objective::{Activations, Matrix, Objective};
use small::{
    cross_entropies, dot, images, layer, mean, model, numbers, plus, weights_of, with_weights,
};

fn findings(
    model: &Objective,
    v: &Activations,
    layers: &[Layer],
    options: MeasureOptions,
) -> Findings {
    let request = Request { options, ..Request::new(model, v, layers, 7) };
    diagnose(&request, &mut |_| ()).unwrap()
}

fn one(model: &Objective, v: &Activations, name: &str, options: MeasureOptions) -> LayerResult {
    findings(model, v, &[layer(model, name)], options).layers.remove(0)
}

fn whole_spectrum(density: bool) -> MeasureOptions {
    let matrices = vec![Matrix::Hessian, Matrix::GaussNewton];
    let settings = SpectrumOptions {
        matrices,
        largest: 2,
        whole: true,
        density,
        room: f64::INFINITY,
        seed: 1,
    };
    MeasureOptions { spectrum: Some(settings), ..MeasureOptions::default() }
}

/// The matrix, column by column.
fn dense(operator: &LayerOperator) -> Vec<Vec<f64>> {
    let n = operator.dimension();
    let unit = |i| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    operator.apply(&(0..n).map(unit).collect::<Vec<_>>()).unwrap()
}

fn times(matrix: &[Vec<f64>], v: &[f64]) -> Vec<f64> {
    let zero = vec![0.0; v.len()];
    matrix.iter().zip(v).fold(zero, |sum, (column, &x)| plus(&sum, x, column))
}

/// Largest eigenvalue of A and its eigenvector, by power iteration on A + shift.
fn top(matrix: &[Vec<f64>], shift: f64) -> (f64, Vec<f64>) {
    let mut v: Vec<f64> = (0..matrix.len()).map(|i| 1.0 + (i as f64).sin()).collect();
    for _ in 0..6_000 {
        let next = plus(&times(matrix, &v), shift, &v);
        let norm = dot(&next, &next).sqrt();
        v = next.into_iter().map(|x| x / norm).collect();
    }
    (dot(&v, &times(matrix, &v)), v)
}

#[test]
fn spectra_match_the_assembled_matrices() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    for name in ["block.1", "norm", "head"] {
        let found = one(&model, &v, name, whole_spectrum(true));
        assert_eq!(found.spectra.len(), 2);
        for spectrum in &found.spectra {
            let selected = layer(&model, name);
            let operator = LayerOperator::new(&model, &v, &selected, spectrum.matrix);
            let matrix = dense(&operator);
            // A shift of at least every row sum makes all eigenvalues positive.
            let shift = matrix.iter().map(|c| c.iter().map(|x| x.abs()).sum::<f64>());
            let shift = shift.fold(0.0, f64::max);
            let (largest, y) = top(&matrix, shift);
            let first = spectrum.largest[0];
            assert!(first.converged, "{name}: {first:?}");
            assert!((first.value / largest - 1.0).abs() < 1e-3, "{name}: {first:?} {largest}");
            let negative: Vec<Vec<f64>> =
                matrix.iter().map(|c| c.iter().map(|x| -x).collect()).collect();
            let smallest = -top(&negative, shift).0;
            let last = spectrum.smallest[0].value;
            assert!((last - smallest).abs() < 0.011 * largest, "{name}: {last} {smallest}");

            let trace: f64 = matrix.iter().enumerate().map(|(i, c)| c[i]).sum();
            let estimate = spectrum.trace.unwrap();
            // Four standard errors of at least eight probes, or rounding if the sketch is complete.
            let room = 4.0 * estimate.stderr + 1e-9 * trace.abs();
            assert!((estimate.value - trace).abs() < room, "{name}: {estimate:?} {trace}");
            match (spectrum.matrix, spectrum.effective_dimension) {
                (Matrix::GaussNewton, Some(found)) => {
                    let expected = trace / largest;
                    assert!((found.value - expected).abs() < 4.0 * found.stderr.unwrap());
                }
                (Matrix::GaussNewton, None) => panic!("{name}: {spectrum:?}"),
                (Matrix::Hessian, found) => {
                    assert_eq!(found.is_some(), smallest >= -0.01 * largest, "{name}");
                }
            }
            let density = spectrum.density.as_ref().unwrap();
            let width = density.grid[1] - density.grid[0];
            let mass: f64 = density.density.iter().sum::<f64>() * width;
            assert!((mass - 1.0).abs() < 0.01, "{mass}");

            // yᵀAy per image gives the standard error that groups of images estimate.
            let each: Vec<f64> = (0..40)
                .map(|i| {
                    let single = v.select(&[i]).unwrap();
                    let operator = LayerOperator::new(&model, &single, &selected, spectrum.matrix);
                    let product = operator.apply(std::slice::from_ref(&y)).unwrap().remove(0);
                    dot(&y, &product)
                })
                .collect();
            assert!((mean(&each) / largest - 1.0).abs() < 1e-6);
            let centred: Vec<f64> = each.iter().map(|x| x - largest).collect();
            let stderr = (dot(&centred, &centred) / (39.0 * 40.0)).sqrt();
            // Sixteen groups determine a standard deviation to 18%.
            let ratio = spectrum.largest_stderr.unwrap() / stderr;
            assert!((0.4..1.7).contains(&ratio), "{name}: {ratio}");
        }
        let [hessian, gauss_newton] = &found.spectra[..] else { panic!() };
        assert!(gauss_newton.smallest[0].value > -1e-9 * gauss_newton.largest[0].value);
        if name == "head" {
            assert!((hessian.largest[0].value / gauss_newton.largest[0].value - 1.0).abs() < 1e-9);
        }
    }
}

/// A layer of at most 60 parameters costs no more than a Lanczos run: all of its eigenvalues are
/// computed, and with them the trace and the density.
#[test]
fn small_layers_have_exact_traces_and_densities() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    for name in ["head.bias", "norm", "head"] {
        let selected = layer(&model, name);
        let found = one(&model, &v, name, whole_spectrum(true));
        for spectrum in &found.spectra {
            let operator = LayerOperator::new(&model, &v, &selected, spectrum.matrix);
            let matrix = dense(&operator);
            let n = matrix.len();
            let trace: f64 = matrix.iter().enumerate().map(|(i, c)| c[i]).sum();
            let found = spectrum.trace.unwrap();
            let error = (found.value - trace).abs();
            assert!(error <= found.half_width_95, "{name}: {found:?} {trace}");
            assert!(found.half_width_95 < 1e-10 * trace, "{name}: {found:?}");
            assert_eq!((found.stderr, found.probes), (0.0, 0));
            let density = spectrum.density.as_ref().unwrap();
            assert!(density.converged && (density.error, density.probes) == (0.0, 0));
            // The mean of the density is tr A / n: the smoothing does not move it. 3 σ of the
            // Gaussians at the ends are cut off.
            let width = density.grid[1] - density.grid[0];
            let mean: f64 =
                density.grid.iter().zip(&density.density).map(|(x, d)| x * d * width).sum();
            let scale = spectrum.largest[0].value;
            assert!((mean - trace / n as f64).abs() < 2e-3 * scale, "{name}: {mean} {trace}");
            // Those of Lanczos, the residuals of three pairs, and the error over images.
            assert_eq!(spectrum.products, n + n.min(3) + 1, "{name}");
        }
    }
}

/// With a head of zeros all classes are equally likely. Its Hessian is (1/C)(I − 11ᵀ/C) ⊗ M with
/// M = E(x xᵀ) over features x with a 1 for the bias, and each eigenvalue of M / C comes C − 1
/// times.
#[test]
fn a_head_of_zeros_has_repeated_eigenvalues() {
    for dtype in [DType::F64, DType::F32] {
        let model = model(dtype);
        let v = images(&model, 40);
        let head = layer(&model, "head");
        let zero = with_weights(&model, &head, &vec![0.0; weights_of(&model, &head).len()]);
        let at = zero.activations(&v, head.first_stage).unwrap();
        let features = numbers([&at.values]);
        let rows: Vec<Vec<f64>> =
            features.chunks(8).map(|x| x.iter().copied().chain([1.0]).collect()).collect();
        assert_eq!(rows.len(), 40, "features of the class token");
        let moments: Vec<Vec<f64>> = (0..9)
            .map(|i| (0..9).map(|j| rows.iter().map(|x| x[i] * x[j]).sum::<f64>() / 40.0).collect())
            .collect();
        let (first, y) = top(&moments, 0.0);
        let mut rest = moments.clone();
        for (i, column) in rest.iter_mut().enumerate() {
            column.iter_mut().zip(&y).for_each(|(m, yj)| *m -= first * y[i] * yj);
        }
        let second = top(&rest, 0.0).0;
        let expected = [first, first, second, second].map(|mu| mu / 3.0);
        let operator = LayerOperator::new(&zero, &at, &head, Matrix::Hessian);
        for seed in 0..20 {
            // Fewer than the 27 parameters, so that copies have to be found by further runs.
            let settings =
                lanczos::LanczosSettings { largest: 4, max_basis: 20, seed, ..Default::default() };
            let found = lanczos::eigenpairs(&operator, &settings).unwrap();
            assert!(found.converged && found.starts > 1, "{found:?}");
            for (pair, expected) in found.largest.iter().zip(expected) {
                let error = (pair.value - expected).abs() / expected;
                assert!(error < 1e-3, "{seed}: {pair:?} {expected}");
            }
            assert!(found.smallest[0].value.abs() < 1e-3 * first / 3.0, "{found:?}");
        }
    }
}

#[test]
fn newton_steps_stay_within_the_radius_and_beat_the_gradient() {
    let model = model(DType::F64);
    let v = images(&model, 60);
    let head = layer(&model, "head");
    let weights = weights_of(&model, &head);
    let norm = dot(&weights, &weights).sqrt();
    let at =
        |w: &[f64], of: &Activations| mean(&cross_entropies(&with_weights(&model, &head, w), of));
    for radius in [1e-3, 0.05, 1.0] {
        let newton = Estimator::Newton { radius, iterations: 50 };
        let options = MeasureOptions {
            basis: Basis::Raw,
            raw_too: false,
            estimator: newton,
            repeats: 1,
            spectrum: None,
        };
        let found = one(&model, &v, "head", options);
        let steps = found.newton.as_ref().unwrap();
        assert!(found.displacement <= radius * norm * (1.0 + 1e-9), "{found:?}");
        // A gradient step of the same length, on the same folds.
        let halves = stratified_halves(&v.labels, 7);
        let gains = [&halves.0, &halves.1].map(|fold| {
            let selected = v.select(fold).unwrap();
            let g = numbers(&model.gradient(&selected, &head).unwrap().gradient);
            let length = found.displacement / dot(&g, &g).sqrt();
            at(&weights, &selected) - at(&plus(&weights, -length, &g), &selected)
        });
        let gained = found.delta_l_nats.in_sample.unwrap();
        assert!(gained > mean(&gains) * (1.0 - 1e-3), "{radius}: {gained} {gains:?}");
        if radius < 0.01 {
            // At this distance, the quadratic model is accurate.
            assert!((gained / steps.delta_l_nats - 1.0).abs() < 0.02, "{gained} {steps:?}");
            assert!((steps.length / (radius * norm) - 1.0).abs() < 1e-9, "{steps:?}");
        }
    }
}

#[test]
fn a_layer_of_zeros_moves_at_most_twice_loss_over_gradient_norm() {
    let model = model(DType::F64);
    let v = images(&model, 20);
    let head = layer(&model, "head");
    let model = with_weights(&model, &head, &vec![0.0; weights_of(&model, &head).len()]);
    // All logits are 0, so the loss of both folds is log 3.
    let halves = stratified_halves(&v.labels, 7);
    let longest = [&halves.0, &halves.1].map(|fold| {
        let selected = v.select(fold).unwrap();
        let g = numbers(&model.gradient(&selected, &head).unwrap().gradient);
        2.0 * 3f64.ln() / dot(&g, &g).sqrt()
    });
    for (estimator, share) in
        [(Estimator::Line, 1.0), (Estimator::Newton { radius: 0.1, iterations: 9 }, 0.1)]
    {
        let found = one(
            &model,
            &v,
            "head",
            MeasureOptions {
                basis: Basis::Raw,
                raw_too: false,
                estimator,
                repeats: 1,
                spectrum: None,
            },
        );
        let most = share * mean(&longest) * (1.0 + 1e-9);
        assert!(found.displacement > 0.0 && found.displacement <= most, "{found:?} {most}");
        assert!(found.delta_l_nats.in_sample.unwrap() > 0.0 && found.kappa.cross_fit.is_some());
    }
}

#[test]
fn measurements_are_scale_invariant() {
    // Scaling features by s and weights by 1/s does not change the logits. The second derivatives
    // of the head scale by s².
    let model = model(DType::F32);
    let v = images(&model, 40);
    let selected = layer(&model, "head.weight");
    let at = model.activations(&v, selected.first_stage).unwrap();
    let top = |s: f64| {
        let weights: Vec<f64> = weights_of(&model, &selected).iter().map(|w| w / s).collect();
        let model = with_weights(&model, &selected, &weights);
        let at = Activations { values: (&at.values * s).unwrap(), ..at.clone() };
        let operator = LayerOperator::new(&model, &at, &selected, Matrix::Hessian);
        let settings = lanczos::LanczosSettings { largest: 3, smallest: 1, ..Default::default() };
        let found = lanczos::eigenpairs(&operator, &settings).unwrap();
        assert!(found.converged, "{s}: {found:?}");
        found.largest.iter().map(|pair| pair.value / (s * s)).collect::<Vec<_>>()
    };
    let plain = top(1.0);
    for power in [-15, 15] {
        let s = 2f64.powi(power);
        assert!((1e-10..1e-7).contains(&(plain[0] * s.min(1.0 / s).powi(2))), "{plain:?}");
        // Powers of two scale floats exactly.
        assert_eq!(top(s), plain, "{power}");
    }
}

#[test]
fn only_top_eigenvalues_are_measured_on_subsets() {
    let model = model(DType::F64);
    let v = images(&model, 20);
    let subset = one(&model, &v, "head", whole_spectrum(true).only_top());
    let [spectrum] = &subset.spectra[..] else { panic!() };
    assert_eq!((spectrum.largest.len(), spectrum.smallest.len()), (1, 0));
    assert!(spectrum.trace.is_none() && spectrum.density.is_none());
    assert_eq!(spectrum.effective_dimension, None);
}
