//! Memory that stands for a GPU's.

use planish_kernels::cuda::{Address, Stored};
use std::cell::Cell;

/// A buffer of exactly so many bytes, so that a sanitizer sees what goes past them.
///
/// Kernels write where Rust holds no exclusive reference, hence the cells.
#[derive(Clone, Debug)]
pub struct Buffer(Box<[Cell<u8>]>);

impl Buffer {
    /// Unwritten memory: every number of it reads as NaN.
    pub fn blank(bytes: usize) -> Self {
        Self(vec![Cell::new(0xff); bytes].into_boxed_slice())
    }

    /// Numbers, stored so; bf16 to nearest, ties to even.
    pub fn numbers(stored: Stored, numbers: &[f64]) -> Self {
        Self::bytes(match stored {
            Stored::F32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            Stored::F64 => numbers.iter().flat_map(|&x| x.to_le_bytes()).collect(),
            Stored::Bf16 => numbers.iter().flat_map(|&x| bf16(x as f32).to_le_bytes()).collect(),
        })
    }

    /// Whole numbers, as labels are.
    pub fn labels(labels: &[u32]) -> Self {
        Self::bytes(labels.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into_iter().map(Cell::new).collect())
    }

    /// Where it begins: a multiple of 16.
    pub fn address(&self) -> Address {
        self.0.as_ptr() as Address
    }

    /// Its numbers, stored so.
    pub fn read(&self, stored: Stored) -> Vec<f64> {
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
