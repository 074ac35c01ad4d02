//! The launches of fused operations.

use crate::ops::Emulated;
use crate::run::{In, Run};
use planish_kernels::{BiasGelu, BiasResidual, DualTensor, Kept, Result};

impl Emulated {
    /// y of a fused operation, if it is one.
    pub fn fused_value(
        &self,
        run: &Run,
        dims: &[usize],
        ins: &[In],
        size: [usize; 2],
    ) -> Option<Result<DualTensor>> {
        let at = |i: usize| ins[i].plane();
        let (k, plan) = (run.k, run.planner);
        if let Some(&BiasGelu { tanh }) = self.is() {
            let inputs = [at(0), at(1)];
            Some(run.output(dims, |y| plan.bias_gelu_value(k, tanh, inputs, y, size)))
        } else {
            self.is::<BiasResidual>()?;
            let inputs = [at(0), at(1), at(2)];
            Some(run.output(dims, |y| plan.bias_residual_value(k, inputs, y, size)))
        }
    }

    /// Its gradients.
    pub fn fused_vjp(
        &self,
        run: &Run,
        kept: &Kept,
        gy: &DualTensor,
        size: [usize; 2],
    ) -> Option<Result<Vec<Option<DualTensor>>>> {
        let cotangent = run.input(gy);
        let (g, k, plan) = (cotangent.plane(), run.k, run.planner);
        if let Some(&BiasGelu { tanh }) = self.is() {
            let ins: Vec<In> = kept.inputs.iter().flatten().map(|x| run.input(x)).collect();
            let inputs = [ins[0].plane(), ins[1].plane(), g];
            let mut sums = None;
            let gx = run.output(gy.dims(), |gx| {
                let found = run.sums([&kept.dims[1]], size, |[gb], scratch| {
                    plan.bias_gelu_vjp(k, tanh, inputs, [gx, gb], scratch, size)
                });
                sums = Some(found?);
                Ok(Vec::new())
            });
            let gb = sums.map(|[gb]| gb);
            Some(gx.map(|gx| vec![Some(gx), gb]))
        } else {
            self.is::<BiasResidual>()?;
            let sums = run.sums([&kept.dims[1]], size, |[gb], scratch| {
                plan.sum_rows(k, g, gb, scratch, size)
            });
            Some(sums.map(|[gb]| vec![Some(gy.clone()), Some(gb), Some(gy.clone())]))
        }
    }
}
