//! Kernels over all tensors of a layer, compared with plain loops.

use crate::buffer::Buffer;
use crate::checks::{Stream, assert_close};
use crate::run::go;
use planish_kernels::cuda::{AdamW, Address, MAX_TENSORS, PRODUCTS, Planner, Sgd, StorageType};

/// The rounding error of f32 is 6e-8.
const TOLERANCE: [(StorageType, f64); 2] = [(StorageType::F64, 1e-14), (StorageType::F32, 3e-7)];

/// Tensor sizes: empty, one, odd, aligned, one chunk, several chunks with a remainder; and more
/// tensors than one launch takes.
fn tensor_sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 5, 768, 8192, 20_001, 0, 33];
    sizes.resize(MAX_TENSORS + 9, 31);
    sizes
}

/// A list of tensors, as numbers and in emulator memory.
struct List {
    numbers: Vec<Vec<f64>>,
    buffers: Vec<Buffer>,
}

impl List {
    fn new(stored: StorageType, seed: u64, sizes: &[usize], map: fn(f64) -> f64) -> Self {
        let mut stream = Stream(seed);
        let mut buffers = Vec::new();
        let numbers = sizes.iter().map(|&n| {
            let x: Vec<f64> = stream.numbers(&[n]).into_iter().map(map).collect();
            buffers.push(Buffer::numbers(stored, &x));
            // Read back, to compare with rounded numbers.
            buffers[buffers.len() - 1].read(stored)
        });
        Self { numbers: numbers.collect(), buffers }
    }
    fn addresses(&self) -> Vec<Address> {
        self.buffers.iter().map(Buffer::address).collect()
    }
    fn read_all(&self, stored: StorageType) -> Vec<f64> {
        self.buffers.iter().flat_map(|b| b.read(stored)).collect()
    }
    fn flat(&self) -> Vec<f64> {
        self.numbers.concat()
    }
}

#[test]
fn sgd_steps() {
    let sizes = tensor_sizes();
    for (stored, tolerance) in TOLERANCE {
        for nesterov in [false, true] {
            let by = Sgd { rate: 0.1, momentum: 0.9, decay: 0.05, nesterov };
            let lists = [1, 2, 3].map(|seed| List::new(stored, seed, &sizes, |x| x));
            let at = lists.each_ref().map(List::addresses);
            let next = List::new(stored, 4, &sizes, |_| f64::NAN);
            let (to, [w, g, b]) = (next.addresses(), at.each_ref().map(|list| &list[..]));
            let launches = Planner::new(stored).sgd_step([w, g, b, &to], &sizes, by).unwrap();
            assert_eq!(launches.len(), 2, "tensors of one launch");
            go(&launches, 3);
            let [w, g, b] = lists.each_ref().map(List::flat);
            let step = |i: usize| {
                let d = g[i] + 0.05 * w[i];
                let b = 0.9 * b[i] + d;
                (w[i] - 0.1 * if nesterov { d + 0.9 * b } else { b }, b)
            };
            let (w, b): (Vec<f64>, Vec<f64>) = (0..w.len()).map(step).unzip();
            assert_close("weights", &next.read_all(stored), &w, tolerance);
            assert_close("the weights before", &lists[0].read_all(stored), &lists[0].flat(), 0.0);
            assert_close("gradients", &lists[1].read_all(stored), &g, 0.0);
            assert_close("momentum", &lists[2].read_all(stored), &b, tolerance);
        }
    }
}

