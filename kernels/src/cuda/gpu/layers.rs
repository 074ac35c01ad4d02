//! All tensors of a layer at once, on the device: inner products, moves, optimizer steps. One launch
//! takes up to [`crate::cuda::MOST_TENSORS`] of them.

use super::device::run;
use super::memory::{Fresh, Number, address, blank, device, start_of};
use crate::cuda::launch::{Address, Planner};
use crate::cuda::optimizer::{AdamW, PRODUCTS, Sgd};
use crate::error::{Error, Result};
use candle_core::cuda_backend::WrapErr;
use candle_core::{CudaDevice, DType, Tensor};

/// A layer's tensors, in order; all on the device of the first, alike in type.
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

    /// Where these lie, which have the shapes of the first list.
    fn at<E: Number>(&self, list: &[Tensor]) -> Result<Vec<Address>> {
        let shapes = |list: &[Tensor]| list.iter().map(|x| x.dims().to_vec()).collect::<Vec<_>>();
        if shapes(list) != shapes(self.first) {
            let [expected, found] = [self.first, list].map(|list| format!("{:?}", shapes(list)));
            return Err(Error::shape(self.op, expected, found));
        }
        list.iter().map(|x| address::<E>(self.op, &self.device, x)).collect()
    }

    /// Memory for as many tensors of the same shapes.
    fn fresh<E: Number>(&self) -> Result<Vec<Fresh<E>>> {
        self.first.iter().map(|x| Fresh::new(&self.device, x.dims(), 0)).collect()
    }

    /// Runs what leaves [`PRODUCTS`] sums.
    fn sums(
        &self,
        launches: impl Fn(Address, Address) -> Result<Vec<crate::cuda::Launch>>,
    ) -> Result<[f64; PRODUCTS]> {
        let bytes = Planner::products_scratch(&self.numbers);
        let scratch = blank::<u64>(&self.device, bytes.div_ceil(8))?;
        let total = blank::<f64>(&self.device, PRODUCTS)?;
        let [from, to] = [start_of(&self.device, &scratch), start_of(&self.device, &total)];
        run(&self.device, &launches(from, to)?)?;
        let found = self.device.cuda_stream().clone_dtoh(&total).w()?;
        let count = found.len();
        found.try_into().map_err(|_| Error::shape(self.op, "3 sums", count.to_string()))
    }
}

fn addresses<E: Number>(fresh: &[Fresh<E>]) -> Vec<Address> {
    fresh.iter().map(|x| x.plane().value).collect()
}

fn tensors<E: Number>(fresh: Vec<Fresh<E>>) -> Result<Vec<Tensor>> {
    fresh.into_iter().map(|x| Ok(x.into_dual()?.into_parts().0)).collect()
}

/// Calls the function of the tensors' type.
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
/// Lists that differ in shapes, types or place.
pub fn products(a: &[Tensor], b: &[Tensor]) -> Result<[f64; PRODUCTS]> {
    typed!(a, products_typed(a, b))
}

fn products_typed<E: Number>(a: &[Tensor], b: &[Tensor]) -> Result<[f64; PRODUCTS]> {
    let list = List::new("products", a)?;
    let (at_a, at_b) = (list.at::<E>(a)?, list.at::<E>(b)?);
    let planner = Planner::new(E::STORED);
    // Of one list's own squares nothing is read twice.
    let other = (!std::ptr::eq(a, b)).then_some(&at_b[..]);
    list.sums(|scratch, total| planner.products(&at_a, other, &list.numbers, scratch, total))
}

/// x + factor · d over all tensors.
///
/// # Errors
/// As those of [`products`].
pub fn axpy(x: &[Tensor], factor: f64, d: &[Tensor]) -> Result<Vec<Tensor>> {
    typed!(x, axpy_typed(x, factor, d))
}

fn axpy_typed<E: Number>(x: &[Tensor], factor: f64, d: &[Tensor]) -> Result<Vec<Tensor>> {
    let list = List::new("axpy", x)?;
    let (at, along, y) = (list.at::<E>(x)?, list.at::<E>(d)?, list.fresh::<E>()?);
    let lists = [&at[..], &along, &addresses(&y)];
    run(&list.device, &Planner::new(E::STORED).axpy(lists, &list.numbers, factor)?)?;
    tensors(y)
}

/// x (|w| + η) over all tensors.
///
/// # Errors
/// As those of [`products`].
pub fn by_magnitude(x: &[Tensor], w: &[Tensor], eta: f64) -> Result<Vec<Tensor>> {
    typed!(x, by_magnitude_typed(x, w, eta))
}

fn by_magnitude_typed<E: Number>(x: &[Tensor], w: &[Tensor], eta: f64) -> Result<Vec<Tensor>> {
    let list = List::new("by_magnitude", x)?;
    let (at, by, y) = (list.at::<E>(x)?, list.at::<E>(w)?, list.fresh::<E>()?);
    let lists = [&at[..], &by, &addresses(&y)];
    run(&list.device, &Planner::new(E::STORED).by_magnitude(lists, &list.numbers, eta)?)?;
    tensors(y)
}

/// What an optimizer remembers of a layer's tensors: as many lists of zeros as its rule needs, which
/// its steps change where they lie. Nobody else holds them.
#[derive(Debug)]
pub struct Moments(Vec<Vec<Tensor>>);

impl Moments {
    /// Zeros beside these weights.
    ///
    /// # Errors
    /// Weights that lie on no device, or are neither f32 nor f64; no room.
    pub fn zeros(weights: &[Tensor], lists: usize) -> Result<Self> {
        let zeros = |_| typed!(weights, zeros_typed(weights));
        Ok(Self((0..lists).map(zeros).collect::<Result<_>>()?))
    }
}

fn zeros_typed<E: Number>(weights: &[Tensor]) -> Result<Vec<Tensor>> {
    let list = List::new("optimizer", weights)?;
    let zeros = weights.iter().map(|x| Fresh::<E>::zeros(&list.device, x.dims(), 0));
    tensors(zeros.collect::<Result<_>>()?)
}

/// The weights after a step of SGD; b changes.
///
/// # Errors
/// As those of [`products`]; [`Error::Shape`] for moments of another rule.
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
    run(&list.device, &Planner::new(E::STORED).sgd_step(lists, &list.numbers, by)?)?;
    tensors(y)
}

/// The weights after a step of AdamW; m and v change.
///
/// # Errors
/// As those of [`sgd_step`].
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
    run(&list.device, &Planner::new(E::STORED).adamw_step(lists, &list.numbers, by)?)?;
    tensors(y)
}
