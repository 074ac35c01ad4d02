//! Driver of bilinear operations: matrix products and the product rule.
//!
//! The tangents of C = A·B are Ċₖ = Ȧₖ·B + A·Ḃₖ; the second product accumulates onto the first.
//! Operands are strided views of whole buffers, so heads, transposes and slices of a fused
//! query-key-value buffer need no copy.

use crate::bf16;
use crate::cpu::run_serially;
use crate::dual_tensor::{DualTensor, Host, common_dtype};
use crate::error::{Error, Result};
use crate::lanes::Element;
use crate::op::Op;
use candle_core::{DType, Device, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

pub use crate::view::View;

/// How matrix products are computed.
///
/// Where the device or the type does not support [`Products::Tiles`] or [`Products::Tf32`], products
/// are computed as with [`Products::F32`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Operands keep their type, f32 or f64.
    #[default]
    F32,
    /// On a CPU with AMX, large f32 products use its tiles. Each operand is split into three bf16
    /// numbers, and the result is as accurate as in f32. See [`crate::bf16::split`].
    ///
    /// This is not the default: tiles that other programs also use are slower than vector
    /// instructions, and results must not depend on which other programs run.
    Tiles,
    /// On a GPU, f32 operands are rounded to TF32; sums are f32.
    Tf32,
    /// Operands are f32 rounded to bf16 (on a GPU possibly stored in bf16); sums are f32. See
    /// [`crate::bf16`].
    Bf16,
}

impl Products {
    /// The function that multiplies f32 matrices on the CPU.
    pub(crate) fn multiply(self) -> Multiply<f32> {
        match self {
            Products::F32 | Products::Tf32 => multiply,
            Products::Tiles => bf16::split::multiply_if_large,
            Products::Bf16 => bf16::multiply,
        }
    }

    /// Checks the operands' type and number of tangents.
    pub(crate) fn check(self, op: &'static str, dtype: DType, tangents: usize) -> Result<()> {
        match (self, dtype, tangents) {
            (Products::Bf16, DType::F32, 0) => Ok(()),
            (Products::Bf16, ..) => Err(Error::Precision { op, dtype, tangents }),
            _ => Ok(()),
        }
    }
}

/// The initial value of a product.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a, E> {
    /// Zero: the target is overwritten.
    Zero,
    /// The content of the target.
    Sum,
    /// This row, in every row of a single matrix.
    Row(&'a [E]),
}

/// target = start + factor · A·B.
pub(crate) type Multiply<E> = fn((&mut [E], View), Start<E>, (&[E], View), (&[E], View), f64);

/// The target of a product: shape, matrices inside it, and initial value.
pub struct Target<'a> {
    /// Shape of the result. Numbers outside the view are 0.
    pub dims: &'a [usize],
    /// The matrices to write.
    pub view: View,
    /// A row added to every row of a single matrix: a linear layer's bias.
    pub bias: Option<&'a DualTensor>,
    /// The result's value if it is known. Then only the tangents are computed.
    pub primal: Option<&'a Tensor>,
    /// How it is computed.
    pub products: Products,
}

/// `factor` · A·B with tangents.
///
/// # Errors
/// Operands with different types or numbers of tangents; views outside their buffer; inner
/// dimensions or batches that differ; in bf16, operands that are f64 or have tangents.
pub fn product(
    op: &dyn Op,
    (a, va): (&DualTensor, View),
    (b, vb): (&DualTensor, View),
    target: Target,
    factor: f64,
) -> Result<DualTensor> {
    let name = op.name();
    let mut operands = vec![a, b];
    operands.extend(target.bias);
    let (v, k) = (target.view, va.cols);
    let fits = va.cols == vb.rows
        && v.rows == va.rows
        && v.cols == vb.cols
        && v.batch == va.batch
        && v.batch == vb.batch
        && va.end() <= a.numel()
        && vb.end() <= b.numel()
        && v.end() <= target.dims.iter().product()
        && target.bias.is_none_or(|x| x.numel() == v.cols && v.batch == [1, 1])
        && target.primal.is_none_or(|y| y.dims() == target.dims);
    if !fits {
        return Err(Error::shape(
            name,
            format!("matrices that multiply over {k} into {:?}", target.dims),
            format!("{va:?} of {:?} and {vb:?} of {:?}", a.dims(), b.dims()),
        ));
    }
    let mut tangents = 0;
    for x in &operands {
        if x.tangents() > 0 && tangents > 0 && x.tangents() != tangents {
            return Err(Error::shape(
                name,
                format!("{tangents} tangents"),
                format!("{}", x.tangents()),
            ));
        }
        tangents = tangents.max(x.tangents());
    }
    #[cfg(feature = "cuda")]
    if operands.iter().any(|x| x.on_gpu()) {
        return crate::cuda::gpu::product(name, (a, va), (b, vb), &target, factor, tangents);
    }
    let ab = ((a, va), (b, vb));
    let dtype = common_dtype(name, &operands)?;
    let products = target.products;
    products.check(name, dtype, tangents)?;
    match dtype {
        DType::F32 => typed::<f32>(name, products.multiply(), ab, target, factor, tangents),
        _ => typed::<f64>(name, multiply, ab, target, factor, tangents),
    }
}

