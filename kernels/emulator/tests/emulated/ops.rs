//! Operations that run their CUDA kernels in the emulator, behind the trait [`Op`].

use crate::buffer::Buffer;
use crate::run::{In, Run};
use planish_kernels::cuda::{Plane, Planner};
use planish_kernels::{
    Add, BiasGelu, BiasResidual, Concat, CrossEntropy, DepthwiseConv, DualTensor, FirstTokens,
    Gelu, GlobalResponseNorm, LayerNorm, LayerScale, MeanTokens, Op, Patches, PickToken, Prepend,
    Result, SaveSet, Saved, Scale, SkipTokens, Softmax, SwiGlu, TokenPatches, TransposeTokens,
    WeightRows,
};
use std::any::Any;
use std::fmt;

/// Operations without kernels here: products use cuBLAS (attention also the softmax kernels), and
/// flattening and regrouping move no data.
pub const WITHOUT_KERNEL: &[&str] =
    &["linear", "matmul", "attention", "mix_tokens", "flatten", "regroup"];

/// An operation that runs its kernels in the emulator.
pub struct Emulated {
    pub inner: Box<dyn Op>,
    /// Order of threads.
    pub order: u32,
    /// Threads per row; `None` for the planner's choice.
    pub threads: Option<u32>,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Emulated {
    /// The operation, if it has type T.
    pub fn is<T: Op>(&self) -> Option<&T> {
        (&*self.inner as &dyn Any).downcast_ref()
    }

    /// Number of images, numbers per image, and the range selected, if the operation selects a
    /// range.
    fn slice(&self, dims: &[usize]) -> Option<(usize, usize, [usize; 2])> {
        let [images, len] = [dims[0], dims[1..].iter().product()];
        let width = dims.last().copied().unwrap_or(1);
        if let Some(op) = self.is::<PickToken>() {
            Some((images, len, [op.index * width, width]))
        } else if let Some(op) = self.is::<FirstTokens>() {
            Some((images, len, [0, op.count * width]))
        } else if let Some(op) = self.is::<SkipTokens>() {
            Some((images, len, [op.count * width, len - op.count * width]))
        } else {
            let op = self.is::<WeightRows>()?;
            Some((1, images * len, [op.from * len, (op.to - op.from) * len]))
        }
    }
}

/// Rows and columns along the last dimension.
fn sizes(x: &DualTensor) -> [usize; 2] {
    [x.numel() / x.columns().max(1), x.columns()]
}

/// Number of rows of b's size in a, and that size. One row if the shapes are equal.
fn rows_of_b(a: &[usize], b: &[usize]) -> [usize; 2] {
    let (a, b): (usize, usize) = (a.iter().product(), b.iter().product());
    [a / b.max(1), b]
}

impl Op for Emulated {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        self.inner.shape(x)
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        self.inner.is_affine_in(inputs)
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        self.inner.save_set(needs_grad)
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
        } else if let Some(&Gelu { form }) = self.is() {
            run.output(x[0].dims(), |y| plan.gelu_value(k, form, at(0), y, size))
        } else if self.is::<SwiGlu>().is_some() {
            run.output(x[0].dims(), |y| plan.swiglu_value(k, [at(0), at(1)], y, size))
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
        } else if let Some(&GlobalResponseNorm { eps }) = self.is() {
            let d = x[0].dims();
            let (sizes, of_images) = ([d[0], d[1], d[2]], [d[0], d[2]]);
            let squares = run.output(&of_images, |to| plan.token_squares(k, at(0), to, sizes))?;
            let squares = run.input(&squares);
            let scale = run.output(&of_images, |to| {
                plan.global_response_norm_scale(k, squares.plane(), to, of_images, eps)
            })?;
            let scale = run.input(&scale);
            let inputs = [at(0), scale.plane(), at(1), at(2)];
            run.output(d, |y| plan.global_response_norm_value(k, inputs, y, sizes))
        } else if let Some(op) = self.is::<DepthwiseConv>() {
            let (s, b) = (op.sizes(x[0].dims(), x[1].dims())?, ins.get(2).map(In::plane));
            let dims = self.shape(&[x[0].dims(), x[1].dims()])?;
            run.output(&dims, |y| plan.depthwise_conv_value(k, [at(0), at(1)], b, y, &s))
        } else if let Some(y) = self.fused_value(&run, x[0].dims(), &ins, size) {
            y
        } else {
            self.rearranged(&run, x, &ins)
        }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let saved_tensors: Vec<&DualTensor> =
            saved.inputs.iter().flatten().chain(&saved.output).collect();
        let run = Run::new(self.order, self.threads, &[&saved_tensors[..], &[gy]].concat());
        let (k, plan) = (run.k, run.planner);
        let ins: Vec<In> = saved_tensors.iter().map(|x| run.input(x)).collect();
        let at = |i: usize| ins[i].plane();
        let cotangent = run.input(gy);
        let (g, size) = (cotangent.plane(), sizes(gy));
        let mut gradients = vec![None; needs_grad.len()];
        if let Some(&LayerNorm { eps }) = self.is() {
            if needs_grad[0] {
                let inputs = [at(0), at(1), g];
                let launches = |gx| plan.layer_norm_vjp_input(k, inputs, gx, size, eps);
                gradients[0] = Some(run.output(gy.dims(), launches)?);
            }
            if needs_grad[1] || needs_grad[2] {
                let [g_gamma, g_beta] = run.sums([&saved.dims[1], &saved.dims[2]], size, {
                    |sums, scratch| {
                        plan.layer_norm_vjp_parameters(k, [at(0), g], sums, scratch, size, eps)
                    }
                })?;
                (gradients[1], gradients[2]) = (Some(g_gamma), Some(g_beta));
            }
        } else if self.is::<Softmax>().is_some() {
            let gx = run.output(gy.dims(), |gx| plan.softmax_vjp(k, [at(0), g], gx, size))?;
            gradients[0] = Some(gx);
        } else if let Some(&Gelu { form }) = self.is() {
            let gx = run.output(gy.dims(), |gx| plan.gelu_vjp(k, form, [at(0), g], gx, size))?;
            gradients[0] = Some(gx);
        } else if self.is::<SwiGlu>().is_some() {
            let inputs = [at(0), at(1), g];
            let found = run.two(gy.dims(), |outputs| plan.swiglu_vjp(k, inputs, outputs, size))?;
            gradients = found.map(Some).into();
        } else if let Some(op) = self.is::<CrossEntropy>() {
            let labels = Buffer::labels(&op.labels);
            let (at_labels, s, size) = (labels.address(), op.smoothing, sizes(saved_tensors[0]));
            gradients[0] = Some(run.output(&saved.dims[0], |gx| {
                plan.cross_entropy_vjp(k, [at(0), g], at_labels, gx, size, s)
            })?);
        } else if self.is::<Add>().is_some() {
            gradients[0] = needs_grad[0].then(|| gy.clone());
            let size = rows_of_b(gy.dims(), &saved.dims[1]);
            if needs_grad[1] {
                let [gb] = run.sums([&saved.dims[1]], size, |[gb], scratch| {
                    plan.sum_rows(k, g, gb, scratch, size)
                })?;
                gradients[1] = Some(gb);
            }
        } else if self.is::<LayerScale>().is_some() {
            let gamma = saved.inputs[1].as_ref().map(|gamma| run.input(gamma));
            if let Some(gamma) = gamma {
                let inputs = [g, gamma.plane()];
                let launches = |gx| plan.layer_scale_value(k, inputs, gx, size);
                gradients[0] = Some(run.output(gy.dims(), launches)?);
            }
            if needs_grad[1] {
                let [g_gamma] = run.sums([&saved.dims[1]], size, |[sum], scratch| {
                    plan.layer_scale_vjp_gamma(k, [at(0), g], sum, scratch, size)
                })?;
                gradients[1] = Some(g_gamma);
            }
        } else if let Some(&Scale { factor }) = self.is() {
            let gx = run.output(gy.dims(), |gx| plan.scale_value(k, g, gx, size, factor))?;
            gradients[0] = Some(gx);
        } else if let Some(&GlobalResponseNorm { eps }) = self.is() {
            return self.response_norm_vjp(&run, saved, g, needs_grad, eps);
        } else if let Some(op) = self.is::<DepthwiseConv>() {
            let s = op.sizes(&saved.dims[0], &saved.dims[1])?;
            let [x, w] = [0, 1].map(|i| saved.inputs[i].as_ref().map(|x| run.input(x)));
            if let (true, Some(w)) = (needs_grad[0], w) {
                let launches = |gx| plan.depthwise_conv_vjp_input(k, [g, w.plane()], gx, &s);
                gradients[0] = Some(run.output(&saved.dims[0], launches)?);
            }
            if let (true, Some(x)) = (needs_grad[1], x) {
                let sizes = [s.images * s.to[0], s.filter_numbers()];
                let [gw] = run.sums([&saved.dims[1]], sizes, |[gw], scratch| {
                    plan.depthwise_conv_vjp_weight(k, [x.plane(), g], gw, scratch, &s)
                })?;
                gradients[1] = Some(gw);
            }
            if needs_grad.get(2) == Some(&true) {
                let [gb] = run.sums([&saved.dims[2]], size, |[gb], scratch| {
                    plan.sum_rows(k, g, gb, scratch, size)
                })?;
                gradients[2] = Some(gb);
            }
        } else if let Some(found) = self.fused_vjp(&run, saved, gy, size) {
            return found;
        } else {
            return self.rearranged_vjp(&run, saved, gy, needs_grad);
        }
        Ok(gradients)
    }
}

