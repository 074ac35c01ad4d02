//! The CUDA device: opening it, launching kernels, and its memory pool.

use crate::cuda::launch::{Arg, Launch};
use crate::error::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::{
    DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use candle_core::cuda_backend::{CudaError, WrapErr};
use candle_core::{CudaDevice, Device};

/// Name and PTX of every kernel file.
const PTX: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/ptx.rs"));

/// Oldest driver API version that can load the PTX: CUDA 13.0.
const DRIVER: i32 = 13_000;

/// Opens device `ordinal` with its own stream.
///
/// # Errors
/// [`Error::Driver`] if there is no driver, the driver is too old, or there is no such device.
pub fn open(ordinal: usize) -> Result<Device> {
    let refuse = |what: String| Error::Driver { what };
    let text = |error: DriverError| match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    result::init().map_err(|error| refuse(format!("no NVIDIA driver or GPU: {}", text(error))))?;
    let mut found = 0;
    // SAFETY: the pointer is to a local integer.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut found) };
    if status == sys::CUresult::CUDA_SUCCESS && found < DRIVER {
        let version = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        return Err(refuse(format!(
            "the NVIDIA driver is too old: it supports CUDA {}, planish needs {}; update the driver",
            version(found),
            version(DRIVER)
        )));
    }
    let count = result::device::get_count().map_err(|error| refuse(text(error)))?;
    if !usize::try_from(count).is_ok_and(|count| ordinal < count) {
        return Err(refuse(format!("there is no GPU {ordinal}; the driver reports {count}")));
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    // SAFETY: all work on the device's tensors uses this one stream, except for uploads, which
    // `upload` orders.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    keep_memory(&device);
    Ok(device)
}

/// Launches kernels in order.
pub(super) fn run(device: &CudaDevice, launches: &[Launch]) -> Result<()> {
    for launch in launches {
        let (kernel, file) = (&launch.kernel, launch.file);
        let ptx = PTX.iter().find(|(name, _)| *name == file).map_or("", |(_, ptx)| ptx);
        let function = device.get_or_load_custom_func(kernel, &format!("planish_{file}"), ptx)?;
        let mut call = function.builder();
        for arg in &launch.args {
            match arg {
                Arg::Pointer(x) => call.arg(x),
                Arg::I32(x) => call.arg(x),
                Arg::I64(x) => call.arg(x),
                Arg::F64(x) => call.arg(x),
                Arg::Words(x) => match x.first() {
                    // The driver reads as many bytes from this address as the kernel declares.
                    Some(first) => call.arg(first),
                    None => return Err(Error::shape(file, "a structure", "no words")),
                },
            };
        }
        let [grid_dim, block_dim] = [launch.grid, launch.block].map(|[x, y, z]| (x, y, z));
        let config = LaunchConfig { grid_dim, block_dim, shared_mem_bytes: launch.shared };
        // SAFETY: the planner passes each kernel the arguments it declares, and addresses belong to
        // live tensors of the planned sizes.
        unsafe { call.launch(config) }.w()?;
    }
    Ok(())
}

/// The memory pool of the device, if the driver supports pools.
fn pool(device: &Device) -> Option<sys::CUmemoryPool> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().ok()?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the pointer is to a local variable.
    let status = unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) };
    (context.has_async_alloc() && status == sys::CUresult::CUDA_SUCCESS).then_some(pool)
}

/// A memory counter of the pool, in bytes.
fn count(device: &Device, what: sys::CUmemPool_attribute) -> Option<u64> {
    let (pool, mut bytes) = (pool(device)?, 0u64);
    // SAFETY: the requested attributes are `u64`, the type of the variable.
    let status = unsafe { sys::cuMemPoolGetAttribute(pool, what, (&raw mut bytes).cast()) };
    (status == sys::CUresult::CUDA_SUCCESS).then_some(bytes)
}

/// Lets the pool keep freed memory for later allocations. By default it returns all of it to the
/// system whenever the program synchronises, and maps it again for the next step.
fn keep_memory(device: &Device) {
    if let Some(pool) = pool(device) {
        let mut all = u64::MAX;
        let what = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: as in `count`. If the driver refuses, allocation is only slower.
        let _ = unsafe { sys::cuMemPoolSetAttribute(pool, what, (&raw mut all).cast()) };
    }
}

/// Returns unused memory of the pool to the driver, after the device has finished its work.
///
/// # Errors
/// A failure on the device.
pub fn trim(device: &Device) -> Result<()> {
    device.synchronize()?;
    if let Some(pool) = pool(device) {
        // SAFETY: memory in use stays allocated.
        unsafe { sys::cuMemPoolTrimTo(pool, 0) }.result().w()?;
    }
    Ok(())
}

/// Peak device memory used by tensors, in MiB, rounded up, without unused memory of the pool.
/// `None` if the driver does not report it.
pub fn peak_mib(device: &Device) -> Option<u64> {
    let bytes = count(device, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
    Some(bytes.div_ceil(1 << 20))
}

/// Free bytes (including unused memory of the pool) and total bytes of the device.
///
/// # Errors
/// [`Error::Driver`] if the driver does not report them.
pub fn free_and_total(device: &Device) -> Result<[u64; 2]> {
    use sys::CUmemPool_attribute::{
        CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
    };
    device.as_cuda_device()?.cuda_stream().context().bind_to_thread().w()?;
    let (free, total) = result::mem_get_info().map_err(|error| Error::Driver {
        what: format!("the driver does not report the GPU's memory: {:?}", error.0),
    })?;
    let reserved = count(device, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT).unwrap_or(0);
    let used = count(device, CU_MEMPOOL_ATTR_USED_MEM_CURRENT).unwrap_or(reserved);
    Ok([free as u64 + reserved.saturating_sub(used), total as u64])
}

/// Whether the error means that the device ran out of memory.
pub fn is_out_of_memory(mut error: &candle_core::Error) -> bool {
    loop {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => error = inner,
            candle_core::Error::Context { inner, .. } => error = inner,
            candle_core::Error::Cuda(inner) => {
                return matches!(
                    inner.downcast_ref(),
                    Some(CudaError::Cuda(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)))
                );
            }
            _ => return false,
        }
    }
}
