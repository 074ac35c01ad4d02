//! Vector instruction sets of the processor.

/// A vector instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// Only what the compilation target provides.
    Plain,
    /// AVX2 with FMA: 256 bits.
    Avx2,
    /// AVX-512 F, DQ, VL, BW: 512 bits.
    Avx512,
}

impl Simd {
    /// Its name: `plain`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Simd::Plain => "plain",
            Simd::Avx2 => "avx2",
            Simd::Avx512 => "avx512",
        }
    }

    /// The sets this processor supports, narrowest first.
    pub fn available() -> Vec<Simd> {
        #[allow(unused_mut)]
        let mut levels = vec![Simd::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Simd::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
            {
                levels.push(Simd::Avx512);
            }
        }
        levels
    }

    /// The widest set this processor supports.
    pub fn best() -> Simd {
        static BEST: std::sync::OnceLock<Simd> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Simd::available().last().copied().unwrap_or(Simd::Plain))
    }
}
