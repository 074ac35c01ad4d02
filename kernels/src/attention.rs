//! Multi-head self-attention (Vaswani et al. 2017, §3.2), computed one head at a time.
//!
//! Heads are strided views of the buffers that the projections wrote; nothing is permuted. The
//! attention map (T, T) of a head is computed where it is used and stays in a core's cache. The VJP
//! recomputes it: that costs one product in six and saves H·T² numbers per image on the tape.

use crate::cpu::run_into;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::dual_tensor::{DualTensor, common_dtype};
use crate::error::{Error, Result};
use crate::lanes::Element;
use crate::op::{Op, SaveSet, Saved, most_tangents, same_tangents};
use crate::parts::{DualBuffer, HostDual, Part, PartMut, Scratch, dual_product, for_each_image};
use crate::product::{Multiply, Products, View, multiply};
use crate::registry::Sample;
use crate::softmax;
use candle_core::DType;

/// y = softmax(q kᵀ/√d) v for every image and head; y: (B, Q, H·d).
///
/// Two forms of input: x: (B, T, 3·H·d), whose rows stack q, k, v of H heads with d numbers each,
/// and Q = T; or x₀: (B, Q, H·d) with the queries and x₁: (B, T, 2·H·d) with keys and values, if
/// only some tokens have queries.
///
/// VJP, with p = softmax(q kᵀ/√d) and gp = gy vᵀ: gv = pᵀ gy, gs = p ∘ (gp − Σⱼ gpⱼ pⱼ), gq = gs
/// k/√d, gk = gsᵀ q/√d.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// H.
    pub heads: usize,
    /// How matrix products are computed.
    pub products: Products,
}

/// Sizes and memory layout of one call.
pub(crate) struct Shape {
    pub(crate) images: usize,
    pub(crate) queries: usize,
    pub(crate) tokens: usize,
    /// H·d.
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    /// Whether queries are in the same buffer as keys and values.
    fused: bool,
}

impl Shape {
    fn new(op: &'static str, dims: &[&[usize]], heads: usize) -> Result<Self> {
        let divides = |dim: usize| heads > 0 && dim > 0 && dim.is_multiple_of(heads);
        match *dims {
            [&[images, tokens, width]] if tokens > 0 && width % 3 == 0 && divides(width / 3) => {
                Ok(Self { images, queries: tokens, tokens, dim: width / 3, heads, fused: true })
            }
            [&[images, queries, dim], &[same, tokens, width]]
                if same == images && queries * tokens > 0 && width == 2 * dim && divides(dim) =>
            {
                Ok(Self { images, queries, tokens, dim, heads, fused: false })
            }
            _ => Err(Error::shape(
                op,
                format!("(B, T, 3·{heads}·d), or (B, Q, {heads}·d) and (B, T, 2·{heads}·d)"),
                format!("{dims:?}"),
            )),
        }
    }

    /// A view of `rows` rows of one image: d columns from `offset`, in a buffer with rows of
    /// `width`.
    fn rows(&self, rows: usize, width: usize, offset: usize) -> View {
        View { offset, cols: self.dim / self.heads, row_stride: width, ..View::matrix(rows, width) }
    }

    /// The attention map of a head, (Q, T).
    fn map(&self) -> View {
        View::matrix(self.queries, self.tokens)
    }

    /// Queries, keys and values of a head: index of the input, and the view within one image of it.
    pub(crate) fn qkv_views(&self, head: usize) -> [(usize, View); 3] {
        let (d, at) = (self.dim, head * (self.dim / self.heads));
        match self.fused {
            true => [0, 1, 2].map(|part| (0, self.rows(self.tokens, 3 * d, part * d + at))),
            false => [
                (0, self.rows(self.queries, d, at)),
                (1, self.rows(self.tokens, 2 * d, at)),
                (1, self.rows(self.tokens, 2 * d, d + at)),
            ],
        }
    }

    /// The output of a head, within one image of y.
    pub(crate) fn head_output(&self, head: usize) -> View {
        self.rows(self.queries, self.dim, head * (self.dim / self.heads))
    }

