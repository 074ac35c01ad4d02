//! Attention on the device: matrix products over all heads of all images at once, with softmax
//! between them. The attention map (B, H, Q, T) exists only during a call; the VJP recomputes it.

use super::cast::cast;
use super::device::run;
use super::memory::{DualBuffer, Number, device};
use super::product::{Factor, dual_gemm};
use crate::attention::Shape;
use crate::cuda::launch::Planner;
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use crate::product::Products;
use crate::view::View;
use candle_core::{CudaDevice, DType};
use half::bf16;

/// The view of all heads of all images, given the view of one head of one image, in a buffer of
/// `numel` numbers.
fn all_heads(shape: &Shape, head: View, numel: usize) -> View {
    let (images, heads) = (shape.images, shape.heads);
    let batch_strides = [numel / images.max(1), shape.dim / heads];
    View { batch: [images, heads], batch_strides, ..head }
}

/// Operands and sizes of one call.
struct AttentionCall<'a, E> {
    op: &'static str,
    device: &'a CudaDevice,
    shape: &'a Shape,
    products: Products,
    inputs: Vec<Factor>,
    number: std::marker::PhantomData<E>,
}

impl<E: Number> AttentionCall<'_, E> {
    /// Queries, keys or values (0, 1, 2): index of the input, and the view of all heads in it.
    fn qkv(&self, which: usize) -> (usize, View) {
        let (input, head) = self.shape.qkv_views(0)[which];
        (input, all_heads(self.shape, head, self.inputs[input].numel))
    }

    fn factor(&self, which: usize) -> (Factor, View) {
        let (input, view) = self.qkv(which);
        (self.inputs[input], view)
    }

    fn maps(&self) -> View {
        let Shape { images, heads, queries, tokens, .. } = *self.shape;
        View::batched(images, heads, queries, tokens)
    }

    fn map(&self, tangents: usize) -> Result<DualBuffer<E>> {
        let Shape { images, heads, queries, tokens, .. } = *self.shape;
        DualBuffer::new(self.device, &[images, heads, queries, tokens], tangents)
    }

    fn rows(&self) -> [usize; 2] {
        let Shape { images, heads, queries, tokens, .. } = *self.shape;
        [images * heads * queries, tokens]
    }

    fn multiply(
        &self,
        to: (&DualBuffer<E>, View),
        a: (Factor, View),
        b: (Factor, View),
        factor: f64,
    ) -> Result<()> {
        let tf32 = self.products == Products::Tf32;
        dual_gemm::<E>(self.device, self.op, to, true, a, b, (factor, tf32))
    }

    /// p = softmax(q kᵀ/√d).
    fn weights(&self, tangents: usize) -> Result<DualBuffer<E>> {
        let (scores, p) = (self.map(tangents)?, self.map(tangents)?);
        let (q, (k, keys)) = (self.factor(0), self.factor(1));
        self.multiply((&scores, self.maps()), q, (k, keys.t()), self.shape.scale())?;
        let planner = Planner::new(E::STORAGE);
        let (from, to) = (scores.plane(), p.plane());
        run(self.device, &planner.softmax_value(tangents, from, to, self.rows())?)?;
        Ok(p)
    }
}

/// The operands converted to bf16, and their original type.
fn in_bf16(op: &'static str, x: &[&DualTensor]) -> Result<(Vec<DualTensor>, DType)> {
    let found: Vec<DType> = x.iter().map(|x| x.value().dtype()).collect();
    if found.iter().any(|&dtype| dtype != found[0]) {
        return Err(Error::DType { op, found });
    }
    let x = x.iter().map(|x| cast(op, x, DType::BF16)).collect::<Result<_>>()?;
    Ok((x, found[0]))
}

/// y of `crate::Attention`, with checked shapes. In bf16 the intermediate results are bf16 too.
pub(crate) fn value(
    op: &'static str,
    (shape, products): (&Shape, Products),
    x: &[&DualTensor],
) -> Result<DualTensor> {
    if products == Products::Bf16 {
        let (x, dtype) = in_bf16(op, x)?;
        let x: Vec<&DualTensor> = x.iter().collect();
        return cast(op, &value_typed::<bf16>(op, (shape, products), &x)?, dtype);
    }
    match common_dtype(op, x)? {
        DType::F64 => value_typed::<f64>(op, (shape, products), x),
        _ => value_typed::<f32>(op, (shape, products), x),
    }
}

