//! Tensors whose address is not a multiple of 16 bytes, such as views.

use crate::buffer::Buffer;
use crate::run::go;
use planish_kernels::cuda::{PRODUCTS, Plane, Planner, StorageType};

const NUMBERS: usize = 96;

/// The numbers 0, 1, 2, … from index `shift` on, and their address.
fn shifted(shift: usize) -> (Buffer, u64) {
    let numbers: Vec<f64> = (0..shift + NUMBERS).map(|i| i as f64 - shift as f64).collect();
    let buffer = Buffer::numbers(StorageType::F32, &numbers);
    let at = buffer.address() + 4 * shift as u64;
    (buffer, at)
}

/// The numbers from index `shift` on. Checks that everything before is unwritten.
fn read(buffer: &Buffer, shift: usize) -> Vec<f64> {
    let numbers = buffer.read(StorageType::F32);
    assert!(numbers[..shift].iter().all(|x| x.is_nan()));
    numbers[shift..].to_vec()
}

#[test]
fn rows_and_lists_may_start_at_any_offset() {
    let plan = Planner::new(StorageType::F32);
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let (_x, at) = shifted(from);
        let blank = || Buffer::blank(4 * (to + NUMBERS));
        let plane = |value: u64| Plane { value, tangent: 0 };

        let y = blank();
        let target = y.address() + 4 * to as u64;
        // Row lengths that are and are not multiples of 16 bytes.
        for sizes in [[NUMBERS / 8, 8], [NUMBERS / 6, 6]] {
            go(&plan.add_value(0, [plane(at); 2], plane(target), sizes).unwrap(), 2);
            assert!(read(&y, to).iter().enumerate().all(|(i, y)| *y == 2.0 * i as f64));
        }

        let (y, scratch, total) =
            (blank(), Buffer::blank(8 * PRODUCTS), Buffer::blank(8 * PRODUCTS));
        let target = y.address() + 4 * to as u64;
        let lists = [&[at][..], &[at], &[target]];
        go(&plan.axpy(lists, &[NUMBERS], -0.5).unwrap(), 2);
        assert!(read(&y, to).iter().enumerate().all(|(i, y)| *y == 0.5 * i as f64));
        let (sums, scratch) = (total.address(), scratch.address());
        let launches = plan.products(&[target], Some(&[at]), &[NUMBERS], scratch, sums);
        go(&launches.unwrap(), 2);
        let square: f64 = (0..NUMBERS).map(|i| (i * i) as f64).sum();
        assert_eq!(total.read(StorageType::F64), [0.25 * square, 0.5 * square, square]);

        let y = blank();
        let target = y.address() + 4 * to as u64;
        go(&plan.slice_value([at, target], 2, NUMBERS / 2, [4, 40]).unwrap(), 2);
        let found = read(&y, to);
        let expected = (4..44).chain(52..92).map(f64::from);
        assert!(found.iter().zip(expected).all(|(found, expected)| *found == expected));
    }
}
