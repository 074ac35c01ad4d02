//! The allocator of the program and the benchmarks. Users of the library choose their own.

/// Most large buffers live for one operation. mimalloc reuses their pages for the next operation
/// instead of returning them to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`; the crate does not export it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed pages until the process ends, instead of returning them to the system after a delay.
/// Otherwise a gradient of a ViT-B/16 would fault in 70,000 pages again, a quarter of its time. The
/// cost is a larger peak resident set, because of fragmentation: 1,105 instead of 956 MiB in a step
/// of PoL on that model.
pub fn keep_pages() {
    // SAFETY: sets an integer option that the allocator reads when pages are freed. A value from
    // MIMALLOC_PURGE_DELAY takes precedence.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1) }
}

#[cfg(test)]
#[test]
fn keep_pages_disables_purging() {
    // SAFETY: reads an integer option of the allocator.
    let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
    // Milliseconds. The neighbouring options are 0 by default, so this checks the index.
    assert!(delay() > 0, "{}", delay());
    keep_pages();
    assert_eq!(delay(), -1);
}
