//! Fused kernels as operations: on the CPU composed of what they fuse, in the emulator one kernel.

use crate::ops::Emulated;
use crate::run::{In, Run};
use planish_kernels::{Add, DualTensor, Gelu, Keep, Kept, Op, Result};

/// y = gelu(x + b).
#[derive(Clone, Copy, Debug)]
pub struct BiasGelu {
    pub tanh: bool,
}

/// y = r + (x + b), of x, b, r.
#[derive(Clone, Copy, Debug)]
pub struct BiasResidual;

fn keep_all() -> Keep {
    Keep { inputs: 0b111, output: false }
}

fn kept_of(x: &[&DualTensor]) -> Kept {
    Kept {
        inputs: x.iter().map(|&x| Some(x.clone())).collect(),
        output: None,
        dims: x.iter().map(|x| x.dims().to_vec()).collect(),
    }
}

impl Op for BiasGelu {
    fn name(&self) -> &'static str {
        "bias_gelu"
    }
    fn keep(&self, _: &[bool]) -> Keep {
        keep_all()
    }
    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        Gelu { tanh: self.tanh }.value(&[&Add.value(x)?])
    }
    fn vjp(&self, kept: &Kept, gy: &DualTensor, w: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let x = [kept.input("bias_gelu", 0)?, kept.input("bias_gelu", 1)?];
        let sum = Add.value(&x)?;
        let g = Gelu { tanh: self.tanh }.vjp(&kept_of(&[&sum]), gy, &[true])?;
        Add.vjp(kept, g[0].as_ref().unwrap(), w)
    }
}

impl Op for BiasResidual {
    fn name(&self) -> &'static str {
        "bias_residual"
    }
    fn keep(&self, _: &[bool]) -> Keep {
        keep_all()
    }
    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        Add.value(&[x[2], &Add.value(&x[..2])?])
    }
    fn vjp(&self, kept: &Kept, gy: &DualTensor, w: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let mut g = Add.vjp(kept, gy, w)?;
        g.push(Some(gy.clone()));
        Ok(g)
    }
}

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