    pub(crate) fn scale(&self) -> f64 {
        1.0 / ((self.dim / self.heads) as f64).sqrt()
    }
}

/// One image of every input.
type Inputs<'a, E> = Vec<Part<'a, E>>;

/// The inputs of each image.
fn by_image<'a, E: Element>(held: &'a [HostDual], images: usize) -> Result<Vec<Inputs<'a, E>>> {
    let mut all: Vec<Inputs<E>> = (0..images).map(|_| Vec::with_capacity(held.len())).collect();
    for input in held {
        all.iter_mut().zip(input.parts(images)?).for_each(|(image, part)| image.push(part));
    }
    Ok(all)
}

/// p = softmax(q kᵀ/√d) of one head of one image.
fn weights<E: Element>(
    shape: &Shape,
    head: usize,
    inputs: &Inputs<E>,
    multiply: Multiply<E>,
    scores: &mut Scratch<E>,
    p: &mut Scratch<E>,
) {
    let [(iq, q), (ik, k), _] = shape.qkv_views(head);
    let (a, b) = ((&inputs[iq], q), (&inputs[ik], k.t()));
    dual_product(multiply, (&mut scores.part_mut(), shape.map()), a, b, shape.scale());
    run_into(&softmax::Value, shape.queries, [scores], [p]);
}

impl Attention {
    /// Attention with operands in their own precision.
    pub fn new(heads: usize) -> Self {
        Self { heads, products: Products::F32 }
    }

    fn values<E: Element>(
        &self,
        shape: &Shape,
        x: &[&DualTensor],
        multiply: Multiply<E>,
    ) -> Result<DualTensor> {
        let tangents = most_tangents(x);
        let held = x.iter().map(|x| HostDual::new(self.name(), x)).collect::<Result<Vec<_>>>()?;
        let mut y = DualBuffer::<E>::new(&[shape.images, shape.queries, shape.dim], tangents);
        let (size, map) = (shape.queries * shape.tokens, shape.map());
        let images = by_image(&held, shape.images)?.into_iter().zip(y.parts(shape.images));
        for_each_image(images.collect(), |(inputs, mut y): (Inputs<E>, PartMut<E>)| {
            let (mut s, mut p) = (Scratch::new(size, tangents), Scratch::new(size, tangents));
            for head in 0..shape.heads {
                weights(shape, head, &inputs, multiply, &mut s, &mut p);
                let (iv, v) = shape.qkv_views(head)[2];
                let target = (&mut y, shape.head_output(head));
                dual_product(multiply, target, (&p.part(), map), (&inputs[iv], v), 1.0);
            }
        });
        y.into_dual()
    }

