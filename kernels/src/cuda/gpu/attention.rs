//! Attention on the device: products over all heads of all images at once, and softmax between
//! them. The map of weights, (B, H, Q, T), lives as long as one call; the VJP makes it anew.

use super::cast::cast;
use super::device::run;
use super::memory::{Fresh, Number, device};
use super::product::{Factor, dual_gemm};
use crate::attention::Shape;
use crate::cuda::launch::Planner;
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use crate::product::Precision;
use crate::view::View;
use candle_core::{CudaDevice, DType};
use half::bf16;

/// The heads of all images that one head of one image stands for, in a buffer of `numel` numbers.
fn all(shape: &Shape, head: View, numel: usize) -> View {
    let (images, heads) = (shape.images, shape.heads);
    let batch_strides = [numel / images.max(1), shape.dim / heads];
    View { batch: [images, heads], batch_strides, ..head }
}

/// What one call works with.
struct Work<'a, E> {
    op: &'static str,
    device: &'a CudaDevice,
    shape: &'a Shape,
    inputs: Vec<Factor>,
    number: std::marker::PhantomData<E>,
}

impl<E: Number> Work<'_, E> {
    /// Part 0, 1 or 2 (queries, keys, values): which input, and where its heads lie there.
    fn part(&self, which: usize) -> (usize, View) {
        let (input, head) = self.shape.parts(0)[which];
        (input, all(self.shape, head, self.inputs[input].numel))
    }

    fn factor(&self, which: usize) -> (Factor, View) {
        let (input, view) = self.part(which);
        (self.inputs[input], view)
    }

    fn maps(&self) -> View {
        let Shape { images, heads, queries, tokens, .. } = *self.shape;
        View::batched(images, heads, queries, tokens)
    }

    fn map(&self, tangents: usize) -> Result<Fresh<E>> {
        let Shape { images, heads, queries, tokens, .. } = *self.shape;
        Fresh::new(self.device, &[images, heads, queries, tokens], tangents)
    }

    fn rows(&self) -> [usize; 2] {
        let Shape { images, heads, queries, tokens, .. } = *self.shape;
        [images * heads * queries, tokens]
    }

    fn multiply(
        &self,
        to: (&Fresh<E>, View),
        a: (Factor, View),
        b: (Factor, View),
        factor: f64,
    ) -> Result<()> {
        dual_gemm::<E>(self.device, self.op, to, true, a, b, factor)
    }

    /// p = softmax(q kᵀ/√d).
    fn weights(&self, tangents: usize) -> Result<Fresh<E>> {
        let (scores, p) = (self.map(tangents)?, self.map(tangents)?);
        let (q, (k, keys)) = (self.factor(0), self.factor(1));
        self.multiply((&scores, self.maps()), q, (k, keys.t()), self.shape.scale())?;
        let planner = Planner::new(E::STORED);
        let (from, to) = (scores.plane(), p.plane());
        run(self.device, &planner.softmax_value(tangents, from, to, self.rows())?)?;
        Ok(p)
    }
}

/// The operands in bf16, and the type that they were of.
fn in_bf16(op: &'static str, x: &[&DualTensor]) -> Result<(Vec<DualTensor>, DType)> {
    let found: Vec<DType> = x.iter().map(|x| x.value().dtype()).collect();
    if found.iter().any(|&dtype| dtype != found[0]) {
        return Err(Error::DType { op, found });
    }
    let x = x.iter().map(|x| cast(op, x, DType::BF16)).collect::<Result<_>>()?;
    Ok((x, found[0]))
}

/// y of `crate::Attention`, shapes checked. In bf16 all that is between is stored so, too.
pub(crate) fn value(
    op: &'static str,
    shape: &Shape,
    precision: Precision,
    x: &[&DualTensor],
) -> Result<DualTensor> {
    if precision == Precision::Bf16 {
        let (x, dtype) = in_bf16(op, x)?;
        let x: Vec<&DualTensor> = x.iter().collect();
        return cast(op, &value_typed::<bf16>(op, shape, &x)?, dtype);
    }
    match common_dtype(op, x)? {
        DType::F64 => value_typed::<f64>(op, shape, x),
        _ => value_typed::<f32>(op, shape, x),
    }
}

