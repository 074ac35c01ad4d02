//! What the processor multiplies bf16 with.

use std::sync::OnceLock;

/// The instructions of a product in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// None: operands are rounded to bf16 and multiplied as f32.
    Portable,
    /// AVX512-BF16: `vdpbf16ps`, pairs of products onto 16 sums. AMD's processors (from Zen 4 on)
    /// begin as many a cycle as fused multiplications of f32, for twice the rate. Intel's begin fewer
    /// than a third as many, on the one that was measured (Emerald Rapids): 86 GFLOP/s where f32 has
    /// 150. There f32 is preferred.
    Avx512,
    /// AMX-BF16: `tdpbf16ps`, tiles of 16×32 by 32×16.
    Amx,
}

impl Unit {
    /// The units that this processor has and the kernel grants, slowest first.
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
                // Behind what is slower.
                units.insert(if intel() { 0 } else { 1 }, Unit::Avx512);
                // Packing is AVX-512's, and no processor has AMX without it.
                #[cfg(target_os = "linux")]
                if super::amx::granted() {
                    units.push(Unit::Amx);
                }
            }
            units
        })
    }

    /// The fastest of them.
    pub fn best() -> Unit {
        Self::available().last().copied().unwrap_or(Unit::Portable)
    }

    /// Whether this processor multiplies bf16 faster than f32.
    pub fn pays() -> bool {
        Self::best() != Unit::Portable
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Portable => "none",
            Unit::Avx512 => "AVX512-BF16",
            Unit::Amx => "AMX-BF16",
        }
    }
}

/// Whether the processor calls itself Intel's.
#[cfg(target_arch = "x86_64")]
fn intel() -> bool {
    // SAFETY: every x86-64 processor has the instruction; newer compilers know that.
    #[allow(unused_unsafe)]
    let found = unsafe { std::arch::x86_64::__cpuid(0) };
    [found.ebx, found.edx, found.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}
