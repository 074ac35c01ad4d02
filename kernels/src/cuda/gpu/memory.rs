//! Tensors on the device as addresses, and memory for new ones.

use crate::cuda::launch::{Address, Plane, Stored};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, DevicePtr, DeviceRepr, ValidAsZeroBits, result as driver,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Storage, Tensor};
use half::bf16;

/// A type of numbers that kernels take.
pub(super) trait Number: Copy + CudaDType + DeviceRepr + ValidAsZeroBits {
    /// How kernels name it.
    const STORED: Stored;
    /// What parameters and sums over rows are stored in.
    type Arithmetic: Number;
}

impl Number for f32 {
    const STORED: Stored = Stored::F32;
    type Arithmetic = f32;
}

impl Number for f64 {
    const STORED: Stored = Stored::F64;
    type Arithmetic = f64;
}

impl Number for bf16 {
    const STORED: Stored = Stored::Bf16;
    type Arithmetic = f32;
}

/// The device of a tensor.
pub(super) fn device(op: &'static str, x: &Tensor) -> Result<CudaDevice> {
    match x.device().as_cuda_device() {
        Ok(device) => Ok(device.clone()),
        Err(_) => Err(elsewhere(op, x)),
    }
}

fn elsewhere(op: &'static str, x: &Tensor) -> Error {
    let found = format!("{:?}", x.device().location());
    Error::Device { op, expected: "a CUDA device, as its other operands are", found }
}

/// Where a whole, row-major tensor on `device` begins. It stays there as long as the tensor lives.
pub(super) fn address<E: Number>(
    op: &'static str,
    device: &CudaDevice,
    x: &Tensor,
) -> Result<Address> {
    let (storage, layout) = x.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        let (shape, strides) = (x.dims().to_vec(), layout.stride().to_vec());
        return Err(Error::Strided { op, shape, strides });
    };
    match &*storage {
        Storage::Cuda(storage) if storage.device.id() == device.id() => {
            Ok(start_of(device, storage.as_cuda_slice::<E>()?) + (start * size_of::<E>()) as u64)
        }
        _ => Err(elsewhere(op, x)),
    }
}

/// Where memory begins. All work is on one stream, so that nothing has to be waited for.
pub(super) fn start_of<T>(device: &CudaDevice, memory: &CudaSlice<T>) -> Address {
    memory.device_ptr(&device.cuda_stream()).0
}

/// Value and tangents of `x`.
pub(super) fn plane<E: Number>(
    op: &'static str,
    device: &CudaDevice,
    x: &DualTensor,
) -> Result<Plane> {
    let tangent = x.tangent().map(|t| address::<E>(op, device, t)).transpose()?;
    Ok(Plane { value: address::<E>(op, device, x.value())?, tangent: tangent.unwrap_or(0) })
}

/// Memory for `count` numbers, to be written before they are read.
pub(super) fn blank<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    // The driver gives no memory of no bytes.
    // SAFETY: every number is written by the launch that the memory is made for.
    Ok(unsafe { device.alloc::<T>(count.max(1)) }?)
}

/// Tensors on one device end to end along their first dimension: a copy each, by the driver.
///
/// # Errors
/// No tensors, or such as differ in type, place or other dimensions.
pub fn end_to_end(parts: &[Tensor]) -> Result<Tensor> {
    match parts.first().map(Tensor::dtype) {
        Some(DType::F64) => end_to_end_typed::<f64>(parts),
        _ => end_to_end_typed::<f32>(parts),
    }
}

fn end_to_end_typed<E: Number>(parts: &[Tensor]) -> Result<Tensor> {
    const OP: &str = "end_to_end";
    let Some((first, [rows, row @ ..])) = parts.first().map(|x| (x, x.dims())) else {
        return Err(Error::shape(OP, "tensors of rows", format!("{} tensors", parts.len())));
    };
    let device = device(OP, first)?;
    let mut dims = vec![*rows];
    dims.extend(row);
    if let Some(other) = parts.iter().find(|x| x.dims().get(1..) != Some(row)) {
        return Err(Error::shape(OP, format!("(…, {row:?})"), format!("{:?}", other.dims())));
    }
    dims[0] = parts.iter().map(|x| x.dims()[0]).sum();
    let whole = Fresh::<E>::new(&device, &dims, 0)?;
    let mut to = whole.plane().value;
    for part in parts {
        let bytes = part.elem_count() * size_of::<E>();
        let from = address::<E>(OP, &device, part)?;
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        if bytes > 0 {
            // SAFETY: as many bytes as the part has, into its own part of what was made for all.
            unsafe { driver::memcpy_dtod_async(to, from, bytes, stream.cu_stream()) }.w()?;
        }
        to += bytes as u64;
    }
    Ok(whole.into_dual()?.into_parts().0)
}

/// Memory as a tensor.
pub(super) fn wrapped<E: Number>(
    device: &CudaDevice,
    memory: CudaSlice<E>,
    dims: &[usize],
) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(memory, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), dims, BackpropOp::none(), false)
}

/// A tensor with tangents in the making.
pub(super) struct Fresh<E: Number> {
    device: CudaDevice,
    dims: Vec<usize>,
    tangents: usize,
    value: CudaSlice<E>,
    tangent: Option<CudaSlice<E>>,
}

impl<E: Number> Fresh<E> {
    /// Memory for a value of this shape and K tangents, all to be written.
    pub(super) fn new(device: &CudaDevice, dims: &[usize], tangents: usize) -> Result<Self> {
        let size: usize = dims.iter().product();
        let tangent = match tangents {
            0 => None,
            k => Some(blank(device, k * size)?),
        };
        let (device, dims) = (device.clone(), dims.to_vec());
        Ok(Self { value: blank(&device, size)?, device, dims, tangents, tangent })
    }

    /// The same, all zero.
    pub(super) fn zeros(device: &CudaDevice, dims: &[usize], tangents: usize) -> Result<Self> {
        let mut fresh = Self::new(device, dims, tangents)?;
        let stream = device.cuda_stream();
        stream.memset_zeros(&mut fresh.value).w()?;
        if let Some(tangent) = &mut fresh.tangent {
            stream.memset_zeros(tangent).w()?;
        }
        Ok(fresh)
    }

    /// Value and tangents.
    pub(super) fn plane(&self) -> Plane {
        let tangent = self.tangent.as_ref().map_or(0, |t| start_of(&self.device, t));
        Plane { value: start_of(&self.device, &self.value), tangent }
    }

    /// Numbers in the value.
    pub(super) fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// K.
    pub(super) fn tangents(&self) -> usize {
        self.tangents
    }

    /// The tensor.
    pub(super) fn into_dual(self) -> Result<DualTensor> {
        let tensor = |memory: CudaSlice<E>, dims: &[usize]| wrapped(&self.device, memory, dims);
        let tangent = self.tangent.map(|memory| {
            let dims: Vec<usize> =
                std::iter::once(self.tangents).chain(self.dims.clone()).collect();
            tensor(memory, &dims)
        });
        DualTensor::new(tensor(self.value, &self.dims), tangent)
    }
}
