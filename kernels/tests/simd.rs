//! Exponential, error function and row kernels with every vector instruction set of this processor.

use planish_kernels::cpu::{Input, Output, RowKernel, run_with};
use planish_kernels::lanes::Element;
use planish_kernels::rows::{Row, RowMut, chunks};
use planish_kernels::scalar::Scalar;
use planish_kernels::simd::Simd;

/// y = (exp x, erf x, tanh x), and the row's sum and maximum.
struct Functions;
impl RowKernel<1, 5> for Functions {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x]: [Row<S>; 1], y: [RowMut<S>; 5]) {
        for c in chunks::<S>(x.len()) {
            y[0].put(c, x.at(c).exp());
            y[1].put(c, x.at(c).erf());
            y[2].put(c, x.at(c).tanh());
        }
        y[3].put_one(x.sum(|c| x.at(c)));
        y[4].put_one(x.detached_max());
    }
}

/// erfc by a continued fraction, erf by its series. Accurate to 1e-15 where each is used.
fn erf(x: f64) -> f64 {
    if x.abs() < 1.2 {
        let (mut term, mut sum) = (x, x);
        for k in 1..200 {
            let k = f64::from(k);
            term *= -x * x / k;
            sum += term / (2.0 * k + 1.0);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let a = x.abs();
    let mut fraction = a;
    for k in (1..5000).rev() {
        fraction = a + f64::from(k) / 2.0 / fraction;
    }
    (1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / fraction).copysign(x)
}

fn check<E: Element>(ulp: f64, range: f64) {
    // Row lengths around every register width, and a length of one.
    for len in [1usize, 3, 4, 7, 8, 15, 16, 17, 33, 197] {
        let rows = 5;
        let x: Vec<E> = (0..rows * len)
            .map(|i| E::narrow(range * ((i as f64 * 0.618_033_988_749).fract() * 2.0 - 1.0)))
            .collect();
        for simd in Simd::available() {
            let input = Input { value: &x, tangents: None, len, shared: false };
            let per_row = Output::PerRow(len);
            let [e, erfs, tanh, sum, max] = run_with(
                simd,
                &Functions,
                rows,
                [input],
                [per_row, per_row, per_row, Output::PerRow(1), Output::PerRow(1)],
            );
            for (i, x) in x.iter().map(|x| x.wide()).enumerate() {
                let near = |found: E, expected: f64, scale: f64| {
                    let error = (found.wide() - expected).abs();
                    assert!(error <= ulp * scale, "{simd:?} at {x}: {error:e}");
                };
                near(e.value[i], x.exp(), 4.0 * x.exp());
                near(erfs.value[i], erf(x), 4.0);
                near(tanh.value[i], x.tanh(), 4.0);
            }
            for (r, row) in x.chunks(len).enumerate() {
                let total: f64 = row.iter().map(|x| x.wide()).sum();
                assert!((sum.value[r].wide() - total).abs() <= ulp * range * len as f64);
                let largest = row.iter().map(|x| x.wide()).fold(f64::NEG_INFINITY, f64::max);
                assert_eq!(max.value[r].wide(), largest);
            }
        }
    }
}

#[test]
fn functions_are_accurate_to_rounding_in_f32() {
    check::<f32>(f64::from(f32::EPSILON), 20.0);
}

#[test]
fn functions_are_accurate_to_rounding_in_f64() {
    check::<f64>(f64::EPSILON, 20.0);
}

#[test]
fn exponential_saturates_and_keeps_nan() {
    let x = [-1e4f32, f32::NEG_INFINITY, 1e4, f32::INFINITY, f32::NAN, 0.0, -0.0];
    for simd in Simd::available() {
        let input = Input { value: &x, tangents: None, len: 7, shared: false };
        let one = Output::PerRow(7);
        let [e, erfs, ..] = run_with(
            simd,
            &Functions,
            1,
            [input],
            [one, one, one, Output::PerRow(1), Output::PerRow(1)],
        );
        assert_eq!(e.value[..4], [0.0, 0.0, f32::INFINITY, f32::INFINITY], "{simd:?}");
        assert!(e.value[4].is_nan() && erfs.value[4].is_nan(), "{simd:?}");
        assert_eq!(e.value[5..], [1.0, 1.0], "{simd:?}");
    }
}

#[test]
fn exponential_is_accurate_over_its_whole_range() {
    let x: Vec<f32> = (0..7001).map(|i| -86.99 + 0.025 * i as f32).filter(|x| *x < 88.0).collect();
    let n = x.len();
    for simd in Simd::available() {
        let input = Input { value: &x, tangents: None, len: n, shared: false };
        let one = Output::PerRow(n);
        let outputs = [one, one, one, Output::PerRow(1), Output::PerRow(1)];
        let [e, ..] = run_with(simd, &Functions, 1, [input], outputs);
        for (&x, &y) in x.iter().zip(&e.value) {
            let expected = f64::from(x).exp();
            let error = (f64::from(y) / expected - 1.0).abs();
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{simd:?}: exp {x}: {y}, {expected}");
        }
    }
}

/// y = erf x.
struct Tail;
impl RowKernel<1, 1> for Tail {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x]: [Row<S>; 1], [y]: [RowMut<S>; 1]) {
        for c in chunks::<S>(x.len()) {
            y.put(c, x.at(c).erf());
        }
    }
}

#[test]
fn the_error_function_saturates_at_one() {
    // Steps of 2⁻¹² around the point where erf becomes 1, and large arguments.
    let near = (0..20_000).map(|i| 2.0 + i as f32 / 4096.0);
    let x: Vec<f32> = near.chain([1e2, 1e4, 1e30, f32::INFINITY]).flat_map(|x| [x, -x]).collect();
    for simd in Simd::available() {
        let input = Input { value: &x, tangents: None, len: x.len(), shared: false };
        let [y] = run_with(simd, &Tail, 1, [input], [Output::PerRow(x.len())]);
        for (&x, &y) in x.iter().zip(&y.value) {
            assert!(y.abs() <= 1.0 && y.signum() == x.signum(), "{simd:?} at {x}: {y}");
            assert!(x.abs() < 4.0 || y.abs() == 1.0, "{simd:?} at {x}: {y}");
        }
    }
}

#[test]
fn the_maximum_of_a_register_with_nan_is_nan() {
    for simd in Simd::available().into_iter().filter(|&simd| simd != Simd::Plain) {
        for index in 0..8 {
            let mut x = [1.5f32, -2.0, 0.0, 7.0, -1.0, 3.0, 2.0, 6.0];
            x[index] = f32::NAN;
            let input = Input { value: &x, tangents: None, len: 8, shared: false };
            let (row, one) = (Output::PerRow(8), Output::PerRow(1));
            let [.., max] = run_with(simd, &Functions, 1, [input], [row, row, row, one, one]);
            assert!(max.value[0].is_nan(), "{simd:?} {index}");
        }
    }
}