impl Emulated {
    /// Rearrangements: one launch for the value and one for the tangents.
    fn rearranged(&self, run: &Run, x: &[&DualTensor], ins: &[In]) -> Result<DualTensor> {
        let (d, plan, from) = (x[0].dims(), run.planner, ins[0].plane());
        if let Some(&Patches { size }) = self.is() {
            let ([b, c, height, width], [h, w]) = ([d[0], d[1], d[2], d[3]], size);
            let dims = [b, height / h * (width / w), c * h * w];
            run.linear(&dims, from, |ends, planes| {
                plan.patches(false, ends, planes * b, [c, height, width], size)
            })
        } else if let Some(&TokenPatches { grid: [height, width], size }) = self.is() {
            run.linear(&self.shape(&[d])?, from, |ends, planes| {
                plan.token_patches(false, ends, planes * d[0], [height, width, d[2]], size)
            })
        } else if self.is::<TransposeTokens>().is_some() {
            run.linear(&[d[0], d[2], d[1]], from, |ends, planes| {
                plan.transpose_tokens(ends, planes * d[0], [d[1], d[2]])
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
                // If only one operand has tangents, those of the other are zero.
                let x = if t == from.value { second.value } else { second.tangent };
                plan.prepend_value([t, x], y, [planes * images, images], sizes)
            })
        } else if self.is::<Concat>().is_some() {
            let (n, m) = (x[0].columns(), x[1].columns());
            let (rows, second) = (x[0].numel() / n, ins[1].plane());
            run.linear(&self.shape(&[d, x[1].dims()])?, from, |[a, y], planes| {
                let b = if a == from.value { second.value } else { second.tangent };
                plan.prepend_value([a, b], y, [planes * rows, 1], [n, m])
            })
        } else if let Some((images, len, range)) = self.slice(d) {
            let mut dims = d.to_vec();
            if self.is::<PickToken>().is_some() {
                dims.remove(1);
            } else if let Some(op) = self.is::<FirstTokens>() {
                dims[1] = op.count;
            } else if let Some(op) = self.is::<SkipTokens>() {
                dims[1] -= op.count;
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

    fn rearranged_vjp(
        &self,
        run: &Run,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let (d, plan) = (&saved.dims[0], run.planner);
        let cotangent = run.input(gy);
        let g = cotangent.plane();
        let gx = if let Some(&Patches { size }) = self.is() {
            run.linear(d, g, |ends, planes| {
                plan.patches(true, ends, planes * d[0], [d[1], d[2], d[3]], size)
            })
        } else if let Some(&TokenPatches { grid: [height, width], size }) = self.is() {
            run.linear(d, g, |ends, planes| {
                plan.token_patches(true, ends, planes * d[0], [height, width, d[2]], size)
            })
        } else if self.is::<TransposeTokens>().is_some() {
            run.linear(d, g, |ends, planes| {
                plan.transpose_tokens(ends, planes * d[0], [d[2], d[1]])
            })
        } else if let Some(&MeanTokens { skip }) = self.is() {
            run.linear(d, g, |ends, planes| {
                plan.mean_tokens(true, ends, planes * d[0], [d[1], d[2]], skip)
            })
        } else if self.is::<Prepend>().is_some() {
            return self.prepend_vjp(run, saved, g, needs_grad, plan);
        } else if self.is::<Concat>().is_some() {
            let [n, m] = [0, 1].map(|i| saved.dims[i][saved.dims[i].len() - 1]);
            let rows = gy.numel() / (n + m);
            let slice = |i: usize, range: [usize; 2]| {
                run.linear(&saved.dims[i], g, |ends, planes| {
                    plan.slice_value(ends, planes * rows, n + m, range)
                })
            };
            return Ok(vec![
                needs_grad[0].then(|| slice(0, [0, n])).transpose()?,
                needs_grad[1].then(|| slice(1, [n, m])).transpose()?,
            ]);
        } else if let Some((images, len, range)) = self.slice(d) {
            run.linear(d, g, |ends, planes| plan.slice_vjp(ends, planes * images, len, range))
        } else {
            panic!("{} has no kernel here", self.name())
        };
        Ok(vec![Some(gx?)])
    }

    /// gt: slices out the prefixes and sums them over images.
    fn prepend_vjp(
        &self,
        run: &Run,
        saved: &Saved,
        g: Plane,
        needs_grad: &[bool],
        plan: Planner,
    ) -> Result<Vec<Option<DualTensor>>> {
        let (t, x) = (&saved.dims[0], &saved.dims[1]);
        let (b, prefix, len) = (x[0], t[1] * t[2], x[1] * x[2]);
        let mut gradients = vec![None, None];
        if needs_grad[0] {
            let cut = run.linear(&[b, prefix], g, |ends, planes| {
                plan.slice_value(ends, planes * b, prefix + len, [0, prefix])
            })?;
            let cut = run.input(&cut);
            let [gt] = run.sums([t], [b, prefix], |[gt], scratch| {
                plan.sum_rows(run.k, cut.plane(), gt, scratch, [b, prefix])
            })?;
            gradients[0] = Some(gt);
        }
        if needs_grad[1] {
            gradients[1] = Some(run.linear(x, g, |ends, planes| {
                plan.slice_value(ends, planes * b, prefix + len, [prefix, len])
            })?);
        }
        Ok(gradients)
    }
}

impl Emulated {
    /// y, if the operation is a fused one.
    fn fused_value(
        &self,
        run: &Run,
        dims: &[usize],
        ins: &[In],
        size: [usize; 2],
    ) -> Option<Result<DualTensor>> {
        let at = |i: usize| ins[i].plane();
        let (k, plan) = (run.k, run.planner);
        if let Some(&BiasGelu { form }) = self.is() {
            let inputs = [at(0), at(1)];
            Some(run.output(dims, |y| plan.bias_gelu_value(k, form, inputs, y, size)))
        } else {
            self.is::<BiasResidual>()?;
            let inputs = [at(0), at(1), at(2)];
            Some(run.output(dims, |y| plan.bias_residual_value(k, inputs, y, size)))
        }
    }

    /// Gradients, if the operation is a fused one.
    fn fused_vjp(
        &self,
        run: &Run,
        saved: &Saved,
        gy: &DualTensor,
        size: [usize; 2],
    ) -> Option<Result<Vec<Option<DualTensor>>>> {
        let cotangent = run.input(gy);
        let (g, k, plan) = (cotangent.plane(), run.k, run.planner);
        if let Some(&BiasGelu { form }) = self.is() {
            let ins: Vec<In> = saved.inputs.iter().flatten().map(|x| run.input(x)).collect();
            let inputs = [ins[0].plane(), ins[1].plane(), g];
            let mut sums = None;
            let gx = run.output(gy.dims(), |gx| {
                let found = run.sums([&saved.dims[1]], size, |[gb], scratch| {
                    plan.bias_gelu_vjp(k, form, inputs, [gx, gb], scratch, size)
                });
                sums = Some(found?);
                Ok(Vec::new())
            });
            let gb = sums.map(|[gb]| gb);
            Some(gx.map(|gx| vec![Some(gx), gb]))
        } else {
            self.is::<BiasResidual>()?;
            let sums = run.sums([&saved.dims[1]], size, |[gb], scratch| {
                plan.sum_rows(k, g, gb, scratch, size)
            });
            Some(sums.map(|[gb]| vec![Some(gy.clone()), Some(gb), Some(gy.clone())]))
        }
    }
}

impl Emulated {
    /// Gradients of a global response normalisation.
    fn response_norm_vjp(
        &self,
        run: &Run,
        saved: &Saved,
        g: Plane,
        needs_grad: &[bool],
        eps: f64,
    ) -> Result<Vec<Option<DualTensor>>> {
        let (k, plan, d) = (run.k, run.planner, &saved.dims[0]);
        let (sizes, of_images) = ([d[0], d[1], d[2]], [d[0], d[2]]);
        let mut gradients = vec![None, None, None];
        if let Some(x) = saved.inputs[0].as_ref().map(|x| run.input(x)) {
            let [squares, s] =
                run.two(&of_images, |sums| plan.token_sums(k, [x.plane(), g], sums, sizes))?;
            let [squares, s] = [squares, s].map(|x| run.input(&x));
            let scale = run.output(&of_images, |to| {
                plan.global_response_norm_scale(k, squares.plane(), to, of_images, eps)
            })?;
            let scale = run.input(&scale);
            if let Some(gamma) = saved.inputs[1].as_ref().map(|x| run.input(x)) {
                let inputs = [squares.plane(), s.plane(), gamma.plane()];
                let slope = run.output(&of_images, |to| {
                    plan.global_response_norm_slope(k, inputs, to, of_images, eps)
                })?;
                let slope = run.input(&slope);
                let inputs = [x.plane(), g, scale.plane(), slope.plane(), gamma.plane()];
                gradients[0] =
                    Some(run.output(d, |gx| {
                        plan.global_response_norm_vjp_input(k, inputs, gx, sizes)
                    })?);
            }
            let inputs = [scale.plane(), s.plane()];
            let [g_gamma] = run.sums([&saved.dims[1]], of_images, |[sum], scratch| {
                plan.layer_scale_vjp_gamma(k, inputs, sum, scratch, of_images)
            })?;
            gradients[1] = Some(g_gamma);
        }
        if needs_grad[2] {
            let size = [d[0] * d[1], d[2]];
            let [g_beta] = run.sums([&saved.dims[2]], size, |[sum], scratch| {
                plan.sum_rows(k, g, sum, scratch, size)
            })?;
            gradients[2] = Some(g_beta);
        }
        Ok(gradients)
    }
}
