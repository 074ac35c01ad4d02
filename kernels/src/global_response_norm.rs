//! Global response normalisation over the tokens of an image.
//!
//! Three steps for each image: sums over its tokens, (C); the scale of each channel from them, (C);
//! and the result, token by token. On a GPU each step is a launch over all images, and in bf16 the
//! intermediate (B, C) are rounded to bf16 too.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved, rows_of, rows_of_len, run_rows, shared};
use crate::pointwise::SumRows;
use crate::registry::Sample;
use crate::rows::{Chunk, Row, RowMut, chunks};
use crate::scalar::Scalar;

/// y = x + γ x n + β with n = g/(mean(g) + ε) and g the norm of each channel over the tokens of an
/// image: g[b, c] = √(Σₜ x[b, t, c]²); the mean is over channels. x, y: (B, T, C), γ and β: (C).
/// ConvNeXt V2 (Woo et al., CVPR 2023, §3.2); timm's `GlobalResponseNorm` with ε = 1e-6.
///
/// VJP, with s = Σₜ gy x, m = mean(g) + ε and h = γ s: gx = gy (1 + γ n) + d x with d = (h/m −
/// mean(h g)/m²)/g; gγ = Σ n s over images; gβ = Σ gy over images and tokens. Where g = 0, the
/// derivative of the norm counts as 0, as in PyTorch: there d = 0.
#[derive(Clone, Copy, Debug)]
pub struct GlobalResponseNorm {
    /// ε, added to the mean norm.
    pub eps: f64,
}

/// Tokens that a sum over tokens adds between two accesses to the sum in memory.
const TOKENS: usize = 4;

/// Σ of `term` over tokens. Its argument is a chunk of a token's channels in a row of all tokens.
#[inline(always)]
fn over_tokens<S: Scalar, const N: usize>(
    tokens: usize,
    out: [RowMut<S>; N],
    term: impl Fn(Chunk) -> [S; N],
) {
    let channels = out[0].read().len();
    for first in (0..tokens).step_by(TOKENS) {
        for c in chunks::<S>(channels) {
            let mut sums = [S::constant(0.0); N];
            if first > 0 {
                for (sum, out) in sums.iter_mut().zip(&out) {
                    *sum = out.read().at(c);
                }
            }
            for t in first..tokens.min(first + TOKENS) {
                for (sum, x) in sums.iter_mut().zip(term(c.shifted(t * channels))) {
                    *sum = *sum + x;
                }
            }
            for (out, sum) in out.iter().zip(sums) {
                out.put(c, sum);
            }
        }
    }
}

/// g from g². The derivative at 0 is 0.
#[inline(always)]
fn norm<S: Scalar>(square: S) -> S {
    square.keep_positive(square.sqrt())
}

/// n from g².
#[inline(always)]
fn scale<S: Scalar>(squares: Row<S>, n: RowMut<S>, eps: f64) {
    let total = squares.sum(
        #[inline(always)]
        |c| norm(squares.at(c)),
    );
    let inverse = S::constant(1.0) / (total * (1.0 / squares.len() as f64) + eps);
    for c in chunks::<S>(squares.len()) {
        n.put(c, norm(squares.at(c)) * inverse);
    }
}

/// d from g², s and γ.
#[inline(always)]
fn slope<S: Scalar>([squares, s, gamma]: [Row<S>; 3], d: RowMut<S>, eps: f64) {
    let [total, weighted] = squares.sums(
        #[inline(always)]
        |c| {
            let g = norm(squares.at(c));
            [g, gamma.at(c) * s.at(c) * g]
        },
    );
    let per_channel = 1.0 / squares.len() as f64;
    let inverse = S::constant(1.0) / (total * per_channel + eps);
    let mean = weighted * per_channel * inverse;
    for c in chunks::<S>(squares.len()) {
        let g = norm(squares.at(c));
        let of_g = (gamma.at(c) * s.at(c) - mean) * inverse;
        d.put(c, g.keep_positive(of_g / g));
    }
}

/// An operation on rows of whole images. All steps of an image follow each other, so that the
/// second pass over it finds most of it in the cache.
struct Images {
    eps: f64,
    tokens: usize,
}

impl Images {
    /// Images, tokens and channels of rows of whole images.
    fn sizes(&self, [images, columns]: [usize; 2]) -> [usize; 3] {
        [images, self.tokens, columns / self.tokens.max(1)]
    }
}

