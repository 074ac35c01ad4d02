//! The program's allocator, and that of benches. A library's user brings their own.

/// Large buffers live for one operation; mimalloc gives their pages to the next one instead of to the
/// system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the crate leaves out of its list.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps what is freed for what comes next until the process ends, instead of returning it to the
/// system after a moment: a gradient of a ViT-B/16 would take 70,000 pages anew, a quarter of its time.
/// The largest resident set grows by what no later buffer fits into (1,105 MiB for 956 in a step of
/// PoL on one).
pub fn keep_pages() {
    // SAFETY: sets one number of the allocator's, which it reads when pages are freed; not where the
    // user's MIMALLOC_PURGE_DELAY has set it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1) }
}

#[cfg(test)]
#[test]
fn the_option_is_the_delay() {
    // SAFETY: reads a number of the allocator's.
    let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
    // Milliseconds; its neighbours in the list are 0 unless they are set.
    assert!(delay() > 0, "{}", delay());
    keep_pages();
    assert_eq!(delay(), -1);
}
