//! bf16 products on every available unit, compared with products of the rounded operands in f64.

mod products;

use candle_core::{DType, Device, Tensor};
use planish_kernels::bf16::{Unit, multiply_with, round};
use planish_kernels::product::{Start, View};
use planish_kernels::{Attention, DualTensor, Error, Linear, MatMul, Op, Products, Saved};
use products::{BATCHES, Case, Multiply, numbers};

/// The product on `unit`.
fn on(unit: Unit) -> impl Multiply {
    move |c: (&mut [f32], View), start: Start<f32>, a: (&[f32], View), b: (&[f32], View), factor| {
        multiply_with(unit, c, start, a, b, factor)
    }
}

#[test]
fn products_match_those_of_rounded_operands_for_any_size_and_layout() {
    let sizes = [1, 2, 16, 17, 33, 50, 97];
    for unit in Unit::available() {
        for (i, m) in sizes.iter().enumerate() {
            for (j, n) in sizes.iter().enumerate() {
                for (l, k) in sizes.iter().enumerate() {
                    let case = Case::new([*m, *n, *k], (i + 5 * j + 7 * l) % 27);
                    let mismatch = case.flaw(&case.run(on(*unit)), round);
                    assert_eq!(mismatch, None, "{unit:?}, {m} × {k} by {k} × {n}");
                }
            }
        }
        for kind in 0..27 {
            for size in [[37, 70, 41], [0, 3, 4], [3, 0, 4], [3, 4, 0], [33, 530, 34]] {
                let case = Case::new(size, kind);
                assert_eq!(
                    case.flaw(&case.run(on(*unit)), round),
                    None,
                    "{unit:?}, {size:?}, layout {kind}"
                );
            }
        }
        for kind in 0..BATCHES * BATCHES {
            for size in [[5, 4, 3], [1, 40, 33], [37, 1, 20], [35, 18, 64]] {
                let case = Case::batched(size, kind);
                let mismatch = case.flaw(&case.run(on(*unit)), round);
                assert_eq!(mismatch, None, "{unit:?}, {size:?}, batches {kind}");
            }
        }
        // More steps along K, and more rows of A, than one packed block.
        for kind in [0, 13] {
            let case = Case::new([1030, 3, 4100], kind);
            assert_eq!(
                case.flaw(&case.run(on(*unit)), round),
                None,
                "{unit:?}, blocks, layout {kind}"
            );
        }
    }
}

/// a · b for single numbers.
fn times(unit: Unit, a: &[f32], b: f32) -> Vec<f32> {
    let (n, mut c) = (a.len(), vec![7.0; a.len()]);
    let (va, vc) = (View::matrix(n, 1), View::matrix(n, 1));
    multiply_with(unit, (&mut c, vc), Start::Zero, (a, va), (&[b], View::matrix(1, 1)), 1.0);
    c
}

#[test]
fn numbers_are_rounded_to_nearest_even() {
    // Between 1 and 2, bf16 has steps of 2⁻⁷. Ties go to the even neighbour.
    let step = 2f32.powi(-7);
    let cases = [
        (1.0, 1.0),
        (1.0 + 0.49 * step, 1.0),
        (1.0 + 0.5 * step, 1.0),
        (1.0 + 0.51 * step, 1.0 + step),
        (1.0 + 1.5 * step, 1.0 + 2.0 * step),
        (-1.0 - 2.5 * step, -1.0 - 2.0 * step),
        (2.0 - 0.4 * step, 2.0),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
        // Subnormal numbers become zero.
        (f32::MIN_POSITIVE / 2.0, 0.0),
        (0.0, 0.0),
    ];
    for (x, expected) in cases {
        assert_eq!(round(x), expected, "{x}");
    }
    assert!(round(f32::NAN).is_nan());
    // Numbers with every sign, exponent and upper significand, and lower bits for every rounding
    // case. Also compares with the rounding of the instructions.
    let x: Vec<f32> = (0..=u16::MAX)
        .flat_map(|high| [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF].map(|low| (high, low)))
        .map(|(high, low)| f32::from_bits(u32::from(high) << 16 | low))
        .collect();
    for unit in Unit::available() {
        for (x, found) in x.iter().zip(times(*unit, &x, 1.0)) {
            let expected = round(*x);
            assert!(found == expected || found.is_nan() && expected.is_nan(), "{unit:?}: {x:e}");
        }
    }
    for x in x.iter().filter(|x| x.is_normal() && round(**x).is_finite()) {
        assert!((round(*x) - x).abs() <= x.abs() * 2f32.powi(-8), "{x:e}");
    }
}

