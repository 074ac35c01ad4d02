//! Operations whose kernels run in the emulator, behind the interface of those on the CPU.

use crate::run::{In, Run};
use planish_emulator::Buffer;
use planish_kernels::cuda::{Plane, Planner};
use planish_kernels::{
    Add, CrossEntropy, DualTensor, FirstTokens, Gelu, Keep, Kept, LayerNorm, LayerScale,
    MeanTokens, Op, Patches, PickToken, Prepend, Result, Scale, Softmax, WeightRows,
};
use std::any::Any;
use std::fmt;

/// Operations of the registry that need no kernel of ours: products are cuBLAS's (attention's with
/// the kernels of softmax between them), flattening moves nothing.
pub const WITHOUT_KERNEL: &[&str] = &["linear", "matmul", "attention", "flatten"];

/// An operation, run by its kernels.
pub struct Emulated {
    pub inner: Box<dyn Op>,
    /// Order of the threads.
    pub order: u32,
    /// Threads a row, or the planner's choice.
    pub threads: Option<u32>,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Emulated {
    /// The operation, if it is a T.
    pub fn is<T: Op>(&self) -> Option<&T> {
        (&*self.inner as &dyn Any).downcast_ref()
    }

    /// Units of one image, and which of them are taken, if the operation takes some.
    fn slice(&self, dims: &[usize]) -> Option<(usize, usize, [usize; 2])> {
        let [images, len] = [dims[0], dims[1..].iter().product()];
        let width = dims.last().copied().unwrap_or(1);
        if let Some(op) = self.is::<PickToken>() {
            Some((images, len, [op.index * width, width]))
        } else if let Some(op) = self.is::<FirstTokens>() {
            Some((images, len, [0, op.count * width]))
        } else {
            let op = self.is::<WeightRows>()?;
            Some((1, images * len, [op.from * len, (op.to - op.from) * len]))
        }
    }
}

/// Rows of the last dimension.
fn sizes(x: &DualTensor) -> [usize; 2] {
    [x.numel() / x.columns().max(1), x.columns()]
}

/// Whether b is as large as a; else it is added to each of so many rows of its size.
fn rows_of_b(a: &[usize], b: &[usize]) -> [usize; 2] {
    let (a, b): (usize, usize) = (a.iter().product(), b.iter().product());
    [a / b.max(1), b]
}

impl Op for Emulated {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn keep(&self, wanted: &[bool]) -> Keep {
        self.inner.keep(wanted)
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let run = Run::new(self.order, self.threads, x);
        let (k, plan) = (run.k, run.planner);
        let ins: Vec<In> = x.iter().map(|x| run.input(x)).collect();
        let at = |i: usize| ins[i].plane();
        let size = sizes(x[0]);
        if let Some(&LayerNorm { eps }) = self.is() {
            let parameters = [at(0), at(1), at(2)];
            run.output(x[0].dims(), |y| plan.layer_norm_value(k, parameters, y, size, eps))
        } else if self.is::<Softmax>().is_some() {
            run.output(x[0].dims(), |y| plan.softmax_value(k, at(0), y, size))
        } else if let Some(&Gelu { tanh }) = self.is() {
            run.output(x[0].dims(), |y| plan.gelu_value(k, tanh, at(0), y, size))
        } else if let Some(op) = self.is::<CrossEntropy>() {
            let labels = Buffer::labels(&op.labels);
            let (at_labels, s) = (labels.address(), op.smoothing);
            let rows = &x[0].dims()[..1];
            run.output(rows, |y| plan.cross_entropy_value(k, at(0), at_labels, y, size, s))
        } else if self.is::<Add>().is_some() {
            let [rows, len] = rows_of_b(x[0].dims(), x[1].dims());
            run.output(x[0].dims(), |y| match rows {
                1 => plan.add_value(k, [at(0), at(1)], y, size),
                _ => plan.bias_value(k, [at(0), at(1)], y, [rows, len]),
            })
        } else if self.is::<LayerScale>().is_some() {
            run.output(x[0].dims(), |y| plan.layer_scale_value(k, [at(0), at(1)], y, size))
        } else if let Some(&Scale { factor }) = self.is() {
            run.output(x[0].dims(), |y| plan.scale_value(k, at(0), y, size, factor))
        } else if let Some(y) = self.fused_value(&run, x[0].dims(), &ins, size) {
            y
        } else {
            self.rearranged(&run, x, &ins)
        }
    }