fn typed<E: Element>(
    name: &'static str,
    multiply: Multiply<E>,
    ((a, va), (b, vb)): ((&DualTensor, View), (&DualTensor, View)),
    target: Target,
    factor: f64,
    tangents: usize,
) -> Result<DualTensor> {
    let size: usize = target.dims.iter().product();
    let v = target.view;
    let whole = v.rows * v.cols * v.batch[0] * v.batch[1] == size;
    let (ha, hb) = (Host::new(name, a.value())?, Host::new(name, b.value())?);
    let (sa, sb) = (ha.slice::<E>()?, hb.slice::<E>()?);
    let fresh =
        |len| if whole { crate::cpu::uninitialized::<E>(len) } else { vec![E::default(); len] };

    let value = match target.primal {
        Some(primal) => primal.clone(),
        None => {
            let mut value = fresh(size);
            let bias = target.bias.map(|x| Host::new(name, x.value())).transpose()?;
            let bias = bias.as_ref().map(Host::slice::<E>).transpose()?;
            let start = bias.map_or(Start::Zero, Start::Row);
            multiply((&mut value, v), start, (sa, va), (sb, vb), factor);
            Tensor::from_vec(value, target.dims, &Device::Cpu)?
        }
    };
    if tangents == 0 {
        return Ok(DualTensor::constant(value));
    }

    let mut tangent = fresh(tangents * size);
    let ta = a.tangent().map(|t| Host::new(name, t)).transpose()?;
    let tb = b.tangent().map(|t| Host::new(name, t)).transpose()?;
    let t_bias =
        target.bias.and_then(DualTensor::tangent).map(|t| Host::new(name, t)).transpose()?;
    let ta = ta.as_ref().map(Host::slice::<E>).transpose()?;
    let tb = tb.as_ref().map(Host::slice::<E>).transpose()?;
    let t_bias = t_bias.as_ref().map(Host::slice::<E>).transpose()?;
    for (k, out) in tangent.chunks_mut(size.max(1)).enumerate() {
        let plane = |t: &'_ [E], n: usize| -> std::ops::Range<usize> {
            debug_assert!(t.len() >= (k + 1) * n);
            k * n..(k + 1) * n
        };
        let mut start = t_bias.map_or(Start::Zero, |t| Start::Row(&t[plane(t, v.cols)]));
        if let Some(t) = ta {
            multiply((out, v), start, (&t[plane(t, sa.len())], va), (sb, vb), factor);
            start = Start::Sum;
        }
        if let Some(t) = tb {
            multiply((out, v), start, (sa, va), (&t[plane(t, sb.len())], vb), factor);
            start = Start::Sum;
        }
        match start {
            Start::Zero => out.fill(E::default()),
            Start::Row(row) => fill_rows(out, row),
            Start::Sum => {}
        }
    }
    let dims: Vec<usize> = std::iter::once(tangents).chain(target.dims.iter().copied()).collect();
    DualTensor::new(value, Some(Tensor::from_vec(tangent, dims, &Device::Cpu)?))
}

/// Below this many multiplications a second thread costs more than it saves.
const SERIAL: usize = 1 << 16;

/// Pointer to an output in which threads write disjoint matrices.
#[derive(Clone, Copy)]
struct Raw<E>(*mut E);
// SAFETY: each batch index is one matrix, written by one thread.
unsafe impl<E> Send for Raw<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Raw<E> {}

impl<E> Raw<E> {
    fn get(self) -> *mut E {
        self.0
    }
}

/// Copies `row` into every row of a matrix.
fn fill_rows<E: Element>(matrix: &mut [E], row: &[E]) {
    for line in matrix.chunks_mut(row.len().max(1)) {
        line.copy_from_slice(row);
    }
}

/// Asserts that the views of a product are inside their buffers and that sizes match.
pub(crate) fn check<E>(
    (dst, v): (&[E], View),
    start: Start<E>,
    (a, va): (&[E], View),
    (b, vb): (&[E], View),
) {
    assert!(v.end() <= dst.len() && va.end() <= a.len() && vb.end() <= b.len(), "checked views");
    assert!(v.batch == va.batch && v.batch == vb.batch, "checked batches");
    assert!(v.rows == va.rows && v.cols == vb.cols && va.cols == vb.rows, "checked sizes");
    if let Start::Row(row) = start {
        assert!(row.len() == v.cols && dst.len() == v.rows * v.cols, "a row for one matrix");
    }
}

/// dst = start + factor · A·B for every matrix of the batch.
///
/// # Panics
/// If a view is outside its buffer or sizes do not match.
pub fn multiply<E: Element>(
    (dst, v): (&mut [E], View),
    start: Start<E>,
    (a, va): (&[E], View),
    (b, vb): (&[E], View),
    factor: f64,
) {
    check((dst, v), start, (a, va), (b, vb));
    if let Start::Row(row) = start {
        fill_rows(dst, row);
    }
    let accumulate = !matches!(start, Start::Zero);
    let batch = v.batch[0] * v.batch[1];
    let threads = rayon::current_num_threads();
    let serial = batch * v.rows * v.cols * va.cols < SERIAL || run_serially();
    let raw = Raw(dst.as_mut_ptr());
    let one = |i: usize, parallelism: Parallelism| {
        // SAFETY: `end` bounds every index that these strides reach in all three buffers, and
        // matrices of different i do not overlap in dst.
        unsafe {
            gemm::gemm(
                v.rows,
                v.cols,
                va.cols,
                raw.get().add(v.start(i)),
                v.col_stride as isize,
                v.row_stride as isize,
                accumulate,
                a.as_ptr().add(va.start(i)),
                va.col_stride as isize,
                va.row_stride as isize,
                b.as_ptr().add(vb.start(i)),
                vb.col_stride as isize,
                vb.row_stride as isize,
                E::narrow(1.0),
                E::narrow(factor),
                false,
                false,
                false,
                parallelism,
            );
        }
    };
    if serial {
        (0..batch).for_each(|i| one(i, Parallelism::None));
    } else if batch == 1 {
        one(0, Parallelism::Rayon(threads));
    } else {
        (0..batch).into_par_iter().with_min_len(8).for_each(|i| one(i, Parallelism::None));
    }
}
