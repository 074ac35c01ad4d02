//! Memory use of this process, where the operating system reports it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Highest peak seen before the operating system's peak was last reset, in KiB.
static EARLIER_PEAK: AtomicU64 = AtomicU64::new(0);

/// Peak resident set size so far, in MiB, rounded up.
pub fn peak_mib() -> Option<u64> {
    let now = peak_kib()?;
    Some(now.max(EARLIER_PEAK.load(Ordering::Relaxed)).div_ceil(1024))
}

/// Current resident set size, in MiB.
pub fn resident_mib() -> Option<f64> {
    Some(resident_kib()? as f64 / 1024.0)
}

/// Memory that the system can still provide, in MiB.
pub fn available_mib() -> Option<f64> {
    Some(available_kib()? as f64 / 1024.0)
}

/// Runs `work` and returns the peak resident set size during it, in MiB. `None` if the system
/// cannot measure it.
pub fn peak_during<T>(work: impl FnOnce() -> T) -> (T, Option<f64>) {
    if let Some(peak) = peak_kib() {
        EARLIER_PEAK.fetch_max(peak, Ordering::Relaxed);
    }
    let watched = reset_peak();
    let out = work();
    (out, peak_kib().filter(|_| watched).map(|peak| peak as f64 / 1024.0))
}

/// Resets the system's peak to the current resident set size (proc(5)).
#[cfg(target_os = "linux")]
fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[cfg(not(target_os = "linux"))]
fn reset_peak() -> bool {
    false
}

/// `getrusage` is simpler, but on Linux its peak starts at the peak of the parent process.
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

/// A value of `/proc/self/status` or `/proc/meminfo`, in KiB.
#[cfg(any(target_os = "linux", test))]
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(all(unix, not(target_os = "linux")))]
fn peak_kib() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to writable memory of the right type. `rusage` holds only integers, so
    // zeros are valid even if the call fails.
    let (status, usage) =
        unsafe { (libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), usage.assume_init()) };
    // Apple reports bytes, the BSDs kibibytes.
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
    fn reads_values_in_kib() {
        let status = "VmPeak:\t 9 kB\nVmHWM:\t    2049 kB\nVmRSS: 1 kB\n";
        assert_eq!((field(status, "VmHWM:"), field(status, "VmRSS:")), (Some(2049), Some(1)));
        assert_eq!(field("VmRSS: 1 kB\n", "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_includes_freed_memory() {
        let use_mib = |n: usize| drop(std::hint::black_box(vec![1u8; n << 20]));
        use_mib(96);
        let ((), peak) = peak_during(|| use_mib(32));
        // Other tests run concurrently, so the peak may be higher.
        assert!(peak.is_none_or(|mib| mib >= 32.0), "{peak:?}");
        assert!(peak_mib().is_some_and(|mib| mib >= 96));
    }
}
