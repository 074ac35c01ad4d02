//! Memory of this process, where the system tells.

use std::sync::atomic::{AtomicU64, Ordering};

/// The highest peak seen before the system's own mark was last set back, KiB.
static HIGHEST: AtomicU64 = AtomicU64::new(0);

/// Largest resident set so far, in MiB, rounded up.
pub fn peak_mib() -> Option<u64> {
    let now = peak_kib()?;
    Some(now.max(HIGHEST.load(Ordering::Relaxed)).div_ceil(1024))
}

/// Resident set now, in MiB.
pub fn resident_mib() -> Option<f64> {
    Some(resident_kib()? as f64 / 1024.0)
}

/// Memory that the system could still give, in MiB.
pub fn available_mib() -> Option<f64> {
    Some(available_kib()? as f64 / 1024.0)
}

/// Runs `work` and tells the largest resident set meanwhile, in MiB; nothing where the system cannot
/// watch it.
pub fn peak_during<T>(work: impl FnOnce() -> T) -> (T, Option<f64>) {
    if let Some(peak) = peak_kib() {
        HIGHEST.fetch_max(peak, Ordering::Relaxed);
    }
    let watched = set_back();
    let out = work();
    (out, peak_kib().filter(|_| watched).map(|peak| peak as f64 / 1024.0))
}

/// Sets the system's mark of the highest resident set back to the present one (proc(5)).
#[cfg(target_os = "linux")]
fn set_back() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[cfg(not(target_os = "linux"))]
fn set_back() -> bool {
    false
}

/// `getrusage` would be shorter, but on Linux its figure starts at that of the parent process.
#[cfg(target_os = "linux")]
fn peak_kib() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

#[cfg(target_os = "linux")]
fn resident_kib() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

#[cfg(not(target_os = "linux"))]
fn resident_kib() -> Option<u64> {
    None
}

#[cfg(target_os = "linux")]
fn available_kib() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

#[cfg(not(target_os = "linux"))]
fn available_kib() -> Option<u64> {
    None
}

/// A figure of `/proc/self/status` or `/proc/meminfo`, in KiB.
#[cfg(any(target_os = "linux", test))]
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(all(unix, not(target_os = "linux")))]
fn peak_kib() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to writable memory of the right type, and `rusage` is plain integers,
    // for which zeroes are valid even if the call fails.
    let (status, usage) =
        unsafe { (libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), usage.assume_init()) };
    // Apple counts bytes, the BSDs kibibytes.
    let unit = if cfg!(target_vendor = "apple") { 1024 } else { 1 };
    (status == 0).then(|| u64::try_from(usage.ru_maxrss).ok())?.map(|size| size / unit)
}

#[cfg(not(unix))]
fn peak_kib() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_in_kib() {
        let status = "VmPeak:\t 9 kB\nVmHWM:\t    2049 kB\nVmRSS: 1 kB\n";
        assert_eq!((field(status, "VmHWM:"), field(status, "VmRSS:")), (Some(2049), Some(1)));
        assert_eq!(field("VmRSS: 1 kB\n", "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_used_for_a_while_is_seen_and_stays_in_the_peak() {
        let use_mib = |n: usize| drop(std::hint::black_box(vec![1u8; n << 20]));
        use_mib(96);
        let ((), peak) = peak_during(|| use_mib(32));
        // Other tests run beside this one, so it may be more.
        assert!(peak.is_none_or(|mib| mib >= 32.0), "{peak:?}");
        assert!(peak_mib().is_some_and(|mib| mib >= 96));
    }
}
