//! A layer's tensors treated as one vector: inner products, norms and updates, on the device of the
//! tensors.

use candle_core::{DType, Device, Tensor};
#[cfg(feature = "cuda")]
use planish_kernels::cuda::gpu;
use planish_kernels::lanes::Element;
use planish_kernels::{DualTensor, Error, Host, Op, Result, Scale};
use rayon::prelude::*;

/// Count of numbers summed by one thread. Fixed, so that results do not depend on the number of
/// threads.
const BLOCK: usize = 1 << 16;

/// Whether the tensors are on a GPU.
pub fn on_gpu(x: &[Tensor]) -> bool {
    x.first().is_some_and(|x| x.device().is_cuda())
}

/// Σ aᵢ bᵢ over all tensors, accumulated in f64.
pub fn dot(a: &[Tensor], b: &[Tensor]) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if on_gpu(a) {
        let [square, product, _] = gpu::products(a, b)?;
        return Ok(if std::ptr::eq(a, b) { square } else { product });
    }
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += match a.dtype() {
            DType::F32 => dot_one::<f32>(a, b)?,
            _ => dot_one::<f64>(a, b)?,
        };
    }
    Ok(sum)
}

fn dot_one<E: Element>(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (Host::new("dot", a)?, Host::new("dot", b)?);
    let (a, b) = (a.slice::<E>()?, b.slice::<E>()?);
    if a.len() != b.len() {
        return Err(Error::shape("dot", format!("{} numbers", a.len()), format!("{}", b.len())));
    }
    let parts: Vec<f64> = a
        .par_chunks(BLOCK)
        .zip(b.par_chunks(BLOCK))
        .map(|(a, b)| a.iter().zip(b).map(|(x, y)| x.wide() * y.wide()).sum())
        .collect();
    Ok(parts.iter().sum())
}

/// Euclidean norm over all tensors.
pub fn norm(a: &[Tensor]) -> Result<f64> {
    Ok(dot(a, a)?.sqrt())
}

/// x + factor · d for every tensor.
pub fn add_scaled(x: &[Tensor], factor: f64, d: &[Tensor]) -> Result<Vec<Tensor>> {
    #[cfg(feature = "cuda")]
    if on_gpu(x) {
        return gpu::axpy(x, factor, d);
    }
    x.iter()
        .zip(d)
        .map(|(x, d)| match x.dtype() {
            DType::F32 => add_scaled_one::<f32>(x, factor, d),
            _ => add_scaled_one::<f64>(x, factor, d),
        })
        .collect()
}

/// factor · x for every tensor.
pub fn scaled(x: &[Tensor], factor: f64) -> Result<Vec<Tensor>> {
    let one = |x: &Tensor| match x.device() {
        Device::Cpu => Ok(x.affine(factor, 0.0)?),
        _ => Ok(Scale { factor }.value(&[&DualTensor::constant(x.clone())])?.into_parts().0),
    };
    x.iter().map(one).collect()
}

/// x (|w| + η), elementwise.
pub fn scale_by_magnitude(x: &[Tensor], w: &[Tensor], eta: f64) -> Result<Vec<Tensor>> {
    #[cfg(feature = "cuda")]
    if on_gpu(x) {
        return gpu::by_magnitude(x, w, eta);
    }
    x.iter().zip(w).map(|(x, w)| Ok(x.mul(&w.abs()?.affine(1.0, eta)?)?)).collect()
}

/// Concatenates tensors along their first dimension, on their device.
pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_gpu(parts) {
        return gpu::concat(parts);
    }
    Ok(Tensor::cat(parts, 0)?)
}

/// Copies tensors to the CPU. Tensors that are there already are returned as they are.
pub fn to_cpu(x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(x.iter().map(|x| x.to_device(&Device::Cpu)).collect::<candle_core::Result<_>>()?)
}

fn add_scaled_one<E: Element>(x: &Tensor, factor: f64, d: &Tensor) -> Result<Tensor> {
    let (hx, hd) = (Host::new("step", x)?, Host::new("step", d)?);
    let (sx, sd) = (hx.slice::<E>()?, hd.slice::<E>()?);
    if sx.len() != sd.len() {
        return Err(Error::shape("step", format!("{:?}", x.dims()), format!("{:?}", d.dims())));
    }
    let factor = E::narrow(factor);
    let moved: Vec<E> = sx.iter().zip(sd).map(|(&x, &d)| x + factor * d).collect();
    Ok(Tensor::from_vec(moved, x.dims(), &Device::Cpu)?)
}
