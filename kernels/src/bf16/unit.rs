//! Instructions of the processor for bf16 products.

use std::sync::OnceLock;

/// An implementation of bf16 products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No special instructions: operands are rounded to bf16 and multiplied as f32.
    Portable,
    /// AVX512-BF16: `vdpbf16ps` adds pairs of products to 16 sums. AMD processors (from Zen 4 on)
    /// issue it as often as f32 FMA, for twice the rate. The measured Intel processor (Emerald
    /// Rapids) issues it less than a third as often: 86 GFLOP/s, against 150 in f32. On Intel f32
    /// is preferred.
    Avx512,
    /// AMX-BF16: `tdpbf16ps` multiplies tiles of 16×32 by 32×16.
    Amx,
}

impl Unit {
    /// The units that this processor and operating system support, slowest first.
    pub fn available() -> &'static [Unit] {
        static UNITS: OnceLock<Vec<Unit>> = OnceLock::new();
        UNITS.get_or_init(|| {
            #[allow(unused_mut)]
            let mut units = vec![Unit::Portable];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16")
            {
                // Sort it behind slower units.
                units.insert(if is_intel() { 0 } else { 1 }, Unit::Avx512);
                // Packing uses AVX-512. Every processor with AMX has it.
                #[cfg(target_os = "linux")]
                if super::amx::request_permission() {
                    units.push(Unit::Amx);
                }
            }
            units
        })
    }

    /// The fastest supported unit.
    pub fn best() -> Unit {
        Self::available().last().copied().unwrap_or(Unit::Portable)
    }

    /// Whether this processor multiplies bf16 faster than f32.
    pub fn beats_f32() -> bool {
        Self::best() != Unit::Portable
    }

    /// Name of the instructions.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Portable => "none",
            Unit::Avx512 => "AVX512-BF16",
            Unit::Amx => "AMX-BF16",
        }
    }
}

/// Whether the processor's vendor is Intel.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    // SAFETY: every x86-64 processor has the instruction. Newer compilers know that, hence the
    // `allow`.
    #[allow(unused_unsafe)]
    let found = unsafe { std::arch::x86_64::__cpuid(0) };
    [found.ebx, found.edx, found.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}
