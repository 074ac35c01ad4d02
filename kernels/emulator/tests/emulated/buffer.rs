//! Buffers in place of GPU memory.

use planish_kernels::cuda::{Address, StorageType};
use std::cell::Cell;

/// A buffer of exactly the given size, so that a sanitizer detects accesses past its end.
///
/// It uses cells because kernels write to memory that Rust does not hold exclusively.
#[derive(Clone, Debug)]
pub struct Buffer(Box<[Cell<u8>]>);

impl Buffer {
    /// Unwritten memory. Every number in it reads as NaN.
    pub fn blank(bytes: usize) -> Self {
        Self(vec![Cell::new(0xff); bytes].into_boxed_slice())
    }

    /// Numbers converted to a storage type; bf16 to nearest, ties to even.
    pub fn numbers(stored: StorageType, numbers: &[f64]) -> Self {
        Self::bytes(match stored {
            StorageType::F32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            StorageType::F64 => numbers.iter().flat_map(|&x| x.to_le_bytes()).collect(),
            StorageType::Bf16 => {
                numbers.iter().flat_map(|&x| bf16(x as f32).to_le_bytes()).collect()
            }
        })
    }

    /// Class labels.
    pub fn labels(labels: &[u32]) -> Self {
        Self::bytes(labels.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into_iter().map(Cell::new).collect())
    }

    /// Address of the buffer, a multiple of 16.
    pub fn address(&self) -> Address {
        self.0.as_ptr() as Address
    }

    /// The numbers, converted from a storage type.
    pub fn read(&self, stored: StorageType) -> Vec<f64> {
        let number = |bytes: &[u8]| match *bytes {
            [a, b] => f64::from(f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16)),
            [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => f64::from_le_bytes(std::array::from_fn(|i| bytes[i])),
        };
        let bytes: Vec<u8> = self.0.iter().map(Cell::get).collect();
        bytes.chunks_exact(stored.bytes()).map(number).collect()
    }
}

fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    match x.is_nan() {
        true => 0x7fff,
        false => (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16,
    }
}