    fn vjp(
        &self,
        kept: &Kept,
        gy: &DualTensor,
        wanted: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let keeps: Vec<&DualTensor> = kept.inputs.iter().flatten().chain(&kept.output).collect();
        let run = Run::new(self.order, self.threads, &[&keeps[..], &[gy]].concat());
        let (k, plan) = (run.k, run.planner);
        let ins: Vec<In> = keeps.iter().map(|x| run.input(x)).collect();
        let at = |i: usize| ins[i].plane();
        let cotangent = run.input(gy);
        let (g, size) = (cotangent.plane(), sizes(gy));
        let mut gradients = vec![None; wanted.len()];
        if let Some(&LayerNorm { eps }) = self.is() {
            if wanted[0] {
                let inputs = [at(0), at(1), g];
                let launches = |gx| plan.layer_norm_vjp_input(k, inputs, gx, size, eps);
                gradients[0] = Some(run.output(gy.dims(), launches)?);
            }
            if wanted[1] || wanted[2] {
                let [g_gamma, g_beta] = run.sums([&kept.dims[1], &kept.dims[2]], size, {
                    |sums, scratch| {
                        plan.layer_norm_vjp_parameters(k, [at(0), g], sums, scratch, size, eps)
                    }
                })?;
                (gradients[1], gradients[2]) = (Some(g_gamma), Some(g_beta));
            }
        } else if self.is::<Softmax>().is_some() {
            let gx = run.output(gy.dims(), |gx| plan.softmax_vjp(k, [at(0), g], gx, size))?;
            gradients[0] = Some(gx);
        } else if let Some(&Gelu { tanh }) = self.is() {
            let gx = run.output(gy.dims(), |gx| plan.gelu_vjp(k, tanh, [at(0), g], gx, size))?;
            gradients[0] = Some(gx);
        } else if let Some(op) = self.is::<CrossEntropy>() {
            let labels = Buffer::labels(&op.labels);
            let (at_labels, s, size) = (labels.address(), op.smoothing, sizes(keeps[0]));
            gradients[0] = Some(run.output(&kept.dims[0], |gx| {
                plan.cross_entropy_vjp(k, [at(0), g], at_labels, gx, size, s)
            })?);
        } else if self.is::<Add>().is_some() {
            gradients[0] = wanted[0].then(|| gy.clone());
            let size = rows_of_b(gy.dims(), &kept.dims[1]);
            if wanted[1] {
                let [gb] = run.sums([&kept.dims[1]], size, |[gb], scratch| {
                    plan.sum_rows(k, g, gb, scratch, size)
                })?;
                gradients[1] = Some(gb);
            }
        } else if self.is::<LayerScale>().is_some() {
            let gamma = kept.inputs[1].as_ref().map(|gamma| run.input(gamma));
            if let Some(gamma) = gamma {
                let inputs = [g, gamma.plane()];
                let launches = |gx| plan.layer_scale_value(k, inputs, gx, size);
                gradients[0] = Some(run.output(gy.dims(), launches)?);
            }
            if wanted[1] {
                let [g_gamma] = run.sums([&kept.dims[1]], size, |[sum], scratch| {
                    plan.layer_scale_vjp_gamma(k, [at(0), g], sum, scratch, size)
                })?;
                gradients[1] = Some(g_gamma);
            }
        } else if let Some(&Scale { factor }) = self.is() {
            let gx = run.output(gy.dims(), |gx| plan.scale_value(k, g, gx, size, factor))?;
            gradients[0] = Some(gx);
        } else if let Some(found) = self.fused_vjp(&run, kept, gy, size) {
            return found;
        } else {
            return self.rearranged_back(&run, kept, gy, wanted);
        }
        Ok(gradients)
    }
}

impl Emulated {
    /// Operations that only move numbers: the value and each tangent by a launch of its own.
    fn rearranged(&self, run: &Run, x: &[&DualTensor], ins: &[In]) -> Result<DualTensor> {
        let (d, plan, from) = (x[0].dims(), run.planner, ins[0].plane());
        if let Some(&Patches { size }) = self.is() {
            let ([b, c, height, width], [h, w]) = ([d[0], d[1], d[2], d[3]], size);
            let dims = [b, height / h * (width / w), c * h * w];
            run.linear(&dims, from, |ends, planes| {
                plan.patches(false, ends, planes * b, [c, height, width], size)
            })
        } else if let Some(&MeanTokens { skip }) = self.is() {
            run.linear(&[d[0], d[2]], from, |ends, planes| {
                plan.mean_tokens(false, ends, planes * d[0], [d[1], d[2]], skip)
            })
        } else if self.is::<Prepend>().is_some() {
            let images = x[1].dims()[0];
            let sizes = [d[1] * d[2], x[1].numel() / images];
            let dims = [images, d[1] + x[1].dims()[1], d[2]];
            let second = ins[1].plane();
            run.linear(&dims, from, |[t, y], planes| {
                // Where only one of them has tangents, the other's are zero.
                let x = if t == from.value { second.value } else { second.tangent };
                plan.prepend_value([t, x], y, [planes * images, images], sizes)
            })
        } else if let Some((images, len, range)) = self.slice(d) {
            let mut dims = d.to_vec();
            if self.is::<PickToken>().is_some() {
                dims.remove(1);
            } else if let Some(op) = self.is::<FirstTokens>() {
                dims[1] = op.count;
            } else if let Some(op) = self.is::<WeightRows>() {
                dims[0] = op.to - op.from;
            }
            run.linear(&dims, from, |ends, planes| {
                plan.slice_value(ends, planes * images, len, range)
            })
        } else {
            panic!("{} has no kernel here", self.name())
        }
    }

