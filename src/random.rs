//! Seeded random streams, and draws from them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The random stream `name` of a run with seed `seed`: ChaCha8 keyed by
/// SHA-256("planish stream" ‖ seed as 8 little-endian bytes ‖ name).
///
/// All random numbers of planish come from these streams. Streams with different names are
/// independent: drawing more from one (such as the perturbation's γ) does not change another (such
/// as the batches B). So methods can be compared on the same batches.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"planish stream");
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// A uniform integer in `0..n`; 0 if `n` is 0. Unbiased: Lemire, "Fast random integer generation
/// in an interval", ACM TOMACS 2019.
///
/// Implemented here because crate `rand` may change its own algorithm between versions, and equal
/// seeds must always give equal bytes.
pub fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let reject = n.wrapping_neg() % n;
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(n);
        if wide as u64 >= reject {
            return (wide >> 64) as u64;
        }
    }
}

/// A uniform number in [0, 1): 53 random bits.
pub fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Fisher–Yates shuffle: all permutations are equally likely.
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_documented_hash() {
        // printf 'planish stream\7\0\0\0\0\0\0\0B' | sha256sum
        let hex = "959d9924481c172a2159dd4a94acaed8c14050f8c24e20c0d8e1a6214357212d";
        let key: [u8; 32] =
            std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
        assert_eq!(stream(7, "B").next_u64(), ChaCha8Rng::from_seed(key).next_u64());
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = stream(0, "test");
        let mut counts = [0usize; 6];
        for _ in 0..60_000 {
            counts[below(&mut rng, 6) as usize] += 1;
        }
        // Five standard deviations of a binomial(60000, 1/6) are 457.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 457), "{counts:?}");
    }

    #[test]
    fn unit_has_the_moments_of_a_uniform_variable() {
        let mut rng = stream(1, "test");
        let draws: Vec<f64> = (0..40_000).map(|_| unit(&mut rng)).collect();
        assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let second = draws.iter().map(|x| x * x).sum::<f64>() / 40_000.0;
        assert!((mean - 0.5).abs() < 0.008 && (second - 1.0 / 3.0).abs() < 0.008);
    }
}