#[test]
fn adamw_steps() {
    let sizes = tensor_sizes();
    // Third step, with learning rate 0.01 and weight decay 0.1.
    let (beta1, beta2, eps): (f64, f64, f64) = (0.9, 0.99, 1e-3);
    let [scale, root] = [0.01 / (1.0 - beta1.powi(3)), (1.0 - beta2.powi(3)).sqrt()];
    let by = AdamW { beta1, beta2, eps, keep: 1.0 - 0.01 * 0.1, scale, root };
    for (stored, tolerance) in TOLERANCE {
        let lists = [1, 2, 3].map(|seed| List::new(stored, seed, &sizes, |x| x));
        let second = List::new(stored, 4, &sizes, f64::abs);
        let [w, g, m] = lists.each_ref().map(List::addresses);
        let v = second.addresses();
        let launches = Planner::new(stored).adamw_step([&w, &g, &m, &v, &w], &sizes, by).unwrap();
        go(&launches, 2);
        let [w, g, m] = lists.each_ref().map(List::flat);
        let step = |i: usize| {
            let d = g[i];
            let m = beta1 * m[i] + (1.0 - beta1) * d;
            let v = beta2 * second.flat()[i] + (1.0 - beta2) * d * d;
            let (mean, square) = (m / (1.0 - beta1.powi(3)), v / (1.0 - beta2.powi(3)));
            (w[i] * (1.0 - 0.01 * 0.1) - 0.01 * mean / (square.sqrt() + eps), m)
        };
        // Numbers are independent, so comparing the first 6000 and the last is sufficient.
        let some: Vec<usize> = (0..6000).chain(w.len() - 300..w.len()).collect();
        let pick = |x: Vec<f64>| -> Vec<f64> { some.iter().map(|&i| x[i]).collect() };
        let (w, m): (Vec<f64>, Vec<f64>) = some.iter().map(|&i| step(i)).unzip();
        assert_close("weights", &pick(lists[0].read_all(stored)), &w, tolerance);
        assert_close("first moment", &pick(lists[2].read_all(stored)), &m, tolerance);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn products_and_axpy() {
    let sizes = tensor_sizes();
    for (stored, tolerance) in TOLERANCE {
        let plan = Planner::new(stored);
        let [a, b] = [5, 6].map(|seed| List::new(stored, seed, &sizes, |x| x));
        let to = List::new(stored, 7, &sizes, |_| f64::NAN);
        let (x, d, y) = (a.addresses(), b.addresses(), to.addresses());
        let scratch = Buffer::blank(Planner::products_scratch(&sizes));
        let total = Buffer::blank(8 * PRODUCTS);
        let (scratch, sums) = (scratch.address(), total.address());
        let (a, b) = (a.flat(), b.flat());
        let mut bits = Vec::new();
        for order in 0..4 {
            go(&plan.products(&x, Some(&d), &sizes, scratch, sums).unwrap(), order);
            let found = total.read(StorageType::F64);
            // Inputs are rounded already, and sums are f64 for every storage type.
            let expected = [dot(&a, &a), dot(&a, &b), dot(&b, &b)];
            assert_close("products", &found, &expected, 1e-13);
            bits.push(found.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }
        assert!(bits.iter().all(|found| *found == bits[0]), "{bits:?}");
        go(&plan.products(&x, None, &sizes, scratch, sums).unwrap(), 0);
        assert_close("squares", &total.read(StorageType::F64), &[dot(&a, &a), 0.0, 0.0], 1e-13);

        go(&plan.axpy([&x, &d, &y], &sizes, -0.3).unwrap(), 1);
        let moved: Vec<f64> = a.iter().zip(&b).map(|(x, d)| x - 0.3 * d).collect();
        assert_close("axpy", &to.read_all(stored), &moved, tolerance);
        // In place: y = x.
        go(&plan.axpy([&x, &d, &x], &sizes, -0.3).unwrap(), 1);
        go(&plan.axpy([&x, &d, &x], &sizes, 0.3).unwrap(), 1);
        go(&plan.products(&x, None, &sizes, scratch, sums).unwrap(), 0);
        assert_close(
            "axpy and its inverse",
            &total.read(StorageType::F64)[..1],
            &[dot(&a, &a)],
            tolerance,
        );
    }
}

#[test]
fn scaling_by_magnitude() {
    let sizes = tensor_sizes();
    for (stored, tolerance) in TOLERANCE {
        let [x, w] = [8, 9].map(|seed| List::new(stored, seed, &sizes, |x| x));
        let (at, by) = (x.addresses(), w.addresses());
        let plan = Planner::new(stored);
        go(&plan.by_magnitude([&at, &by, &at], &sizes, 0.01).unwrap(), 5);
        let expected = x.flat().into_iter().zip(w.flat()).map(|(x, w)| x * (w.abs() + 0.01));
        assert_close("scaled", &x.read_all(stored), &expected.collect::<Vec<_>>(), tolerance);
    }
}

#[test]
fn products_of_an_empty_list_are_zero() {
    let total = Buffer::blank(8 * PRODUCTS);
    let plan = Planner::new(StorageType::F32);
    go(&plan.products(&[], None, &[], 0, total.address()).unwrap(), 0);
    assert_eq!(total.read(StorageType::F64), [0.0; PRODUCTS]);
}

#[test]
fn lists_that_do_not_match_are_errors() {
    let plan = Planner::new(StorageType::F32);
    let error = plan.axpy([&[16], &[], &[16]], &[1], 1.0).unwrap_err();
    assert!(error.to_string().contains("1 tensors in every list"), "{error}");
    let error = Planner::new(StorageType::Bf16).products(&[16], None, &[1], 0, 0).unwrap_err();
    assert!(error.to_string().contains("f32 or f64"), "{error}");
}

#[test]
fn numbers_become_bf16_and_back() {
    for n in [0usize, 1, 7, 8, 2048, 2051] {
        let exact = Stream(n as u64).numbers(&[n]);
        let x = Buffer::numbers(StorageType::F32, &exact);
        let (half, back) = (Buffer::blank(2 * n), Buffer::blank(4 * n));
        go(&Planner::to_bf16([x.address(), half.address()], n).unwrap(), 0);
        go(&Planner::from_bf16([half.address(), back.address()], n).unwrap(), 0);
        let expected: Vec<f64> =
            exact.iter().map(|&x| half::bf16::from_f32(x as f32).to_f64()).collect();
        assert_close("bf16", &back.read(StorageType::F32), &expected, 0.0);
    }
}
