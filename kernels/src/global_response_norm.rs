//! Global response normalisation over the tokens of an image.
//!
//! Three steps, each a row kernel: sums over the tokens of an image, (B, C); the scale of each
//! channel from them, (B, C); and the result, token by token. So images are the rows of the first
//! and last step. On a GPU in bf16 the intermediate (B, C) are rounded to bf16 too.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved, rows_of, rows_of_len, run_rows, shared};
use crate::pointwise::{SumProducts, SumRows};
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

/// g² of every image.
struct Squares {
    tokens: usize,
}
impl RowKernel<1, 1> for Squares {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x]: [Row<S>; 1], squares: [RowMut<S>; 1]) {
        over_tokens(
            self.tokens,
            squares,
            #[inline(always)]
            |c| [x.at(c) * x.at(c)],
        );
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let (k, sizes) = (call.tangents, self.sizes(call.sizes));
        call.planner.token_squares(k, call.inputs[0], call.outputs[0], sizes)
    }
}

impl Squares {
    /// Images, tokens and channels of rows of whole images.
    fn sizes(&self, [images, columns]: [usize; 2]) -> [usize; 3] {
        [images, self.tokens, columns / self.tokens.max(1)]
    }
}

/// g² and s of every image.
struct Sums(Squares);
impl RowKernel<2, 2> for Sums {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gy]: [Row<S>; 2], sums: [RowMut<S>; 2]) {
        over_tokens(
            self.0.tokens,
            sums,
            #[inline(always)]
            |c| [x.at(c) * x.at(c), gy.at(c) * x.at(c)],
        );
    }

    fn launches(&self, _: &'static str, call: &Call<2, 2>) -> Result<Vec<Launch>> {
        let (k, sizes) = (call.tangents, self.0.sizes(call.sizes));
        call.planner.token_sums(k, call.inputs, call.outputs, sizes)
    }
}

/// n from g².
struct Scale(GlobalResponseNorm);
impl RowKernel<1, 1> for Scale {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [squares]: [Row<S>; 1], [n]: [RowMut<S>; 1]) {
        let total = squares.sum(
            #[inline(always)]
            |c| norm(squares.at(c)),
        );
        let inverse = S::constant(1.0) / (total * (1.0 / squares.len() as f64) + self.0.eps);
        for c in chunks::<S>(squares.len()) {
            n.put(c, norm(squares.at(c)) * inverse);
        }
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.global_response_norm_scale(k, inputs[0], outputs[0], sizes, self.0.eps)
    }
}

/// d from g², s and γ.
struct Slope(GlobalResponseNorm);
impl RowKernel<3, 1> for Slope {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [squares, s, gamma]: [Row<S>; 3], [d]: [RowMut<S>; 1]) {
        let [total, weighted] = squares.sums(
            #[inline(always)]
            |c| {
                let g = norm(squares.at(c));
                [g, gamma.at(c) * s.at(c) * g]
            },
        );
        let per_channel = 1.0 / squares.len() as f64;
        let inverse = S::constant(1.0) / (total * per_channel + self.0.eps);
        let mean = weighted * per_channel * inverse;
        for c in chunks::<S>(squares.len()) {
            let g = norm(squares.at(c));
            let of_g = (gamma.at(c) * s.at(c) - mean) * inverse;
            d.put(c, g.keep_positive(of_g / g));
        }
    }

    fn launches(&self, _: &'static str, call: &Call<3, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        call.planner.global_response_norm_slope(k, inputs, outputs[0], sizes, self.0.eps)
    }
}

/// y of every image.
struct Value(Squares);
impl RowKernel<4, 1> for Value {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, n, gamma, beta]: [Row<S>; 4], [y]: [RowMut<S>; 1]) {
        for t in 0..self.0.tokens {
            for c in chunks::<S>(n.len()) {
                let at = c.shifted(t * n.len());
                y.put(at, x.at(at) * (gamma.at(c) * n.at(c) + 1.0) + beta.at(c));
            }
        }
    }

    fn launches(&self, _: &'static str, call: &Call<4, 1>) -> Result<Vec<Launch>> {
        let (k, sizes) = (call.tangents, self.0.sizes(call.sizes));
        call.planner.global_response_norm_value(k, call.inputs, call.outputs[0], sizes)
    }
}