fn work<'a, E: Number>(
    op: &'static str,
    device: &'a CudaDevice,
    shape: &'a Shape,
    x: &[&DualTensor],
) -> Result<Work<'a, E>> {
    let factor = |x: &&DualTensor| Factor::of::<E>(op, device, x);
    let inputs = x.iter().map(factor).collect::<Result<_>>()?;
    Ok(Work { op, device, shape, inputs, number: std::marker::PhantomData })
}

fn tangents(x: &[&DualTensor]) -> usize {
    x.iter().map(|x| x.tangents()).max().unwrap_or(0)
}

fn value_typed<E: Number>(
    op: &'static str,
    shape: &Shape,
    x: &[&DualTensor],
) -> Result<DualTensor> {
    let device = device(op, x[0].value())?;
    let (work, k) = (work::<E>(op, &device, shape, x)?, tangents(x));
    let p = work.weights(k)?;
    let y = Fresh::new(&device, &[shape.images, shape.queries, shape.dim], k)?;
    let mixed = all(shape, shape.mixed(0), y.numel());
    work.multiply((&y, mixed), (Factor::held(&p), work.maps()), work.factor(2), 1.0)?;
    y.into_dual()
}

/// gx of `crate::Attention` for every input, shapes checked.
pub(crate) fn gradients(
    op: &'static str,
    (shape, precision): (&Shape, Precision),
    x: &[&DualTensor],
    gy: &DualTensor,
) -> Result<Vec<DualTensor>> {
    let all: Vec<&DualTensor> = x.iter().copied().chain([gy]).collect();
    if precision == Precision::Bf16 {
        let (all, dtype) = in_bf16(op, &all)?;
        let x: Vec<&DualTensor> = all.iter().take(x.len()).collect();
        let found = gradients_typed::<bf16>(op, shape, &x, &all[x.len()])?;
        return found.iter().map(|g| cast(op, g, dtype)).collect();
    }
    match common_dtype(op, &all)? {
        DType::F64 => gradients_typed::<f64>(op, shape, x, gy),
        _ => gradients_typed::<f32>(op, shape, x, gy),
    }
}

fn gradients_typed<E: Number>(
    op: &'static str,
    shape: &Shape,
    x: &[&DualTensor],
    gy: &DualTensor,
) -> Result<Vec<DualTensor>> {
    let device = device(op, x[0].value())?;
    let work = work::<E>(op, &device, shape, x)?;
    let (inner, outer) = (tangents(x), tangents(x).max(gy.tangents()));
    let p = work.weights(inner)?;
    let cotangent = Factor::of::<E>(op, &device, gy)?;
    let mixed = all(shape, shape.mixed(0), gy.numel());
    let fresh = |x: &&DualTensor| Fresh::<E>::new(&device, x.dims(), outer);
    let gx = x.iter().map(fresh).collect::<Result<Vec<_>>>()?;
    let [(iq, q), (ik, k), (iv, v)] = [0, 1, 2].map(|which| work.part(which));
    let maps = work.maps();
    work.multiply((&gx[iv], v), (Factor::held(&p), maps.t()), (cotangent, mixed), 1.0)?;
    let gp = work.map(outer)?;
    let (values, _) = work.factor(2);
    work.multiply((&gp, maps), (cotangent, mixed), (values, v.t()), 1.0)?;
    let (planner, gs) = (Planner::new(E::STORED), work.map(outer)?);
    run(&device, &planner.softmax_vjp(outer, [p.plane(), gp.plane()], gs.plane(), work.rows())?)?;
    drop((p, gp));
    let scale = shape.scale();
    work.multiply((&gx[iq], q), (Factor::held(&gs), maps), work.factor(1), scale)?;
    work.multiply((&gx[ik], k), (Factor::held(&gs), maps.t()), work.factor(0), scale)?;
    gx.into_iter().map(Fresh::into_dual).collect()
}
