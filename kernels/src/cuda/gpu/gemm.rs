//! Products of strided matrices by cuBLAS.
//!
//! cuBLAS counts by columns. A row-major C = A·B is, by columns, Cᵀ = Bᵀ·Aᵀ: operands change places,
//! and one whose rows are contiguous is taken as it lies, one whose columns are, transposed.

use super::memory::Number;
use crate::cuda::launch::{Address, Stored, i32_of, i64_of};
use crate::error::{Error, Result};
use crate::view::View;
use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::{WrapErr, gemm_reduced_precision_f32};
use std::ffi::c_void;

/// An operand as cuBLAS wants it: how it is taken, and the distance of its columns or rows.
fn operand(op: &'static str, v: View) -> Result<(sys::cublasOperation_t, i32)> {
    use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
    if v.col_stride == 1 || v.cols == 1 {
        Ok((CUBLAS_OP_N, i32_of(op, v.row_stride.max(v.cols))?))
    } else if v.row_stride == 1 || v.rows == 1 {
        Ok((CUBLAS_OP_T, i32_of(op, v.col_stride.max(v.rows))?))
    } else {
        Err(Error::shape(op, "matrices with contiguous rows or columns", format!("{v:?}")))
    }
}

/// C = factor · A·B, or C += factor · A·B if `add`, for every matrix of the batch.
pub(super) fn gemm<E: Number>(
    device: &CudaDevice,
    op: &'static str,
    (c, v): (Address, View),
    add: bool,
    (a, va): (Address, View),
    (b, vb): (Address, View),
    factor: f64,
) -> Result<()> {
    if v.rows * v.cols * v.batch[0] * v.batch[1] == 0 {
        return Ok(());
    }
    if v.col_stride != 1 {
        return Err(Error::shape(op, "a product with contiguous rows", format!("{v:?}")));
    }
    let ((how_a, lda), (how_b, ldb)) = (operand(op, va)?, operand(op, vb)?);
    let [m, n, k] = [v.cols, v.rows, va.cols].map(|size| i32_of(op, size));
    let ldc = i32_of(op, v.row_stride.max(v.cols))?;
    // The longer of the two batch dimensions goes into one call.
    let (across, along) = if v.batch[0] > v.batch[1] { (1, 0) } else { (0, 1) };
    let stride = |v: View| i64_of(op, v.batch_strides[along]);
    let (stride_a, stride_b, stride_c) = (stride(va)?, stride(vb)?, stride(v)?);
    let (kind, compute) = match E::STORED {
        Stored::F64 => {
            (sys::cudaDataType_t::CUDA_R_64F, sys::cublasComputeType_t::CUBLAS_COMPUTE_64F)
        }
        _ if gemm_reduced_precision_f32() => (
            sys::cudaDataType_t::CUDA_R_32F,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        ),
        _ => (sys::cudaDataType_t::CUDA_R_32F, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F),
    };
    let (alpha, beta) = (E::narrow(factor), E::narrow(if add { 1.0 } else { 0.0 }));
    let at = |address: Address, v: View, i: usize| {
        address + ((v.offset + i * v.batch_strides[across]) * size_of::<E>()) as u64
    };
    let blas = device.cublas_handle();
    let (m, n, k) = (m?, n?, k?);
    for i in 0..v.batch[across] {
        // SAFETY: views were checked to lie inside their buffers, which live until the work that
        // is sent here has ended; factors are on the host, as the handle expects.
        unsafe {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                how_b,
                how_a,
                m,
                n,
                k,
                (&raw const alpha).cast::<c_void>(),
                at(b, vb, i) as *const c_void,
                kind,
                ldb,
                stride_b,
                at(a, va, i) as *const c_void,
                kind,
                lda,
                stride_a,
                (&raw const beta).cast::<c_void>(),
                at(c, v, i) as *mut c_void,
                kind,
                ldc,
                stride_c,
                i32_of(op, v.batch[along])?,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()?;
    }
    Ok(())
}
