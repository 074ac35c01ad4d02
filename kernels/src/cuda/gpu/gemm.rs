//! Strided matrix products with cuBLAS.
//!
//! cuBLAS uses column-major matrices. A row-major C = A·B is Cᵀ = Bᵀ·Aᵀ in column-major order, so
//! the operands are swapped. An operand with contiguous rows is passed as it is, one with
//! contiguous columns as transposed.

use crate::cuda::launch::{Address, StorageType, i32_of, i64_of};
use crate::error::{Error, Result};
use crate::view::View;
use candle_core::CudaDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use std::ffi::c_void;

/// A batch of matrices: base address, storage type and view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    pub at: Address,
    pub stored: StorageType,
    pub view: View,
}

impl Matrix {
    /// Transposition flag and leading dimension for cuBLAS.
    fn layout(&self, op: &'static str) -> Result<(sys::cublasOperation_t, i32)> {
        use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        let v = self.view;
        if v.col_stride == 1 || v.cols == 1 {
            Ok((CUBLAS_OP_N, i32_of(op, v.row_stride.max(v.cols))?))
        } else if v.row_stride == 1 || v.rows == 1 {
            Ok((CUBLAS_OP_T, i32_of(op, v.col_stride.max(v.rows))?))
        } else {
            Err(Error::shape(op, "matrices with contiguous rows or columns", format!("{v:?}")))
        }
    }

    /// Address of matrix `i` along batch dimension `across`.
    fn start(&self, across: usize, i: usize) -> Address {
        let numbers = self.view.offset + i * self.view.batch_strides[across];
        self.at + (numbers * self.stored.bytes()) as u64
    }

    fn kind(&self) -> sys::cudaDataType_t {
        match self.stored {
            StorageType::F32 => sys::cudaDataType_t::CUDA_R_32F,
            StorageType::F64 => sys::cudaDataType_t::CUDA_R_64F,
            StorageType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        }
    }
}

/// C = factor · A·B, or C += factor · A·B with `add`, for every matrix of the batch. A and B have
/// the same type. For bf16, products are exact, sums are f32, and C is either type. With `tf32`, f32
/// operands are rounded to TF32.
pub(super) fn gemm(
    device: &CudaDevice,
    op: &'static str,
    c: Matrix,
    add: bool,
    [a, b]: [Matrix; 2],
    (factor, tf32): (f64, bool),
) -> Result<()> {
    let v = c.view;
    if v.rows * v.cols * v.batch[0] * v.batch[1] == 0 {
        return Ok(());
    }
    if v.col_stride != 1 {
        return Err(Error::shape(op, "a product with contiguous rows", format!("{v:?}")));
    }
    let ((how_a, lda), (how_b, ldb)) = (a.layout(op)?, b.layout(op)?);
    let [m, n, k] = [v.cols, v.rows, a.view.cols].map(|size| i32_of(op, size));
    let ldc = i32_of(op, v.row_stride.max(v.cols))?;
    // One cuBLAS call covers the longer batch dimension.
    let (across, along) = if v.batch[0] > v.batch[1] { (1, 0) } else { (0, 1) };
    let stride = |x: Matrix| i64_of(op, x.view.batch_strides[along]);
    let (stride_a, stride_b, stride_c) = (stride(a)?, stride(b)?, stride(c)?);
    let compute = match a.stored {
        StorageType::F64 => sys::cublasComputeType_t::CUBLAS_COMPUTE_64F,
        StorageType::F32 if tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        StorageType::F32 | StorageType::Bf16 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    // Scaling factors have the type of the computation.
    let double = [factor, if add { 1.0 } else { 0.0 }];
    let single = double.map(|x| x as f32);
    let [alpha, beta] = match a.stored {
        StorageType::F64 => double.each_ref().map(|x| std::ptr::from_ref(x).cast::<c_void>()),
        _ => single.each_ref().map(|x| std::ptr::from_ref(x).cast::<c_void>()),
    };
    let blas = device.cublas_handle();
    let (m, n, k) = (m?, n?, k?);
    for i in 0..v.batch[across] {
        // SAFETY: views were checked to be inside their buffers, which live until the submitted
        // work has ended. Factors are in host memory, as the handle expects.
        unsafe {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                how_b,
                how_a,
                m,
                n,
                k,
                alpha,
                b.start(across, i) as *const c_void,
                b.kind(),
                ldb,
                stride_b,
                a.start(across, i) as *const c_void,
                a.kind(),
                lda,
                stride_a,
                beta,
                c.start(across, i) as *mut c_void,
                c.kind(),
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