/// y from x, γ and β. Also g² and n.
struct Value(Images);
impl RowKernel<3, 3> for Value {
    #[inline(always)]
    fn row<S: Scalar>(
        &self,
        _: usize,
        [x, gamma, beta]: [Row<S>; 3],
        [y, squares, n]: [RowMut<S>; 3],
    ) {
        let Images { eps, tokens } = self.0;
        over_tokens(
            tokens,
            [squares],
            #[inline(always)]
            |c| [x.at(c) * x.at(c)],
        );
        scale(squares.read(), n, eps);
        let n = n.read();
        // The last tokens are still in the cache.
        for t in (0..tokens).rev() {
            for c in chunks::<S>(n.len()) {
                let at = c.shifted(t * n.len());
                y.put(at, x.at(at) * (gamma.at(c) * n.at(c) + 1.0) + beta.at(c));
            }
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 3>) -> Result<Vec<Launch>> {
        let (k, sizes, planner) = (call.tangents, self.0.sizes(call.sizes), &call.planner);
        let ([x, gamma, beta], [y, squares, n]) = (call.inputs, call.outputs);
        let [images, _, channels] = sizes;
        let mut all = planner.token_squares(k, x, squares, sizes)?;
        let row = [images, channels];
        all.extend(planner.global_response_norm_scale(k, squares, n, row, self.0.eps)?);
        all.extend(planner.global_response_norm_value(k, [x, n, gamma, beta], y, sizes)?);
        Ok(all)
    }
}

/// gx, gγ and gβ from x, gy and γ. Also g², s, n and d.
struct Vjp {
    images: Images,
    /// Whether gγ and gβ are needed.
    parameters: bool,
}
impl RowKernel<3, 7> for Vjp {
    #[inline(always)]
    fn row<S: Scalar>(
        &self,
        _: usize,
        [x, gy, gamma]: [Row<S>; 3],
        [gx, squares, s, n, d, g_gamma, g_beta]: [RowMut<S>; 7],
    ) {
        let Images { eps, tokens } = self.images;
        // Until d is computed, its memory holds Σ gy.
        let total = d;
        over_tokens(
            tokens,
            [squares, s, total],
            #[inline(always)]
            |c| {
                let (x, gy) = (x.at(c), gy.at(c));
                [x * x, gy * x, gy]
            },
        );
        let (squares, s) = (squares.read(), s.read());
        scale(squares, n, eps);
        if self.parameters {
            let (n, total) = (n.read(), total.read());
            for c in chunks::<S>(n.len()) {
                g_gamma.add(c, n.at(c) * s.at(c));
                g_beta.add(c, total.at(c));
            }
        }
        slope([squares, s, gamma], d, eps);
        let (n, d) = (n.read(), d.read());
        for t in (0..tokens).rev() {
            for c in chunks::<S>(n.len()) {
                let at = c.shifted(t * n.len());
                let direct = gy.at(at) * (gamma.at(c) * n.at(c) + 1.0);
                gx.put(at, direct + x.at(at) * d.at(c));
            }
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 7>) -> Result<Vec<Launch>> {
        let (k, planner) = (call.tangents, &call.planner);
        let [x, gy, gamma] = call.inputs;
        let [gx, squares, s, n, d, g_gamma, g_beta] = call.outputs;
        let sizes = self.images.sizes(call.sizes);
        let [images, tokens, channels] = sizes;
        let row = [images, channels];
        let mut all = planner.token_sums(k, [x, gy], [squares, s], sizes)?;
        all.extend(planner.global_response_norm_scale(k, squares, n, row, self.images.eps)?);
        if self.parameters {
            all.extend(planner.layer_scale_vjp_gamma(k, [n, s], g_gamma, call.scratch, row)?);
            let rows = [images * tokens, channels];
            all.extend(planner.sum_rows(k, gy, g_beta, call.scratch, rows)?);
        }
        let of = [squares, s, gamma];
        all.extend(planner.global_response_norm_slope(k, of, d, row, self.images.eps)?);
        all.extend(planner.global_response_norm_vjp_input(k, [x, gy, n, d, gamma], gx, sizes)?);
        Ok(all)
    }
}

impl GlobalResponseNorm {
    /// B, T and C. T and C are at least 1.
    fn sizes(&self, x: &[usize]) -> Result<[usize; 3]> {
        match *x {
            [images, tokens, channels] if tokens * channels > 0 => Ok([images, tokens, channels]),
            _ => Err(Error::shape(self.name(), "(B, T, C)", format!("{x:?}"))),
        }
    }
}

impl Op for GlobalResponseNorm {
    fn name(&self) -> &'static str {
        "global_response_norm"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        self.sizes(x[0])?;
        Ok(x[0].to_vec())
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs[0]
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (x, gamma, beta) = (x[0], x[1], x[2]);
        let [images, tokens, channels] = self.sizes(x.dims())?;
        for parameter in [gamma, beta] {
            if parameter.dims() != [channels] {
                let found = format!("{:?}", parameter.dims());
                return Err(Error::shape(self.name(), format!("({channels})"), found));
            }
        }
        let (len, row) = (tokens * channels, [images, channels]);
        let [y, _, _] = run_rows(
            self.name(),
            &Value(Images { eps: self.eps, tokens }),
            images,
            [rows_of_len(x, len), shared(gamma), shared(beta)],
            [Output::PerRow(len), Output::PerRow(channels), Output::PerRow(channels)],
            [x.dims(), &row, &row],
        )?;
        Ok(y)
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        let both = needs_grad[0] || needs_grad[1];
        SaveSet { inputs: u32::from(both) | u32::from(both) << 1, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let [images, tokens, channels] = self.sizes(&saved.dims[0])?;
        let (len, row) = (tokens * channels, [images, channels]);
        if !needs_grad[0] && !needs_grad[1] {
            let [g_beta] = run_rows(
                self.name(),
                &SumRows,
                images * tokens,
                [rows_of(gy)],
                [Output::Summed(channels)],
                [&[channels]],
            )?;
            return Ok(vec![None, None, Some(g_beta)]);
        }
        let (x, gamma) = (saved.input(self.name(), 0)?, saved.input(self.name(), 1)?);
        let parameters = needs_grad[1] || needs_grad[2];
        let (per_image, summed) = (Output::PerRow(channels), Output::Summed(channels));
        let [gx, _, _, _, _, g_gamma, g_beta] = run_rows(
            self.name(),
            &Vjp { images: Images { eps: self.eps, tokens }, parameters },
            images,
            [rows_of_len(x, len), rows_of_len(gy, len), shared(gamma)],
            [Output::PerRow(len), per_image, per_image, per_image, per_image, summed, summed],
            [x.dims(), &row, &row, &row, &row, &[channels], &[channels]],
        )?;
        let gradients = [gx, g_gamma, g_beta].into_iter().zip(needs_grad);
        Ok(gradients.map(|(gradient, needed)| needed.then_some(gradient)).collect())
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    [([2, 6, 5], 1e-6), ([1, 3, 17], 0.1), ([3, 1, 33], 1e-6)]
        .map(|(dims, eps)| {
            let c = [dims[2]];
            Sample::new(GlobalResponseNorm { eps }, &[&dims, &c, &c])
        })
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn dual(value: &[f64], tangent: &[f64], dims: &[usize]) -> DualTensor {
        let tensor = |x: &[f64], dims: &[usize]| Tensor::from_slice(x, dims, &Device::Cpu).unwrap();
        let planes: Vec<usize> = [&[1], dims].concat();
        DualTensor::new(tensor(value, dims), Some(tensor(tangent, &planes))).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Two tokens of two channels; the second channel is 0. PyTorch's norm has the gradient 0
    /// there, so g = (5, 0), y of that channel is β, and gx of it is gy.
    #[test]
    fn a_channel_of_zeros_has_the_gradient_of_the_identity() {
        let op = GlobalResponseNorm { eps: 0.5 };
        let x = dual(&[3.0, 0.0, 4.0, 0.0], &[0.0, 1.0, 0.0, 2.0], &[1, 2, 2]);
        let (gamma, beta) =
            (dual(&[2.0, 3.0], &[0.0; 2], &[2]), dual(&[0.0, 7.0], &[0.0; 2], &[2]));
        let y = op.value(&[&x, &gamma, &beta]).unwrap();
        // n = (5/(2.5 + 0.5), 0).
        let scale = 1.0 + 2.0 * 5.0 / 3.0;
        let expected = [3.0 * scale, 7.0, 4.0 * scale, 7.0];
        assert!(numbers(y.value()).iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-14));
        assert_eq!(numbers(y.tangent().unwrap()), [0.0, 1.0, 0.0, 2.0]);
        let gy = dual(&[0.0, 5.0, 0.0, 6.0], &[0.0; 4], &[1, 2, 2]);
        let saved = Saved {
            inputs: vec![Some(x.clone()), Some(gamma), None],
            output: None,
            dims: vec![vec![1, 2, 2], vec![2], vec![2]],
        };
        let gx = op.vjp(&saved, &gy, &[true, true, true]).unwrap().remove(0).unwrap();
        let expected = [0.0, 5.0, 0.0, 6.0];
        assert_eq!(numbers(gx.value()), expected);
        assert!(numbers(gx.tangent().unwrap()).iter().all(|x| x.is_finite()));
    }
}
