//! The device: opening it, sending launches, and its memory.

use crate::cuda::launch::{Arg, Launch};
use crate::error::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::{
    DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use candle_core::cuda_backend::{CudaError, WrapErr};
use candle_core::{CudaDevice, Device};

/// Name and PTX of every file of kernels.
const PTX: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/ptx.rs"));

/// The oldest driver interface that runs what the compiler makes: CUDA 13.0.
const DRIVER: i32 = 13_000;

/// Opens device `ordinal`, with a stream of its own.
///
/// # Errors
/// [`Error::Driver`] without a driver, with one that is too old, or without such a device.
pub fn open(ordinal: usize) -> Result<Device> {
    let refuse = |what: String| Error::Driver { what };
    let text = |error: DriverError| match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    result::init().map_err(|error| refuse(format!("no NVIDIA driver or GPU: {}", text(error))))?;
    let mut found = 0;
    // SAFETY: the pointer is to an integer of ours.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut found) };
    if status == sys::CUresult::CUDA_SUCCESS && found < DRIVER {
        let version = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        return Err(refuse(format!(
            "the NVIDIA driver is too old: it knows CUDA {}, and planish was built for {}",
            version(found),
            version(DRIVER)
        )));
    }
    let count = result::device::get_count().map_err(|error| refuse(text(error)))?;
    if !usize::try_from(count).is_ok_and(|count| ordinal < count) {
        return Err(refuse(format!("there is no GPU {ordinal}; the driver shows {count}")));
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    // SAFETY: all work on the device's tensors is on this one stream, but for what `upload` orders.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    keep_memory(&device);
    Ok(device)
}

/// Sends launches, in order.
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
                    // The driver reads as many bytes from there as the kernel declares.
                    Some(first) => call.arg(first),
                    None => return Err(Error::shape(file, "a structure", "no words")),
                },
            };
        }
        let [grid_dim, block_dim] = [launch.grid, launch.block].map(|[x, y, z]| (x, y, z));
        let config = LaunchConfig { grid_dim, block_dim, shared_mem_bytes: launch.shared };
        // SAFETY: the planner gives each kernel the arguments it declares, and addresses are those
        // of live tensors of the sizes that it was told.
        unsafe { call.launch(config) }.w()?;
    }
    Ok(())
}

/// The pool that memory of tensors comes from, where the driver has pools.
fn pool(device: &Device) -> Option<sys::CUmemoryPool> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().ok()?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the pointer is to a variable of ours.
    let status = unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) };
    (context.has_async_alloc() && status == sys::CUresult::CUDA_SUCCESS).then_some(pool)
}

/// Bytes that the pool counts.
fn count(device: &Device, what: sys::CUmemPool_attribute) -> Option<u64> {
    let (pool, mut bytes) = (pool(device)?, 0u64);
    // SAFETY: the attributes asked for are of the type that they are written to.
    let status = unsafe { sys::cuMemPoolGetAttribute(pool, what, (&raw mut bytes).cast()) };
    (status == sys::CUresult::CUDA_SUCCESS).then_some(bytes)
}

/// Lets the pool keep what is freed for what is asked for next. By itself it gives all of that back
/// whenever the program waits for the device, and maps it anew for the next step.
fn keep_memory(device: &Device) {
    if let Some(pool) = pool(device) {
        let mut all = u64::MAX;
        let what = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: as in `count`. A driver that refuses is slower, and no less right.
        let _ = unsafe { sys::cuMemPoolSetAttribute(pool, what, (&raw mut all).cast()) };
    }
}

/// Gives back what the pool keeps and no tensor uses, once the device has done all it was sent.
///
/// # Errors
/// What went wrong on the device.
pub fn trim(device: &Device) -> Result<()> {
    device.synchronize()?;
    if let Some(pool) = pool(device) {
        // SAFETY: what is in use stays.
        unsafe { sys::cuMemPoolTrimTo(pool, 0) }.result().w()?;
    }
    Ok(())
}

/// Most memory of the device that tensors took at once so far, in MiB, rounded up, without what the
/// pool keeps beside it; nothing where the driver does not count.
pub fn peak_mib(device: &Device) -> Option<u64> {
    let bytes = count(device, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
    Some(bytes.div_ceil(1 << 20))
}

/// Bytes of the device's memory: free, what the pool keeps among them, and all.
///
/// # Errors
/// [`Error::Driver`] if the driver does not say.
pub fn room(device: &Device) -> Result<[u64; 2]> {
    use sys::CUmemPool_attribute::{
        CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
    };
    device.as_cuda_device()?.cuda_stream().context().bind_to_thread().w()?;
    let (free, total) = result::mem_get_info().map_err(|error| Error::Driver {
        what: format!("the driver does not tell the GPU's memory: {:?}", error.0),
    })?;
    let reserved = count(device, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT).unwrap_or(0);
    let used = count(device, CU_MEMPOOL_ATTR_USED_MEM_CURRENT).unwrap_or(reserved);
    Ok([free as u64 + reserved.saturating_sub(used), total as u64])
}

/// Whether an operation failed for want of the device's memory.
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
