//! Cost of a search along remedies.

use super::RemedySession;
use crate::forecast::Operations;
use crate::models::{Layer, Network, cost};

/// Points on a path.
const POINTS: f64 = 3.0;
/// Those of them that all prefixes share.
const SHARED: f64 = 2.0;

/// Operations per image of V, at most: a forward pass of the model as it is, and for each move a pass
/// from its first moved layer on for each point.
pub fn remedies_work(network: &Network, session: &RemedySession) -> Operations {
    let whole = cost::forward(network, 0..network.stages());
    // One pass gives the start, another the inputs of all layers.
    let mut forward = 2.0 * whole;
    for direction in &session.directions {
        let moves = |layer: &&Layer| layer.tensors.iter().any(|i| direction.tensors.contains(i));
        let single = session.layers.iter().filter(moves).map(|layer| cost::suffix(network, layer));
        forward += POINTS * single.sum::<f64>();
        let joint: Vec<&Layer> = session.joint.iter().filter(moves).collect();
        if !direction.remedy.moves_together() || joint.len() < 2 {
            continue;
        }
        // All layers, and LiNeS.
        forward += 2.0 * POINTS * whole;
        for layer in &joint[1..joint.len() - 1] {
            // The suffix from here, and the prefix up to here.
            forward += POINTS * cost::suffix(network, layer);
            let above = layer.last_stage + 1..network.stages();
            forward += SHARED * cost::forward(network, above) + (POINTS - SHARED) * whole;
        }
    }
    // An epoch moves every layer.
    let single: f64 = session.layers.iter().map(|layer| cost::suffix(network, layer)).sum();
    forward += POINTS * single * session.epochs.len() as f64;
    Operations { forward, ..Operations::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Weights, arch};
    use crate::remedies::{Direction, Remedy};
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn both_remedies_of_all_layers_cost_at_most_48_forward_passes() {
        // ViT-B/16 in small: 12 blocks, a class token, 14×14 patches.
        let mut config = arch::vit("vit_base_patch16_224", 10, 3).unwrap();
        (config.dim, config.heads, config.mlp_dim) = (24, 2, 96);
        let network = config.network().unwrap();
        let all: Vec<usize> = (0..network.params().len()).collect();
        let direction = |remedy| {
            Arc::new(Direction {
                remedy,
                target: Weights::random(&network, 0).unwrap(),
                tensors: all.clone(),
                checkpoint: None,
                notes: Vec::new(),
            })
        };
        let mut session = RemedySession {
            directions: vec![
                direction(Remedy::Toward(PathBuf::from("a"))),
                direction(Remedy::Decay),
            ],
            epochs: Vec::new(),
            training: None,
            layers: network.blocks(),
            joint: Vec::new(),
            notes: Vec::new(),
        };
        let whole = cost::forward(&network, 0..network.stages());
        let passes = |session: &RemedySession| remedies_work(&network, session).forward / whole;
        let alone = passes(&session);
        assert!(alone > 30.0 && alone <= 48.0, "{alone}");
        session.joint = network.blocks();
        let together = passes(&session) - alone;
        assert!(together > 30.0 && together < 60.0, "{together}");
    }
}
