//! Runs every check on every registered operation on the CPU.

mod checks;

use checks::{Stream, check};
use planish_kernels::registry::REGISTRY;

#[test]
fn every_operation_passes_every_check() {
    for (name, samples) in REGISTRY {
        let samples = samples();
        assert!(!samples.is_empty(), "{name} has no sample");
        for sample in &samples {
            check(name, sample, &mut Stream(7));
        }
    }
}
