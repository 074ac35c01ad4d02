//! In-place sums of many tensors.

use crate::cpu::run_serially;
use crate::dual_tensor::DualTensor;
use crate::error::Result;
use crate::lanes::Element;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;

/// Count of numbers added by one thread.
const BLOCK: usize = 1 << 15;

/// Σ of tensors of equal shape, with tangents. An absent tangent counts as zero.
///
/// The second term allocates a tensor that the accumulator owns alone. Later terms are added to it
/// in place, which avoids further allocations.
#[derive(Debug, Default)]
pub struct Accumulator {
    sum: Option<DualTensor>,
    /// Whether the accumulator is the only owner of value and tangent.
    own: bool,
}

impl Accumulator {
    /// Adds a term.
    ///
    /// # Errors
    /// A term of a different shape or type.
    pub fn add(&mut self, term: DualTensor) -> Result<()> {
        let Some(sum) = self.sum.take() else {
            self.sum = Some(term);
            return Ok(());
        };
        let alike = sum.tangents() == term.tangents();
        if self.own && alike && sum.dims() == term.dims() {
            add_to(sum.value(), term.value())?;
            if let (Some(sum), Some(term)) = (sum.tangent(), term.tangent()) {
                add_to(sum, term)?;
            }
            self.sum = Some(sum);
        } else {
            // If only one operand has a tangent, the sum shares that tangent's memory.
            self.own = alike;
            self.sum = Some(sum.plus(&term)?);
        }
        Ok(())
    }

    /// The sum. `None` if there were no terms.
    pub fn finish(self) -> Option<DualTensor> {
        self.sum
    }
}

/// a += b in place.
fn add_to(a: &Tensor, b: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return crate::cuda::gpu::add_into(a, b);
    }
    Ok(a.inplace_op2(b, &AddTo)?)
}

/// a += b on the CPU.
struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add_to"
    }

    fn cpu_fwd(
        &self,
        a: &mut CpuStorage,
        at: &Layout,
        b: &CpuStorage,
        from: &Layout,
    ) -> candle_core::Result<()> {
        let (Some(at), Some(from)) = (at.contiguous_offsets(), from.contiguous_offsets()) else {
            return Err(candle_core::Error::RequiresContiguous { op: "add_to" });
        };
        match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => add(&mut a[at.0..at.1], &b[from.0..from.1]),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => add(&mut a[at.0..at.1], &b[from.0..from.1]),
            (_, b) => {
                let (expected, got) = (DType::F32, b.dtype());
                return Err(candle_core::Error::UnexpectedDType { msg: "add_to", expected, got });
            }
        }
        Ok(())
    }
}

fn add<E: Element>(a: &mut [E], b: &[E]) {
    let part = |(a, b): (&mut [E], &[E])| a.iter_mut().zip(b).for_each(|(a, &b)| *a += b);
    if a.len() <= BLOCK || run_serially() {
        part((a, b));
    } else {
        a.par_chunks_mut(BLOCK).zip(b.par_chunks(BLOCK)).for_each(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(from: f64, n: usize, dtype: DType) -> Tensor {
        let values: Vec<f64> = (0..n).map(|i| from + i as f64).collect();
        Tensor::from_vec(values, n, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    #[test]
    fn the_accumulator_sums_terms_without_changing_them() {
        let n = 3 * BLOCK + 5;
        for dtype in [DType::F32, DType::F64] {
            let terms: Vec<DualTensor> = (0..4)
                .map(|i| {
                    let tangent = tensor(-f64::from(i), n, dtype).unsqueeze(0).unwrap();
                    // The first term has no tangent.
                    let tangent = (i > 0).then_some(tangent);
                    DualTensor::new(tensor(f64::from(10 * i), n, dtype), tangent).unwrap()
                })
                .collect();
            let mut sum = Accumulator::default();
            for term in &terms {
                sum.add(term.clone()).unwrap();
            }
            let (value, tangent) = sum.finish().unwrap().into_parts();
            let numbers = |t: &Tensor| -> Vec<f64> {
                t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            let (value, tangent) = (numbers(&value), numbers(&tangent.unwrap()));
            for i in [0, 1, BLOCK, n - 1] {
                assert_eq!(value[i], 60.0 + 4.0 * i as f64);
                assert_eq!(tangent[i], -6.0 + 3.0 * i as f64);
            }
            for (i, term) in terms.iter().enumerate() {
                assert_eq!(numbers(term.value())[7], (10 * i + 7) as f64);
                if let Some(t) = term.tangent() {
                    assert_eq!(numbers(t)[7], 7.0 - i as f64);
                }
            }
        }
    }

    #[test]
    fn mismatched_terms_are_errors() {
        let mut sum = Accumulator::default();
        assert!(Accumulator::default().finish().is_none());
        for _ in 0..2 {
            sum.add(DualTensor::constant(tensor(0.0, 4, DType::F32))).unwrap();
        }
        assert!(sum.add(DualTensor::constant(tensor(0.0, 5, DType::F32))).is_err());
    }
}