/// gx of every image.
struct VjpInput(Squares);
impl RowKernel<5, 1> for VjpInput {
    #[inline(always)]
    fn row<S: Scalar>(&self, _: usize, [x, gy, n, d, gamma]: [Row<S>; 5], [gx]: [RowMut<S>; 1]) {
        for t in 0..self.0.tokens {
            for c in chunks::<S>(n.len()) {
                let at = c.shifted(t * n.len());
                let direct = gy.at(at) * (gamma.at(c) * n.at(c) + 1.0);
                gx.put(at, direct + x.at(at) * d.at(c));
            }
        }
    }

    fn launches(&self, _: &'static str, call: &Call<5, 1>) -> Result<Vec<Launch>> {
        let (k, sizes) = (call.tangents, self.0.sizes(call.sizes));
        call.planner.global_response_norm_vjp_input(k, call.inputs, call.outputs[0], sizes)
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

    /// n, (B, C), from g².
    fn scale(&self, squares: &DualTensor) -> Result<DualTensor> {
        let (rows, channels) = (squares.dims()[0], squares.columns());
        let [n] = run_rows(
            self.name(),
            &Scale(*self),
            rows,
            [rows_of(squares)],
            [Output::PerRow(channels)],
            [squares.dims()],
        )?;
        Ok(n)
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
        let len = tokens * channels;
        let [squares] = run_rows(
            self.name(),
            &Squares { tokens },
            images,
            [rows_of_len(x, len)],
            [Output::PerRow(channels)],
            [&[images, channels]],
        )?;
        let n = self.scale(&squares)?;
        let [y] = run_rows(
            self.name(),
            &Value(Squares { tokens }),
            images,
            [rows_of_len(x, len), rows_of(&n), shared(gamma), shared(beta)],
            [Output::PerRow(len)],
            [x.dims()],
        )?;
        Ok(y)
    }

    fn save_set(&self, needs_grad: &[bool]) -> SaveSet {
        let x = needs_grad[0] || needs_grad[1];
        SaveSet { inputs: u32::from(x) | u32::from(needs_grad[0]) << 1, output: false }
    }

    fn vjp(
        &self,
        saved: &Saved,
        gy: &DualTensor,
        needs_grad: &[bool],
    ) -> Result<Vec<Option<DualTensor>>> {
        let [images, tokens, channels] = self.sizes(&saved.dims[0])?;
        let (len, row) = (tokens * channels, [images, channels]);
        let mut gradients = vec![None, None, None];
        if needs_grad[0] || needs_grad[1] {
            let x = saved.input(self.name(), 0)?;
            let [squares, s] = run_rows(
                self.name(),
                &Sums(Squares { tokens }),
                images,
                [rows_of_len(x, len), rows_of_len(gy, len)],
                [Output::PerRow(channels), Output::PerRow(channels)],
                [&row, &row],
            )?;
            let n = self.scale(&squares)?;
            if needs_grad[0] {
                let gamma = saved.input(self.name(), 1)?;
                let [d] = run_rows(
                    self.name(),
                    &Slope(*self),
                    images,
                    [rows_of(&squares), rows_of(&s), shared(gamma)],
                    [Output::PerRow(channels)],
                    [&row],
                )?;
                let images_of = |x| rows_of_len(x, len);
                let [gx] = run_rows(
                    self.name(),
                    &VjpInput(Squares { tokens }),
                    images,
                    [images_of(x), images_of(gy), rows_of(&n), rows_of(&d), shared(gamma)],
                    [Output::PerRow(len)],
                    [x.dims()],
                )?;
                gradients[0] = Some(gx);
            }
            if needs_grad[1] {
                let [g_gamma] = run_rows(
                    self.name(),
                    &SumProducts,
                    images,
                    [rows_of(&n), rows_of(&s)],
                    [Output::Summed(channels)],
                    [&[channels]],
                )?;
                gradients[1] = Some(g_gamma);
            }
        }
        if needs_grad[2] {
            let [g_beta] = run_rows(
                self.name(),
                &SumRows,
                images * tokens,
                [rows_of(gy)],
                [Output::Summed(channels)],
                [&[channels]],
            )?;
            gradients[2] = Some(g_beta);
        }
        Ok(gradients)
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
