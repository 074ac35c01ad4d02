//! Operations over all tensors of a layer at once: inner products, updates, optimizer steps. One
//! launch takes up to [`crate::cuda::MAX_TENSORS`] tensors.

use super::device::run;
use super::memory::{DualBuffer, Number, address, device, device_address, uninitialized};
use crate::cuda::launch::{Address, Planner};
use crate::cuda::optimizer::{AdamW, PRODUCTS, Sgd};
use crate::error::{Error, Result};
use candle_core::cuda_backend::WrapErr;
use candle_core::{CudaDevice, DType, Tensor};

/// The tensors of a layer, in order, all with the device and type of the first.
struct List<'a> {
    op: &'static str,
    device: CudaDevice,
    first: &'a [Tensor],
    numbers: Vec<usize>,
}

impl<'a> List<'a> {
    fn new(op: &'static str, first: &'a [Tensor]) -> Result<Self> {
        let Some(one) = first.first() else {
            return Err(Error::shape(op, "at least one tensor", "none"));
        };
        let numbers = first.iter().map(Tensor::elem_count).collect();
        Ok(Self { op, device: device(op, one)?, first, numbers })
    }

    /// Addresses of a list with the shapes of the first list.
    fn at<E: Number>(&self, list: &[Tensor]) -> Result<Vec<Address>> {
        let shapes = |list: &[Tensor]| list.iter().map(|x| x.dims().to_vec()).collect::<Vec<_>>();
        if shapes(list) != shapes(self.first) {
            let [expected, found] = [self.first, list].map(|list| format!("{:?}", shapes(list)));
            return Err(Error::shape(self.op, expected, found));
        }
        list.iter().map(|x| address::<E>(self.op, &self.device, x)).collect()
    }

    /// Memory for new tensors of the same shapes.
    fn fresh<E: Number>(&self) -> Result<Vec<DualBuffer<E>>> {
        self.first.iter().map(|x| DualBuffer::new(&self.device, x.dims(), 0)).collect()
    }

    /// Runs launches that compute [`PRODUCTS`] sums, and reads the sums.
    fn sums(
        &self,
        launches: impl Fn(Address, Address) -> Result<Vec<crate::cuda::Launch>>,
    ) -> Result<[f64; PRODUCTS]> {
        let bytes = Planner::products_scratch(&self.numbers);
        let scratch = uninitialized::<u64>(&self.device, bytes.div_ceil(8))?;
        let total = uninitialized::<f64>(&self.device, PRODUCTS)?;
        let [from, to] =
            [device_address(&self.device, &scratch), device_address(&self.device, &total)];
        run(&self.device, &launches(from, to)?)?;
        let found = self.device.cuda_stream().clone_dtoh(&total).w()?;
        let count = found.len();
        found.try_into().map_err(|_| Error::shape(self.op, "3 sums", count.to_string()))
    }
}

fn addresses<E: Number>(fresh: &[DualBuffer<E>]) -> Vec<Address> {
    fresh.iter().map(|x| x.plane().value).collect()
}

fn tensors<E: Number>(fresh: Vec<DualBuffer<E>>) -> Result<Vec<Tensor>> {
    fresh.into_iter().map(|x| Ok(x.into_dual()?.into_parts().0)).collect()
}

