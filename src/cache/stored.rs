//! Stored numbers: little-endian bytes of one type.

use super::Result;
use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

/// The type of cached activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationDtype {
    /// As computed by a model in f32.
    F32,
    /// As computed by a model in f64.
    F64,
    /// Rounded to the nearest bf16, ties to even; computation is in f32. Half the size of f32, with
    /// a relative error of at most 2⁻⁸.
    Bf16,
}

impl ActivationDtype {
    /// The model's own type, or bf16.
    pub fn of(model: DType, half: bool) -> Self {
        match model {
            _ if half => ActivationDtype::Bf16,
            DType::F64 => ActivationDtype::F64,
            _ => ActivationDtype::F32,
        }
    }

    /// Its name in safetensors.
    pub fn name(self) -> &'static str {
        match self {
            ActivationDtype::F32 => "F32",
            ActivationDtype::F64 => "F64",
            ActivationDtype::Bf16 => "BF16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            ActivationDtype::F32 => 4,
            ActivationDtype::F64 => 8,
            ActivationDtype::Bf16 => 2,
        }
    }

    /// The numbers of a tensor, in order.
    ///
    /// # Errors
    /// A tensor that is not of a float type.
    pub fn encode(self, x: &Tensor) -> Result<Vec<u8>> {
        let x = x.flatten_all()?;
        Ok(match self {
            ActivationDtype::F64 => {
                let x = x.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                x.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
            ActivationDtype::F32 => {
                let x = x.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                x.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
            ActivationDtype::Bf16 => {
                let x = x.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
            }
        })
    }

    /// Builds the tensor (rows, …) from the bytes of each row given by `read`, as written by
    /// [`ActivationDtype::encode`]. bf16 is converted to f32 exactly. Rows are read in parallel.
    ///
    /// # Errors
    /// Those of `read`; of several, the first.
    pub fn collect(
        self,
        rows: usize,
        row: &[usize],
        read: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Tensor> {
        let shape: Vec<usize> = std::iter::once(rows).chain(row.iter().copied()).collect();
        let n = row.iter().product();
        Ok(match self {
            ActivationDtype::F32 => {
                let x = gather(rows, n, read, |b: &[u8; 4]| f32::from_le_bytes(*b))?;
                Tensor::from_vec(x, shape, &Device::Cpu)?
            }
            ActivationDtype::F64 => {
                let x = gather(rows, n, read, |b: &[u8; 8]| f64::from_le_bytes(*b))?;
                Tensor::from_vec(x, shape, &Device::Cpu)?
            }
            ActivationDtype::Bf16 => {
                let x = gather(rows, n, read, |b: &[u8; 2]| bf16::from_le_bytes(*b).to_f32())?;
                Tensor::from_vec(x, shape, &Device::Cpu)?
            }
        })
    }
}

/// Rows of `n` numbers of `W` bytes each, with one buffer per thread.
fn gather<T: Clone + Default + Send, const W: usize>(
    rows: usize,
    n: usize,
    read: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
    number: impl Fn(&[u8; W]) -> T + Sync,
) -> Result<Vec<T>> {
    let mut out = vec![T::default(); rows * n];
    let read: Vec<Result<()>> = out
        .par_chunks_mut(n.max(1))
        .enumerate()
        .map_init(
            || vec![0; n * W],
            |buffer, (i, out)| {
                read(i, buffer)?;
                for (x, bytes) in out.iter_mut().zip(buffer.as_chunks().0) {
                    *x = number(bytes);
                }
                Ok(())
            },
        )
        .collect();
    read.into_iter().collect::<Result<()>>()?;
    Ok(out)
}
