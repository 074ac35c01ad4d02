//! Cross-entropy between logits and class labels, per example.

use crate::cpu::{Output, RowKernel};
use crate::cuda::{Call, Launch};
use crate::dual_tensor::DualTensor;
use crate::error::{Error, Result};
use crate::op::{Op, SaveSet, Saved, rows_of, rows_of_len, run_rows};
use crate::registry::Sample;
use crate::rows::{Row, RowMut, chunks};
use crate::scalar::Scalar;
use std::sync::Arc;

/// yᵢ = log Σⱼ exp(xᵢⱼ) − (1 − s) xᵢₜ − s/C Σⱼ xᵢⱼ in nats; x: (N, C), t = labelᵢ, y: (N).
///
/// s is label smoothing (Szegedy et al., CVPR 2016, §7). For the mean over a batch, start the
/// backward pass with gy = 1/N. VJP: gxᵢⱼ = gyᵢ (softmax(xᵢ)ⱼ − (1 − s) [j = t] − s/C).
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// One label per row.
    pub labels: Arc<[u32]>,
    /// s, in [0, 1).
    pub smoothing: f64,
}

impl CrossEntropy {
    fn check(&self, dims: &[usize]) -> Result<(usize, usize)> {
        match dims {
            &[n, classes] if n == self.labels.len() => {
                match self.labels.iter().position(|&t| t as usize >= classes) {
                    Some(row) => Err(Error::Label { row, label: self.labels[row], classes }),
                    None => Ok((n, classes)),
                }
            }
            found => Err(Error::shape(
                self.name(),
                format!("logits of shape ({}, classes)", self.labels.len()),
                format!("{found:?}"),
            )),
        }
    }
}

struct Value<'a>(&'a CrossEntropy);
impl RowKernel<1, 1> for Value<'_> {
    #[inline(always)]
    fn row<S: Scalar>(&self, r: usize, [x]: [Row<S>; 1], [y]: [RowMut<S>; 1]) {
        let s = self.0.smoothing;
        let m = x.detached_max();
        let target = x.column(self.0.labels[r] as usize) - m;
        let loss = if s > 0.0 {
            let [total, rest] = x.sums(
                #[inline(always)]
                |c| {
                    x.prefetch_next(c);
                    let d = x.at(c) - m;
                    [d.exp(), d]
                },
            );
            total.ln_uniform() - target * (1.0 - s) - rest * (s / x.len() as f64)
        } else {
            let total = x.sum(
                #[inline(always)]
                |c| {
                    x.prefetch_next(c);
                    (x.at(c) - m).exp()
                },
            );
            total.ln_uniform() - target
        };
        y.put_one(loss);
    }

    fn launches(&self, _: &'static str, call: &Call<1, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        let (labels, s) = (call.labels, self.0.smoothing);
        call.planner.cross_entropy_value(k, inputs[0], labels, outputs[0], sizes, s)
    }

    fn labels(&self) -> &[u32] {
        &self.0.labels
    }
}

struct Vjp<'a>(&'a CrossEntropy);
impl RowKernel<2, 1> for Vjp<'_> {
    #[inline(always)]
    fn row<S: Scalar>(&self, r: usize, [x, gy]: [Row<S>; 2], [gx]: [RowMut<S>; 1]) {
        let s = self.0.smoothing;
        let m = x.detached_max();
        // Stores the exponentials in the output: reading them back is cheaper than computing them
        // twice.
        let total = x.sum(
            #[inline(always)]
            |c| {
                x.prefetch_next(c);
                let e = (x.at(c) - m).exp();
                gx.put(c, e);
                e
            },
        );
        let (weight, scale) = (gy.column(0), gy.column(0) / total);
        let (e, uniform) = (gx.read(), weight * (s / x.len() as f64));
        for c in chunks::<S>(x.len()) {
            gx.put(c, e.at(c) * scale - uniform);
        }
        let label = self.0.labels[r] as usize;
        gx.put_column(label, gx.read().column(label) - weight * (1.0 - s));
    }

    fn launches(&self, _: &'static str, call: &Call<2, 1>) -> Result<Vec<Launch>> {
        let Call { tangents: k, inputs, outputs, sizes, .. } = *call;
        let (labels, s) = (call.labels, self.0.smoothing);
        call.planner.cross_entropy_vjp(k, inputs, labels, outputs[0], sizes, s)
    }

    fn labels(&self) -> &[u32] {
        &self.0.labels
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn shape(&self, x: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(vec![self.check(x[0])?.0])
    }

    fn is_affine_in(&self, inputs: &[bool]) -> bool {
        !inputs.contains(&true)
    }

    fn value(&self, x: &[&DualTensor]) -> Result<DualTensor> {
        let (n, _) = self.check(x[0].dims())?;
        let [y] =
            run_rows(self.name(), &Value(self), n, [rows_of(x[0])], [Output::PerRow(1)], [&[n]])?;
        Ok(y)
    }

    fn save_set(&self, _: &[bool]) -> SaveSet {
        SaveSet { inputs: 1, output: false }
    }

    fn vjp(&self, saved: &Saved, gy: &DualTensor, _: &[bool]) -> Result<Vec<Option<DualTensor>>> {
        let x = saved.input(self.name(), 0)?;
        let (n, classes) = self.check(x.dims())?;
        let [gx] = run_rows(
            self.name(),
            &Vjp(self),
            n,
            [rows_of(x), rows_of_len(gy, 1)],
            [Output::PerRow(classes)],
            [x.dims()],
        )?;
        Ok(vec![Some(gx)])
    }
}

/// Test shapes.
pub fn samples() -> Vec<Sample> {
    [(5usize, 7usize, 0.0), (4, 10, 0.1), (3, 33, 0.3), (2, 1, 0.0)]
        .map(|(n, classes, smoothing)| {
            let labels: Vec<u32> = (0..n).map(|i| (i * 3 % classes) as u32).collect();
            Sample::new(CrossEntropy { labels: labels.into(), smoothing }, &[&[n, classes]])
        })
        .into_iter()
        .collect()
}
