//! Folds a map of the logits into the head's weights.

use super::Map;
use crate::error::{Error, Result};
use crate::models::{Layer, Network, Weights};

/// The weights with the map folded into the head. With two heads, whose mean is the output, it is
/// folded into both.
///
/// # Errors
/// A head that is not one linear layer, or two with averaged outputs.
pub fn calibrated(network: &Network, weights: &Weights, map: &Map) -> Result<Weights> {
    let mut changes = Vec::new();
    for [weight, bias] in linear_layers(network)? {
        let folded = map.fold(weights.tensor(weight), weights.tensor(bias))?;
        changes.extend([weight, bias].into_iter().zip(folded));
    }
    Ok(weights.with(&changes))
}

/// Checks that a map can be folded into the head.
///
/// # Errors
/// Those of [`calibrated`].
pub fn check_head(network: &Network) -> Result<()> {
    head(network).map(drop)
}

/// The layer that computes the logits.
///
/// # Errors
/// Those of [`calibrated`].
pub(super) fn head(network: &Network) -> Result<Layer> {
    linear_layers(network)?;
    network.blocks().pop().ok_or_else(not_linear)
}

/// Checks that the logits are those of one linear layer.
///
/// # Errors
/// Those of [`calibrated`]; two layers with averaged outputs.
pub(super) fn one_linear_layer(network: &Network) -> Result<()> {
    match linear_layers(network)?.len() {
        1 => Ok(()),
        n => Err(Error::Missing(format!(
            "`laplace` needs one linear layer in the head, and this network averages {n}: leave out \
             `laplace`"
        ))),
    }
}

fn linear_layers(network: &Network) -> Result<Vec<[usize; 2]>> {
    network.linear_head().ok_or_else(not_linear)
}

fn not_linear() -> Error {
    Error::Missing(
        "calibration is folded into a linear head with a bias, and this network has none; use the \
         temperature of `planish eval` when you compute probabilities"
            .into(),
    )
}