#[test]
fn nan_and_infinity_propagate() {
    for unit in Unit::available() {
        let mut case = Case::new([40, 40, 40], 0);
        case.sum = false;
        case.a.0[3 * 40 + 5] = f32::NAN;
        case.a.0[17 * 40] = f32::INFINITY;
        let c = case.run(on(*unit));
        for (i, row) in c.chunks(40).enumerate() {
            let expected = |x: &f32| match i {
                3 => x.is_nan(),
                17 => !x.is_finite(),
                _ => x.is_finite(),
            };
            assert!(row.iter().all(expected), "{unit:?}, row {i}");
        }
    }
}

#[test]
fn results_do_not_depend_on_threads_or_neighbouring_rows() {
    let (m, n, k) = (197, 300, 161);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let (va, vb) = (View::matrix(m, k), View::matrix(k, n));
    for unit in Unit::available().iter().filter(|unit| **unit != Unit::Portable) {
        let mut whole = vec![0.0; m * n];
        let target = (&mut whole[..], View::matrix(m, n));
        multiply_with(*unit, target, Start::Zero, (&a, va), (&b, vb), 1.0);
        // A pool thread runs products serially.
        let mut alone = vec![0.0; m * n];
        rayon::scope(|_| {
            let target = (&mut alone[..], View::matrix(m, n));
            multiply_with(*unit, target, Start::Zero, (&a, va), (&b, vb), 1.0);
        });
        assert!(whole == alone, "{unit:?}: threads");
        // Rows 31..120 only.
        let part = View { offset: 31 * k, rows: 89, ..va };
        let mut c = vec![0.0; 89 * n];
        let target = (&mut c[..], View::matrix(89, n));
        multiply_with(*unit, target, Start::Zero, (&a, part), (&b, vb), 1.0);
        assert!(c == whole[31 * n..120 * n], "{unit:?}: rows");
    }
}

fn tensor(dims: &[usize], seed: u64) -> DualTensor {
    let count = dims.iter().product();
    let x: Vec<f32> = numbers(count, seed).into_iter().map(round).collect();
    DualTensor::constant(Tensor::from_vec(x, dims, &Device::Cpu).unwrap())
}

fn dot(x: &DualTensor, y: &DualTensor) -> f64 {
    let flat = |x: &DualTensor| x.value().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    flat(x).iter().zip(flat(y)).map(|(&x, y)| f64::from(x) * f64::from(y)).sum()
}

#[test]
fn gradients_are_adjoint_without_rounding() {
    // ⟨gy, x Wᵀ⟩ = ⟨gx, x⟩ = ⟨gW, W⟩ for operands that are exact in bf16.
    let op = Linear { products: Products::Bf16 };
    let (x, w, gy) = (tensor(&[3, 11, 70], 1), tensor(&[45, 70], 2), tensor(&[3, 11, 45], 3));
    let y = op.value(&[&x, &w]).unwrap();
    let dims = vec![x.dims().to_vec(), w.dims().to_vec()];
    let saved = Saved { inputs: vec![Some(x.clone()), Some(w.clone())], output: None, dims };
    let found = op.vjp(&saved, &gy, &[true, true]).unwrap();
    let sides =
        [dot(&gy, &y), dot(found[0].as_ref().unwrap(), &x), dot(found[1].as_ref().unwrap(), &w)];
    // 2310 products of numbers below 2.25 each.
    let bound = 1e-6 * 2310.0 * 45.0;
    assert!(sides.iter().all(|s| (s - sides[0]).abs() < bound), "{sides:?}");
    assert!(sides[0].abs() > 1.0);
}

#[test]
fn tangents_and_f64_are_rejected() {
    let wide = |x: &DualTensor| DualTensor::constant(x.value().to_dtype(DType::F64).unwrap());
    let with_tangent = |x: &DualTensor| {
        DualTensor::new(x.value().clone(), Some(x.value().unsqueeze(0).unwrap())).unwrap()
    };
    let (products, square, qkv) = (Products::Bf16, tensor(&[6, 6], 1), tensor(&[1, 5, 12], 2));
    let ops: [(Box<dyn Op>, &DualTensor, usize); 3] = [
        (Box::new(Linear { products }), &square, 2),
        (Box::new(MatMul { products }), &square, 2),
        (Box::new(Attention { heads: 2, products }), &qkv, 1),
    ];
    for (op, x, inputs) in ops {
        for x in [wide(x), with_tangent(x)] {
            let found = op.value(&vec![&x; inputs]);
            assert!(matches!(found, Err(Error::Precision { .. })), "{}", op.name());
        }
        assert!(op.value(&vec![x; inputs]).is_ok(), "{}", op.name());
    }
}
