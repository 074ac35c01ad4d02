//! Which vector instructions the processor has.

/// Vector instructions to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// None beyond what the compiler's target has.
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

    /// The levels this processor has, narrowest first.
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

    /// The widest level this processor has.
    pub fn best() -> Simd {
        static BEST: std::sync::OnceLock<Simd> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Simd::available().last().copied().unwrap_or(Simd::Plain))
    }
}