/// Calls the function for the tensors' type.
macro_rules! typed {
    ($list:expr, $function:ident($($argument:expr),*)) => {
        match $list.first().map(Tensor::dtype) {
            Some(DType::F64) => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}

/// Σ a², Σ a b and Σ b² over all tensors, summed in f64 in a fixed order.
///
/// # Errors
/// Lists that differ in shape, type or device.
pub fn products(a: &[Tensor], b: &[Tensor]) -> Result<[f64; PRODUCTS]> {
    typed!(a, products_typed(a, b))
}

fn products_typed<E: Number>(a: &[Tensor], b: &[Tensor]) -> Result<[f64; PRODUCTS]> {
    let list = List::new("products", a)?;
    let (at_a, at_b) = (list.at::<E>(a)?, list.at::<E>(b)?);
    let planner = Planner::new(E::STORAGE);
    // If both lists are the same, each number is read only once.
    let other = (!std::ptr::eq(a, b)).then_some(&at_b[..]);
    list.sums(|scratch, total| planner.products(&at_a, other, &list.numbers, scratch, total))
}

/// x + factor · d over all tensors.
///
/// # Errors
/// Those of [`products`].
pub fn axpy(x: &[Tensor], factor: f64, d: &[Tensor]) -> Result<Vec<Tensor>> {
    typed!(x, axpy_typed(x, factor, d))
}

fn axpy_typed<E: Number>(x: &[Tensor], factor: f64, d: &[Tensor]) -> Result<Vec<Tensor>> {
    let list = List::new("axpy", x)?;
    let (at, along, y) = (list.at::<E>(x)?, list.at::<E>(d)?, list.fresh::<E>()?);
    let lists = [&at[..], &along, &addresses(&y)];
    run(&list.device, &Planner::new(E::STORAGE).axpy(lists, &list.numbers, factor)?)?;
    tensors(y)
}

/// x (|w| + η) over all tensors.
///
/// # Errors
/// Those of [`products`].
pub fn by_magnitude(x: &[Tensor], w: &[Tensor], eta: f64) -> Result<Vec<Tensor>> {
    typed!(x, by_magnitude_typed(x, w, eta))
}

fn by_magnitude_typed<E: Number>(x: &[Tensor], w: &[Tensor], eta: f64) -> Result<Vec<Tensor>> {
    let list = List::new("by_magnitude", x)?;
    let (at, by, y) = (list.at::<E>(x)?, list.at::<E>(w)?, list.fresh::<E>()?);
    let lists = [&at[..], &by, &addresses(&y)];
    run(&list.device, &Planner::new(E::STORAGE).by_magnitude(lists, &list.numbers, eta)?)?;
    tensors(y)
}

/// Optimizer state of a layer: lists of tensors with the shapes of the weights, initially zero.
/// Steps update them in place; nothing else refers to them.
#[derive(Debug)]
pub struct Moments(Vec<Vec<Tensor>>);

impl Moments {
    /// `lists` lists of zeros with the shapes of the weights.
    ///
    /// # Errors
    /// Weights that are not on a CUDA device or neither f32 nor f64; no room on the device.
    pub fn zeros(weights: &[Tensor], lists: usize) -> Result<Self> {
        let zeros = |_| typed!(weights, zeros_typed(weights));
        Ok(Self((0..lists).map(zeros).collect::<Result<_>>()?))
    }
}

fn zeros_typed<E: Number>(weights: &[Tensor]) -> Result<Vec<Tensor>> {
    let list = List::new("optimizer", weights)?;
    let zeros = weights.iter().map(|x| DualBuffer::<E>::zeros(&list.device, x.dims(), 0));
    tensors(zeros.collect::<Result<_>>()?)
}

/// The weights after an SGD step. Updates b.
///
/// # Errors
/// Those of [`products`]; [`Error::Shape`] if the state belongs to another optimizer.
pub fn sgd_step(w: &[Tensor], g: &[Tensor], b: &mut Moments, by: Sgd) -> Result<Vec<Tensor>> {
    typed!(w, sgd_typed(w, g, b, by))
}

fn sgd_typed<E: Number>(
    w: &[Tensor],
    g: &[Tensor],
    Moments(moments): &mut Moments,
    by: Sgd,
) -> Result<Vec<Tensor>> {
    let list = List::new("sgd_step", w)?;
    let [b] = &moments[..] else {
        return Err(Error::shape(list.op, "1 list of moments", moments.len().to_string()));
    };
    let (at, along, buffer) = (list.at::<E>(w)?, list.at::<E>(g)?, list.at::<E>(b)?);
    let y = list.fresh::<E>()?;
    let lists = [&at[..], &along, &buffer, &addresses(&y)];
    run(&list.device, &Planner::new(E::STORAGE).sgd_step(lists, &list.numbers, by)?)?;
    tensors(y)
}

/// The weights after an AdamW step. Updates m and v.
///
/// # Errors
/// Those of [`sgd_step`].
pub fn adamw_step(w: &[Tensor], g: &[Tensor], mv: &mut Moments, by: AdamW) -> Result<Vec<Tensor>> {
    typed!(w, adamw_typed(w, g, mv, by))
}

fn adamw_typed<E: Number>(
    w: &[Tensor],
    g: &[Tensor],
    Moments(moments): &mut Moments,
    by: AdamW,
) -> Result<Vec<Tensor>> {
    let list = List::new("adamw_step", w)?;
    let [m, v] = &moments[..] else {
        return Err(Error::shape(list.op, "2 lists of moments", moments.len().to_string()));
    };
    let (at, along) = (list.at::<E>(w)?, list.at::<E>(g)?);
    let (first, second, y) = (list.at::<E>(m)?, list.at::<E>(v)?, list.fresh::<E>()?);
    let lists = [&at[..], &along, &first, &second, &addresses(&y)];
    run(&list.device, &Planner::new(E::STORAGE).adamw_step(lists, &list.numbers, by)?)?;
    tensors(y)
}