    fn rearranged_back(
        &self,
        run: &Run,
        kept: &Kept,
        gy: &DualTensor,
        wanted: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let (d, plan) = (&kept.dims[0], run.planner);
        let cotangent = run.input(gy);
        let g = cotangent.plane();
        let gx = if let Some(&Patches { size }) = self.is() {
            run.linear(d, g, |ends, planes| {
                plan.patches(true, ends, planes * d[0], [d[1], d[2], d[3]], size)
            })
        } else if let Some(&MeanTokens { skip }) = self.is() {
            run.linear(d, g, |ends, planes| {
                plan.mean_tokens(true, ends, planes * d[0], [d[1], d[2]], skip)
            })
        } else if self.is::<Prepend>().is_some() {
            return self.prepend_back(run, kept, g, wanted, plan);
        } else if let Some((images, len, range)) = self.slice(d) {
            run.linear(d, g, |ends, planes| plan.slice_vjp(ends, planes * images, len, range))
        } else {
            panic!("{} has no kernel here", self.name())
        };
        Ok(vec![Some(gx?)])
    }

    /// gt: the prefixes are cut out, then summed over images.
    fn prepend_back(
        &self,
        run: &Run,
        kept: &Kept,
        g: Plane,
        wanted: &[bool],
        plan: Planner,
    ) -> Result<Vec<Option<DualTensor>>> {
        let (t, x) = (&kept.dims[0], &kept.dims[1]);
        let (b, prefix, len) = (x[0], t[1] * t[2], x[1] * x[2]);
        let mut gradients = vec![None, None];
        if wanted[0] {
            let cut = run.linear(&[b, prefix], g, |ends, planes| {
                plan.slice_value(ends, planes * b, prefix + len, [0, prefix])
            })?;
            let cut = run.input(&cut);
            let [gt] = run.sums([t], [b, prefix], |[gt], scratch| {
                plan.sum_rows(run.k, cut.plane(), gt, scratch, [b, prefix])
            })?;
            gradients[0] = Some(gt);
        }
        if wanted[1] {
            gradients[1] = Some(run.linear(x, g, |ends, planes| {
                plan.slice_value(ends, planes * b, prefix + len, [prefix, len])
            })?);
        }
        Ok(gradients)
    }
}
