//! Runs planish's CUDA kernels on the CPU: the same source compiled as C++, with each CUDA thread
//! as a fiber. For Linux on x86-64.

use planish_kernels::cuda::{Arg, Launch};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

unsafe extern "C" {
    fn emu_launch(
        name: *const c_char,
        blocks: *const u32,
        threads: *const u32,
        shared: usize,
        order: u32,
        arguments: *mut *const c_void,
        sizes: *const u32,
        count: u32,
    ) -> c_int;
    fn emu_error() -> *const c_char;
    fn emu_kernels(
        each: extern "C" fn(name: *const c_char, context: *mut c_void),
        context: *mut c_void,
    );
}

/// A launch that failed.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{kernel}: {what} ({grid:?} blocks, {block:?} threads, {shared} bytes of shared memory)")]
pub struct Error {
    /// Name of the entry point.
    pub kernel: String,
    /// Number of blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Bytes of shared memory.
    pub shared: u32,
    /// What went wrong.
    pub what: String,
}

/// All launches share one scheduler.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a launch. `order` is the order of threads between barriers: 0 ascending, 1 descending,
/// otherwise shuffled with that seed. Equal launches give equal bits.
///
/// # Errors
/// An unknown kernel; arguments or a configuration that the kernel or CUDA does not accept; a
/// barrier or shuffle that not all threads reach.
///
/// # Safety
/// Addresses are those of live memory with the size and type that the kernel expects, and nothing
/// else accesses it during the launch.
pub unsafe fn launch(launch: &Launch, order: u32) -> Result<(), Error> {
    let Launch { kernel, grid, block, shared, args, .. } = launch;
    let fail = |what: String| Error {
        kernel: kernel.clone(),
        grid: *grid,
        block: *block,
        shared: *shared,
        what,
    };
    let name = CString::new(kernel.as_str()).map_err(|error| fail(error.to_string()))?;
    let (mut at, mut sizes) = (Vec::new(), Vec::new());
    for arg in args {
        let (argument, size): (*const c_void, usize) = match arg {
            Arg::Pointer(x) => (std::ptr::from_ref(x).cast(), 8),
            Arg::I32(x) => (std::ptr::from_ref(x).cast(), 4),
            Arg::I64(x) => (std::ptr::from_ref(x).cast(), 8),
            Arg::F64(x) => (std::ptr::from_ref(x).cast(), 8),
            Arg::Words(x) => (x.as_ptr().cast(), 8 * x.len()),
        };
        at.push(argument);
        sizes.push(size as u32);
    }
    // A panic of another test leaves no state that the next launch does not reset.
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: each argument is described by its pointer and size. The caller guarantees the memory
    // behind addresses. The lock excludes other launches.
    let code = unsafe {
        emu_launch(
            name.as_ptr(),
            grid.as_ptr(),
            block.as_ptr(),
            *shared as usize,
            order,
            at.as_mut_ptr(),
            sizes.as_ptr(),
            at.len() as u32,
        )
    };
    match code {
        0 => Ok(()),
        // SAFETY: the string lives until the next launch, which the lock excludes.
        _ => Err(fail(unsafe { CStr::from_ptr(emu_error()) }.to_string_lossy().into_owned())),
    }
}

/// Names of all kernels.
pub fn kernels() -> Vec<String> {
    extern "C" fn each(name: *const c_char, context: *mut c_void) {
        // SAFETY: the context is the vector below; the name is a C string.
        unsafe {
            let names = &mut *context.cast::<Vec<String>>();
            names.push(CStr::from_ptr(name).to_string_lossy().into_owned());
        }
    }
    let mut names: Vec<String> = Vec::new();
    // SAFETY: the callback only runs during this call, with this context.
    unsafe { emu_kernels(each, std::ptr::from_mut(&mut names).cast()) };
    names
}
