//! Runs planish's CUDA kernels on the CPU: the same source, compiled as C++, every CUDA thread a
//! fiber. For tests alone; nothing of the product depends on it. Linux on x86-64 only: elsewhere this
//! crate and its tests are empty.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod buffer;

pub use buffer::Buffer;

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
#[error("{kernel}, {grid:?} blocks of {block:?} threads, {shared} bytes shared: {what}")]
pub struct Error {
    /// The entry point.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory.
    pub shared: u32,
    /// What went wrong.
    pub what: String,
}

/// Blocks share one scheduler.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `launch`, threads in the given order between barriers: 0 up, 1 down, else shuffled by that
/// seed. Equal launches give equal bits.
///
/// # Errors
/// A kernel that does not exist, arguments or a configuration that it or no GPU takes, a barrier or
/// shuffle that not all threads reach.
///
/// # Safety
/// Addresses are those of live memory of the size and kind that the kernel takes, which nothing
/// else uses meanwhile.
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
    // A panic elsewhere leaves nothing behind that the next launch does not reset.
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: each argument is described by its pointer and size; what addresses point to is the
    // caller's promise; the lock makes this the only launch.
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
        // SAFETY: a string that lives until the next launch, which the lock keeps away.
        _ => Err(fail(unsafe { CStr::from_ptr(emu_error()) }.to_string_lossy().into_owned())),
    }
}

/// Names of all kernels.
pub fn kernels() -> Vec<String> {
    extern "C" fn each(name: *const c_char, context: *mut c_void) {
        // SAFETY: the context is the vector below, the name a string of C++'s.
        unsafe {
            let names = &mut *context.cast::<Vec<String>>();
            names.push(CStr::from_ptr(name).to_string_lossy().into_owned());
        }
    }
    let mut names: Vec<String> = Vec::new();
    // SAFETY: called back before it returns, with that context.
    unsafe { emu_kernels(each, std::ptr::from_mut(&mut names).cast()) };
    names
}
