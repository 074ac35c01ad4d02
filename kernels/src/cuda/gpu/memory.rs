//! Addresses of device tensors, and memory for new ones.

use crate::cuda::launch::{Address, Plane, StorageType};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, DevicePtr, DeviceRepr, ValidAsZeroBits, result as driver,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Storage, Tensor};
use half::bf16;

/// A number type of the kernels.
pub(super) trait Number: Copy + CudaDType + DeviceRepr + ValidAsZeroBits {
    /// Storage type of the kernels.
    const STORAGE: StorageType;
    /// Type of parameters and of sums over rows.
    type Arithmetic: Number;
}

impl Number for f32 {
    const STORAGE: StorageType = StorageType::F32;
    type Arithmetic = f32;
}

impl Number for f64 {
    const STORAGE: StorageType = StorageType::F64;
    type Arithmetic = f64;
}

impl Number for bf16 {
    const STORAGE: StorageType = StorageType::Bf16;
    type Arithmetic = f32;
}

/// The device of a tensor.
pub(super) fn device(op: &'static str, x: &Tensor) -> Result<CudaDevice> {
    match x.device().as_cuda_device() {
        Ok(device) => Ok(device.clone()),
        Err(_) => Err(wrong_device(op, x)),
    }
}

fn wrong_device(op: &'static str, x: &Tensor) -> Error {
    let found = format!("{:?}", x.device().location());
    Error::Device { op, expected: "a CUDA device, as its other operands are", found }
}

/// Address of a contiguous tensor on `device`. Valid as long as the tensor lives.
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
            Ok(device_address(device, storage.as_cuda_slice::<E>()?)
                + (start * size_of::<E>()) as u64)
        }
        _ => Err(wrong_device(op, x)),
    }
}

/// Address of device memory. All work uses one stream, so no synchronisation is needed.
pub(super) fn device_address<T>(device: &CudaDevice, memory: &CudaSlice<T>) -> Address {
    memory.device_ptr(&device.cuda_stream()).0
}

/// Addresses of value and tangents of `x`.
pub(super) fn plane<E: Number>(
    op: &'static str,
    device: &CudaDevice,
    x: &DualTensor,
) -> Result<Plane> {
    let tangent = x.tangent().map(|t| address::<E>(op, device, t)).transpose()?;
    Ok(Plane { value: address::<E>(op, device, x.value())?, tangent: tangent.unwrap_or(0) })
}

/// Memory for `count` numbers. Must be written before it is read.
pub(super) fn uninitialized<T: DeviceRepr>(
    device: &CudaDevice,
    count: usize,
) -> Result<CudaSlice<T>> {
    // The driver does not allocate zero bytes. SAFETY: the launch that the memory is allocated for
    // writes every number.
    Ok(unsafe { device.alloc::<T>(count.max(1)) }?)
}

/// Concatenates tensors along their first dimension, with one device copy per tensor.
///
/// # Errors
/// No tensors, or tensors that differ in type, device or the other dimensions.
pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
    match parts.first().map(Tensor::dtype) {
        Some(DType::F64) => concat_typed::<f64>(parts),
        _ => concat_typed::<f32>(parts),
    }
}

fn concat_typed<E: Number>(parts: &[Tensor]) -> Result<Tensor> {
    const OP: &str = "concat";
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
    let whole = DualBuffer::<E>::new(&device, &dims, 0)?;
    let mut to = whole.plane().value;
    for part in parts {
        let bytes = part.elem_count() * size_of::<E>();
        let from = address::<E>(OP, &device, part)?;
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        if bytes > 0 {
            // SAFETY: copies the bytes of this part into its own range of the result.
            unsafe { driver::memcpy_dtod_async(to, from, bytes, stream.cu_stream()) }.w()?;
        }
        to += bytes as u64;
    }
    Ok(whole.into_dual()?.into_parts().0)
}

/// Wraps memory as a tensor.
pub(super) fn wrapped<E: Number>(
    device: &CudaDevice,
    memory: CudaSlice<E>,
    dims: &[usize],
) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(memory, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), dims, BackpropOp::none(), false)
}

/// Memory of a new tensor with tangents.
pub(super) struct DualBuffer<E: Number> {
    device: CudaDevice,
    dims: Vec<usize>,
    tangents: usize,
    value: CudaSlice<E>,
    tangent: Option<CudaSlice<E>>,
}

impl<E: Number> DualBuffer<E> {
    /// Uninitialised memory for a value of shape `dims` and K tangents.
    pub(super) fn new(device: &CudaDevice, dims: &[usize], tangents: usize) -> Result<Self> {
        let size: usize = dims.iter().product();
        let tangent = match tangents {
            0 => None,
            k => Some(uninitialized(device, k * size)?),
        };
        let (device, dims) = (device.clone(), dims.to_vec());
        Ok(Self { value: uninitialized(&device, size)?, device, dims, tangents, tangent })
    }

    /// Same as [`Self::new`], filled with zeros.
    pub(super) fn zeros(device: &CudaDevice, dims: &[usize], tangents: usize) -> Result<Self> {
        let mut fresh = Self::new(device, dims, tangents)?;
        let stream = device.cuda_stream();
        stream.memset_zeros(&mut fresh.value).w()?;
        if let Some(tangent) = &mut fresh.tangent {
            stream.memset_zeros(tangent).w()?;
        }
        Ok(fresh)
    }

    /// Addresses of value and tangents.
    pub(super) fn plane(&self) -> Plane {
        let tangent = self.tangent.as_ref().map_or(0, |t| device_address(&self.device, t));
        Plane { value: device_address(&self.device, &self.value), tangent }
    }

    /// Count of numbers in the value.
    pub(super) fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// K, the number of tangents.
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
