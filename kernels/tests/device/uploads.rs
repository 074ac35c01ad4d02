//! Uploads that run while the device computes.

use super::{device, tensor};
use candle_core::{DType, Device};
use planish_kernels::cuda::gpu::Uploads;
use planish_kernels::{Add, DualTensor, Error, Op};
use std::process::Command;

#[test]
fn uploads_preserve_the_data() {
    let device = device();
    let uploads = Uploads::new(&device).unwrap();
    let numbers: Vec<f64> = (0..70_000).map(f64::from).collect();
    let x = tensor(&numbers, &[7, 10_000], DType::F32);
    // More uploads than buffers; some of views, some dropped unused. The results are read only
    // after all uploads have started.
    let sums: Vec<DualTensor> = (0..7)
        .map(|i| {
            let row = x.narrow(0, i, 1).unwrap();
            let _unused = uploads.send(&row).unwrap();
            let uploaded = DualTensor::constant(uploads.send(&row).unwrap().wait().unwrap());
            Add.value(&[&uploaded, &uploaded]).unwrap()
        })
        .collect();
    for (i, sum) in sums.iter().enumerate() {
        let found = sum.value().to_device(&Device::Cpu).unwrap().flatten_all().unwrap();
        let expected = |j: usize| 2.0 * (10_000 * i + j) as f32;
        let found = found.to_vec1::<f32>().unwrap();
        assert!(found.len() == 10_000 && (0..10_000).all(|j| found[j] == expected(j)), "row {i}");
    }
    let transposed = uploads.send(&x.t().unwrap());
    assert!(matches!(transposed, Err(Error::Strided { op: "upload", .. })));
    assert!(uploads.send(&x.to_dtype(DType::F64).unwrap()).is_err());
    assert!(Uploads::new(&Device::Cpu).is_err());
}

#[test]
fn mistakes_in_waiting_are_detected() {
    for (mistake, code) in [("none", 0), ("early use", 86), ("early copy", 86), ("reuse", 86)] {
        let mut run = Command::new(std::env::current_exe().unwrap());
        run.args(["--exact", "uploads::uploads_preserve_the_data"]);
        let out = run.env("STANDIN_PLANT", mistake).output().unwrap();
        let errors = String::from_utf8(out.stderr).unwrap();
        println!("{mistake}: {:?} {}", out.status.code(), errors.trim());
        assert_eq!(out.status.code(), Some(code), "{mistake}: {errors}");
    }
}
