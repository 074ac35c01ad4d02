//! Products of f32 operands split into three bf16 parts, compared with f64 and with plain f32.
//!
//! Without tiles these tests return early, because products are plain f32.

mod products;

use candle_core::{Device, Tensor};
use planish_kernels::bf16::split;
use planish_kernels::product::{Start, View, multiply};
use planish_kernels::{DualTensor, Linear, Op, Products};
use products::{BATCHES, Case, numbers};

#[test]
fn products_match_f64_for_any_size_and_layout() {
    if !split::available() {
        return;
    }
    let sizes = [1, 2, 16, 17, 33, 50, 97];
    for (i, m) in sizes.iter().enumerate() {
        for (j, n) in sizes.iter().enumerate() {
            for (l, k) in sizes.iter().enumerate() {
                let case = Case::new([*m, *n, *k], (i + 5 * j + 7 * l) % 27);
                assert_eq!(case.flaw(&case.run(split::multiply), |x| x), None, "{m}, {n}, {k}");
            }
        }
    }
    for kind in 0..27 {
        for size in [[37, 70, 41], [0, 3, 4], [3, 0, 4], [3, 4, 0], [33, 530, 34]] {
            let case = Case::new(size, kind);
            let mismatch = case.flaw(&case.run(split::multiply), |x| x);
            assert_eq!(mismatch, None, "{size:?}, layout {kind}");
        }
    }
    for kind in 0..BATCHES * BATCHES {
        let case = Case::batched([35, 18, 64], kind);
        assert_eq!(case.flaw(&case.run(split::multiply), |x| x), None, "batches {kind}");
    }
    // More steps along K, rows of A and columns of B than one packed block.
    for (size, kind) in [([1900, 3, 770], 0), ([5, 530, 1600], 13)] {
        let case = Case::new(size, kind);
        assert_eq!(case.flaw(&case.run(split::multiply), |x| x), None, "{size:?}, layout {kind}");
    }
}

type Product = fn((&mut [f32], View), Start<f32>, (&[f32], View), (&[f32], View), f64);

/// C = A·B.
fn product(multiply: Product, [m, n, k]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    let target = (&mut c[..], View::matrix(m, n));
    multiply(target, Start::Zero, (a, View::matrix(m, k)), (b, View::matrix(k, n)), 1.0);
    c
}

#[test]
fn every_operand_bit_is_used() {
    if !split::available() {
        return;
    }
    // Multiplying by 1 must be exact: every sign and significand, with exponents for which all
    // parts are normal.
    let x: Vec<f32> = (0..1u32 << 16)
        .map(|i| {
            let exponent = 24 + i.wrapping_mul(2_654_435_761) % 220;
            let significand = i.wrapping_mul(0x9E37_79B1) & 0x7F_FFFF;
            f32::from_bits((i & 1) << 31 | exponent << 23 | significand)
        })
        .chain([0.0, 1.0, f32::MIN_POSITIVE, 3.38e38, 1.0 + f32::EPSILON, 2.0 - f32::EPSILON])
        .collect();
    assert_eq!(product(split::multiply, [x.len(), 1, 1], &x, &[1.0]), x);
    assert_eq!(product(split::multiply, [1, x.len(), 1], &[1.0], &x), x);
}

#[test]
fn split_products_are_at_least_as_accurate_as_f32() {
    if !split::available() {
        return;
    }
    let size @ [m, n, k] = [130, 140, 1000];
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let exact = |i: usize, j: usize| -> f64 {
        (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum()
    };
    let error = |c: &[f32]| -> f64 {
        let difference = |(i, x): (usize, &f32)| (f64::from(*x) - exact(i / n, i % n)).powi(2);
        c.iter().enumerate().map(difference).sum::<f64>().sqrt()
    };
    let [tiles, plain] =
        [split::multiply, multiply].map(|multiply| error(&product(multiply, size, &a, &b)));
    println!("error for K = {k}: {:.2} × that of f32 products", tiles / plain);
    assert!(tiles <= plain, "{tiles:e}, in f32 {plain:e}");
}

#[test]
fn nan_and_infinity_stay_in_their_row() {
    if !split::available() {
        return;
    }
    let (n, mut a, b) = (40, numbers(1600, 1), numbers(1600, 2));
    a[3 * n + 5] = f32::NAN;
    a[17 * n] = f32::INFINITY;
    a[20 * n] = f32::MAX;
    let c = product(split::multiply, [n, n, n], &a, &b);
    for (i, row) in c.chunks(n).enumerate() {
        assert!(row.iter().all(|x| x.is_finite() != [3, 17, 20].contains(&i)), "row {i}");
    }
}

#[test]
fn operations_use_split_products_on_request() {
    if !split::available() {
        return;
    }
    // Also with tangents.
    let tensor = |dims: [usize; 2], seed| {
        let x = numbers(dims[0] * dims[1], seed);
        Tensor::from_vec(x, &dims, &Device::Cpu).unwrap()
    };
    let x =
        DualTensor::new(tensor([150, 200], 1), Some(tensor([150, 200], 2).unsqueeze(0).unwrap()));
    let (x, w) = (x.unwrap(), DualTensor::constant(tensor([140, 200], 3)));
    let linear = |products| -> [Vec<f32>; 2] {
        let y = Linear { products }.value(&[&x, &w]).unwrap();
        [y.value(), y.tangent().unwrap()].map(|x| x.flatten_all().unwrap().to_vec1().unwrap())
    };
    let transposed = |x: &Tensor| -> Vec<f32> { x.flatten_all().unwrap().to_vec1().unwrap() };
    let wt = transposed(&w.value().t().unwrap());
    let expected = |multiply: Product| {
        [x.value(), x.tangent().unwrap()]
            .map(|x| product(multiply, [150, 140, 200], &transposed(x), &wt))
    };
    let [vectors, tiles] = [Products::F32, Products::Tiles].map(linear);
    assert!(tiles == expected(split::multiply) && tiles != vectors);
    let difference = |x: &[f32], y: &[f32]| -> f32 {
        x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    };
    let plain = expected(multiply::<f32>);
    assert!(plain.iter().zip(&vectors).all(|(x, y)| difference(x, y) < 1e-4));
    assert!(plain.iter().zip(&tiles).all(|(x, y)| difference(x, y) < 1e-4));
}

#[test]
fn results_do_not_depend_on_threads_or_neighbouring_rows() {
    if !split::available() {
        return;
    }
    let (m, n, k) = (197, 300, 900);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let whole = product(split::multiply, [m, n, k], &a, &b);
    // A pool thread runs products serially.
    let mut alone = Vec::new();
    rayon::scope(|_| alone = product(split::multiply, [m, n, k], &a, &b));
    assert!(whole == alone, "threads");
    let part = product(split::multiply, [89, n, k], &a[31 * k..120 * k], &b);
    assert!(part == whole[31 * n..120 * n], "rows 31 to 120 alone");
}