fn attention_call<'a, E: Number>(
    op: &'static str,
    device: &'a CudaDevice,
    (shape, products): (&'a Shape, Products),
    x: &[&DualTensor],
) -> Result<AttentionCall<'a, E>> {
    let factor = |x: &&DualTensor| Factor::of::<E>(op, device, x);
    let inputs = x.iter().map(factor).collect::<Result<_>>()?;
    Ok(AttentionCall { op, device, shape, products, inputs, number: std::marker::PhantomData })
}

fn tangents(x: &[&DualTensor]) -> usize {
    x.iter().map(|x| x.tangents()).max().unwrap_or(0)
}

fn value_typed<E: Number>(
    op: &'static str,
    (shape, products): (&Shape, Products),
    x: &[&DualTensor],
) -> Result<DualTensor> {
    let device = device(op, x[0].value())?;
    let (call, k) = (attention_call::<E>(op, &device, (shape, products), x)?, tangents(x));
    let p = call.weights(k)?;
    let y = DualBuffer::new(&device, &[shape.images, shape.queries, shape.dim], k)?;
    let head_output = all_heads(shape, shape.head_output(0), y.numel());
    call.multiply((&y, head_output), (Factor::of_buffer(&p), call.maps()), call.factor(2), 1.0)?;
    y.into_dual()
}

/// gx of `crate::Attention` for every input, with checked shapes.
pub(crate) fn gradients(
    op: &'static str,
    (shape, products): (&Shape, Products),
    x: &[&DualTensor],
    gy: &DualTensor,
) -> Result<Vec<DualTensor>> {
    let all: Vec<&DualTensor> = x.iter().copied().chain([gy]).collect();
    if products == Products::Bf16 {
        let (all, dtype) = in_bf16(op, &all)?;
        let x: Vec<&DualTensor> = all.iter().take(x.len()).collect();
        let found = gradients_typed::<bf16>(op, (shape, products), &x, &all[x.len()])?;
        return found.iter().map(|g| cast(op, g, dtype)).collect();
    }
    match common_dtype(op, &all)? {
        DType::F64 => gradients_typed::<f64>(op, (shape, products), x, gy),
        _ => gradients_typed::<f32>(op, (shape, products), x, gy),
    }
}

fn gradients_typed<E: Number>(
    op: &'static str,
    (shape, products): (&Shape, Products),
    x: &[&DualTensor],
    gy: &DualTensor,
) -> Result<Vec<DualTensor>> {
    let device = device(op, x[0].value())?;
    let call = attention_call::<E>(op, &device, (shape, products), x)?;
    let (inner, outer) = (tangents(x), tangents(x).max(gy.tangents()));
    let p = call.weights(inner)?;
    let cotangent = Factor::of::<E>(op, &device, gy)?;
    let head_output = all_heads(shape, shape.head_output(0), gy.numel());
    let fresh = |x: &&DualTensor| DualBuffer::<E>::new(&device, x.dims(), outer);
    let gx = x.iter().map(fresh).collect::<Result<Vec<_>>>()?;
    let [(iq, q), (ik, k), (iv, v)] = [0, 1, 2].map(|which| call.qkv(which));
    let maps = call.maps();
    call.multiply((&gx[iv], v), (Factor::of_buffer(&p), maps.t()), (cotangent, head_output), 1.0)?;
    let gp = call.map(outer)?;
    let (values, _) = call.factor(2);
    call.multiply((&gp, maps), (cotangent, head_output), (values, v.t()), 1.0)?;
    let (planner, gs) = (Planner::new(E::STORAGE), call.map(outer)?);
    run(&device, &planner.softmax_vjp(outer, [p.plane(), gp.plane()], gs.plane(), call.rows())?)?;
    drop((p, gp));
    let scale = shape.scale();
    call.multiply((&gx[iq], q), (Factor::of_buffer(&gs), maps), call.factor(1), scale)?;
    call.multiply((&gx[ik], k), (Factor::of_buffer(&gs), maps.t()), call.factor(0), scale)?;
    gx.into_iter().map(DualBuffer::into_dual).collect()
}
