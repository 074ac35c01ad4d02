//! Conversion between stored bytes and numbers.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

/// Storage types of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TensorDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of a single.
    Bf16,
    /// IEEE double.
    F64,
}

impl TensorDtype {
    /// Parses the format's name of a type.
    pub fn parse(name: &str) -> Option<TensorDtype> {
        Some(match name {
            "F32" => TensorDtype::F32,
            "F16" => TensorDtype::F16,
            "BF16" => TensorDtype::Bf16,
            "F64" => TensorDtype::F64,
            _ => return None,
        })
    }

    /// The format's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            TensorDtype::F32 => "F32",
            TensorDtype::F16 => "F16",
            TensorDtype::Bf16 => "BF16",
            TensorDtype::F64 => "F64",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            TensorDtype::F16 | TensorDtype::Bf16 => 2,
            TensorDtype::F32 => 4,
            TensorDtype::F64 => 8,
        }
    }

    /// Decodes little-endian bytes to an F32 or F64 tensor. F32 rounds values that are stored as
    /// F64.
    pub fn decode(self, bytes: &[u8], shape: &[usize], to: DType) -> candle_core::Result<Tensor> {
        if to == DType::F64 {
            let values = match self {
                TensorDtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
                TensorDtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
                TensorDtype::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f64()),
                TensorDtype::F64 => each(bytes, f64::from_le_bytes),
            };
            return Tensor::from_vec(values, shape, &Device::Cpu);
        }
        let values: Vec<f32> = match self {
            TensorDtype::F32 => each(bytes, f32::from_le_bytes),
            TensorDtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            TensorDtype::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            TensorDtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        };
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    /// Encodes an F32 or F64 tensor as little-endian bytes, rounded to nearest, ties to even.
    pub fn encode(self, tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
        let flat = tensor.flatten_all()?;
        if flat.dtype() == DType::F64 {
            let v = flat.to_vec1::<f64>()?;
            return Ok(match self {
                TensorDtype::F32 => v.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
                TensorDtype::F16 => {
                    v.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect()
                }
                TensorDtype::Bf16 => {
                    v.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect()
                }
                TensorDtype::F64 => v.iter().flat_map(|&x| x.to_le_bytes()).collect(),
            });
        }
        let v = flat.to_vec1::<f32>()?;
        Ok(match self {
            TensorDtype::F32 => v.iter().flat_map(|&x| x.to_le_bytes()).collect(),
            TensorDtype::F16 => v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            TensorDtype::Bf16 => v.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            TensorDtype::F64 => v.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        })
    }
}

fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect()
}

/// Which elements of two tensors of the same type and size differ bitwise. NaN equals itself, and 0
/// ≠ −0.
pub fn moved(a: &Tensor, b: &Tensor) -> candle_core::Result<Vec<bool>> {
    let (a, b) = (a.flatten_all()?, b.flatten_all()?);
    if a.dtype() == DType::F64 {
        let (a, b) = (a.to_vec1::<f64>()?, b.to_vec1::<f64>()?);
        return Ok(a.iter().zip(&b).map(|(x, y)| x.to_bits() != y.to_bits()).collect());
    }
    let (a, b) = (a.to_vec1::<f32>()?, b.to_vec1::<f32>()?);
    Ok(a.iter().zip(&b).map(|(x, y)| x.to_bits() != y.to_bits()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(stored: TensorDtype, values: &[f32]) -> Vec<f32> {
        let tensor = Tensor::new(values, &Device::Cpu).unwrap();
        let bytes = stored.encode(&tensor).unwrap();
        let back = stored.decode(&bytes, &[values.len()], DType::F32).unwrap();
        let wide = stored.decode(&bytes, &[values.len()], DType::F64).unwrap();
        assert_eq!(bytes, stored.encode(&wide).unwrap());
        back.to_vec1().unwrap()
    }

    #[test]
    fn rounds_to_nearest_ties_to_even() {
        // Half precision stores 10 bits of fraction, bfloat16 7: above 1 the spacing is 2⁻¹⁰ and
        // 2⁻⁷.
        let (h, b) = (2f32.powi(-10), 2f32.powi(-7));
        let x = [1.0 + h / 2.0, 1.0 + 1.5 * h, 1.0 + 0.51 * h, -1.0 - 0.49 * h];
        assert_eq!(round(TensorDtype::F16, &x), [1.0, 1.0 + 2.0 * h, 1.0 + h, -1.0]);
        let x = [1.0 + b / 2.0, 1.0 + 1.5 * b, 1.0 + 0.51 * b, -1.0 - 0.49 * b];
        assert_eq!(round(TensorDtype::Bf16, &x), [1.0, 1.0 + 2.0 * b, 1.0 + b, -1.0]);
        assert_eq!(round(TensorDtype::F16, &[70000.0]), [f32::INFINITY]);
        for stored in [TensorDtype::F32, TensorDtype::F64] {
            assert_eq!(round(stored, &[0.1, -3.5e30]), [0.1, -3.5e30]);
        }
    }

    #[test]
    fn compares_bits() {
        let tensor = |x: &[f32]| Tensor::new(x, &Device::Cpu).unwrap();
        let found = moved(&tensor(&[f32::NAN, 0.0, 1.0]), &tensor(&[f32::NAN, -0.0, 1.0])).unwrap();
        assert_eq!(found, [false, true, false]);
    }
}
