//! L2-SP (Li, Grandvalet and Davoine, ICML 2018): a penalty on the distance from the weights at the start,
//!
//! α/2 ‖w − w⁰‖² over all layers but the head, + β/2 ‖w_head‖².
//!
//! Its gradient is added to that of the loss before clipping. Losses are reported without the penalty.

use super::Result;
use crate::models::Layer;
use crate::objective::Objective;
use crate::options::as_text;
use crate::vector;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// Weights of the penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L2Sp {
    /// α, of all layers but the head.
    pub alpha: f64,
    /// β, of the head.
    pub beta: f64,
}

impl Display for L2Sp {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{},{}", self.alpha, self.beta)
    }
}

impl FromStr for L2Sp {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number =
            |text: &str| text.trim().parse().ok().filter(|x: &f64| *x >= 0.0 && x.is_finite());
        let found = text.split_once(',').and_then(|(a, b)| number(a).zip(number(b)));
        let (alpha, beta) = found.ok_or(
            "expected two numbers of at least 0, for the backbone and for the head, as in 0.1,0.01",
        )?;
        Ok(Self { alpha, beta })
    }
}

impl Serialize for L2Sp {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        as_text::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for L2Sp {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        as_text::deserialize(from)
    }
}

/// The penalty of a run.
#[derive(Debug)]
pub struct Penalty {
    of: L2Sp,
    start: Vec<Tensor>,
    /// For each updated tensor, whether it is in the head.
    in_head: Vec<bool>,
}

impl Penalty {
    /// The penalty on moving `update` away from the model's weights.
    ///
    /// # Errors
    /// Weights that cannot be copied to the model's device.
    pub fn new(of: L2Sp, model: &Objective, update: &Layer) -> Result<Self> {
        let head = model.network.layer_count().saturating_sub(1);
        let in_head = update.tensors.iter().map(|&i| model.network.layer_of(i) == head).collect();
        Ok(Self { of, start: model.weights_of(update)?, in_head })
    }

    /// The gradient with that of the penalty at `weights`.
    ///
    /// # Errors
    /// Tensors that do not fit those of the start.
    pub fn add_to(&self, gradient: Vec<Tensor>, weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut out = Vec::with_capacity(gradient.len());
        for (i, g) in gradient.into_iter().enumerate() {
            let (g, w) = ([g], &weights[i..=i]);
            out.extend(match self.in_head[i] {
                true => vector::add_scaled(&g, self.of.beta, w)?,
                false => {
                    let away = vector::add_scaled(w, -1.0, &self.start[i..=i])?;
                    vector::add_scaled(&g, self.of.alpha, &away)?
                }
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::models::layers::everything;
    use crate::models::{Weights, arch};
    use std::sync::Arc;

    #[test]
    fn the_gradient_pulls_the_backbone_to_its_start_and_the_head_to_0() {
        let mut config = arch::vit("vit_nano_patch7_14", 3, 1).unwrap();
        (config.dim, config.depth, config.heads, config.mlp_dim) = (8, 1, 2, 16);
        let network = config.network().unwrap();
        let all = everything(&network);
        let weights = Weights::random(&network, 1).unwrap();
        let model = Objective::new(Arc::new(network), weights, &Engine::cpu());
        let penalty = Penalty::new(L2Sp { alpha: 0.5, beta: 0.25 }, &model, &all).unwrap();
        let start = model.weights_of(&all).unwrap();
        let moved: Vec<Tensor> = start.iter().map(|w| (w + 0.125).unwrap()).collect();
        let gradient: Vec<Tensor> = start.iter().map(|w| w.ones_like().unwrap()).collect();
        let found = penalty.add_to(gradient, &moved).unwrap();
        let mut heads = 0;
        for (i, &tensor) in all.tensors.iter().enumerate() {
            let name = &model.network.params()[tensor].name;
            let expected = match name.starts_with("head") {
                true => (1.0 + (&moved[i] * 0.25).unwrap()).unwrap(),
                false => start[i].ones_like().unwrap().affine(1.0 + 0.5 * 0.125, 0.0).unwrap(),
            };
            heads += usize::from(name.starts_with("head"));
            let away = (&found[i] - expected).unwrap().abs().unwrap().max_all().unwrap();
            // Weights near 1 in f32 are moved by 0.125 to within 1e-7.
            assert!(away.to_scalar::<f32>().unwrap() < 1e-6, "{name}");
        }
        assert_eq!(heads, 2);
    }

    #[test]
    fn texts_are_read_and_written() {
        let of: L2Sp = "0.1,0.01".parse().unwrap();
        assert_eq!((of.alpha, of.beta, of.to_string()), (0.1, 0.01, "0.1,0.01".into()));
        for text in ["", "0.1", "-1,0", "a,b", "1,2,3", "inf,0"] {
            assert!(text.parse::<L2Sp>().is_err(), "{text}");
        }
    }
}
