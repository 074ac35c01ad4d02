//! The operations of the registry on their test shapes.

use crate::checks::{Stream, check};
use crate::ops::{Emulated, WITHOUT_KERNEL};
use planish_kernels::registry::{REGISTRY, Sample};

#[test]
fn every_operation_with_a_kernel_passes_every_check() {
    let mut checked = 0;
    for (name, samples) in REGISTRY.iter().filter(|(name, _)| !WITHOUT_KERNEL.contains(name)) {
        for (i, Sample { op, dims }) in samples().into_iter().enumerate() {
            // A different shuffle for each sample.
            let op = Box::new(Emulated { inner: op, order: 2 + i as u32, threads: None });
            check(name, &Sample { op, dims }, &mut Stream(7));
            checked += 1;
        }
    }
    println!("{checked} samples of {} operations", REGISTRY.len() - WITHOUT_KERNEL.len());
}