    fn gradients<E: Element>(
        &self,
        shape: &Shape,
        x: &[&DualTensor],
        gy: &DualTensor,
        multiply: Multiply<E>,
    ) -> Result<Vec<DualTensor>> {
        // Tangents of the attention map, and of everything that depends on the cotangent.
        let (inner, all) = (most_tangents(x), most_tangents(x).max(gy.tangents()));
        let held = x.iter().map(|x| HostDual::new(self.name(), x)).collect::<Result<Vec<_>>>()?;
        let cotangent = HostDual::new(self.name(), gy)?;
        let (size, map, scale) = (shape.queries * shape.tokens, shape.map(), shape.scale());
        let mut gx: Vec<DualBuffer<E>> = x.iter().map(|x| DualBuffer::new(x.dims(), all)).collect();
        let mut targets: Vec<Vec<PartMut<E>>> = (0..shape.images).map(|_| Vec::new()).collect();
        for g in &mut gx {
            targets
                .iter_mut()
                .zip(g.parts(shape.images))
                .for_each(|(image, part)| image.push(part));
        }
        let images = by_image(&held, shape.images)?.into_iter();
        let images = images.zip(cotangent.parts(shape.images)?).zip(targets);
        type Image<'a, E> = ((Inputs<'a, E>, Part<'a, E>), Vec<PartMut<'a, E>>);
        for_each_image(images.collect(), |((inputs, gy), mut gx): Image<E>| {
            let (mut s, mut p) = (Scratch::new(size, inner), Scratch::new(size, inner));
            let (mut gp, mut gs) = (Scratch::new(size, all), Scratch::new(size, all));
            for head in 0..shape.heads {
                weights(shape, head, &inputs, multiply, &mut s, &mut p);
                let ([(iq, q), (ik, k), (iv, v)], head_output) =
                    (shape.qkv_views(head), shape.head_output(head));
                dual_product(
                    multiply,
                    (&mut gx[iv], v),
                    (&p.part(), map.t()),
                    (&gy, head_output),
                    1.0,
                );
                let value = (&inputs[iv], v.t());
                dual_product(multiply, (&mut gp.part_mut(), map), (&gy, head_output), value, 1.0);
                run_into(&softmax::Vjp, shape.queries, [&p, &gp], [&mut gs]);
                let gs = gs.part();
                dual_product(multiply, (&mut gx[iq], q), (&gs, map), (&inputs[ik], k), scale);
                dual_product(multiply, (&mut gx[ik], k), (&gs, map.t()), (&inputs[iq], q), scale);
            }
        });
        gx.into_iter().map(DualBuffer::into_dual).collect()
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        let shape = Shape::new(self.name(), x, self.heads)?;
        Ok(vec![shape.images, shape.queries, shape.dim])
    }

    fn flops(&self, x: &[&[usize]]) -> f64 {
        let products = |s: Shape| {
            4.0 * [s.images, s.queries, s.tokens, s.dim].map(|n| n as f64).iter().product::<f64>()
        };
        Shape::new(self.name(), x, self.heads).map_or(0.0, products)
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs.contains(&true)
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let dims: Vec<&[usize]> = x.iter().map(|x| x.dims()).collect();
        let shape = Shape::new(self.name(), &dims, self.heads)?;
        same_tangents(self.name(), x)?;
        #[cfg(feature = "cuda")]
        if x.iter().any(|x| x.on_gpu()) {
            return cuda::gpu::attention_value(self.name(), (&shape, self.products), x);
        }
        let dtype = common_dtype(self.name(), x)?;
        self.products.check(self.name(), dtype, most_tangents(x))?;
        match dtype {
            DType::F32 => self.values::<f32>(&shape, x, self.products.multiply()),
            _ => self.values::<f64>(&shape, x, multiply),
        }
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet { inputs: 3, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let inputs = (0..saved.dims.len()).map(|i| saved.input(self.name(), i));
        let x = inputs.collect::<Result<Vec<_>>>()?;
        let dims: Vec<&[usize]> = x.iter().map(|x| x.dims()).collect();
        let shape = Shape::new(self.name(), &dims, self.heads)?;
        if gy.dims() != [shape.images, shape.queries, shape.dim] {
            return Err(Error::shape(self.name(), "(B, Q, H·d)", format!("{:?}", gy.dims())));
        }
        let all: Vec<&DualTensor> = x.iter().copied().chain([gy]).collect();
        same_tangents(self.name(), &all)?;
        let pick = |found: Vec<DualTensor>| -> Vec<Option<DualTensor>> {
            found
                .into_iter()
                .zip(needs_grad)
                .map(|(g, needs_grad)| needs_grad.then_some(g))
                .collect()
        };
        #[cfg(feature = "cuda")]
        if all.iter().any(|x| x.on_gpu()) {
            let at = (&shape, self.products);
            return Ok(pick(cuda::gpu::attention_gradients(self.name(), at, &x, gy)?));
        }
        let dtype = common_dtype(self.name(), &all)?;
        self.products.check(self.name(), dtype, most_tangents(&all))?;
        let found = match dtype {
            DType::F32 => self.gradients::<f32>(&shape, &x, gy, self.products.multiply())?,
            _ => self.gradients::<f64>(&shape, &x, gy, multiply)?,
        };
        Ok(pick(found))
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample::new(Attention::new(2), &[&[2, 5, 18]]),
        Sample::new(Attention::new(1), &[&[1, 3, 12]]),
        Sample::new(Attention::new(2), &[&[2, 1, 6], &[2, 5, 12]]),
        Sample::new(Attention::new(3), &[&[1, 2, 6], &[1, 17, 12]]),
    ]
}
