//! Operation counts: matrix products, with a multiply and an add as two operations.

use crate::models::{Layer, Network, cost};

/// Operations by kind of pass. Each kind has its own rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Operations {
    /// Of forward passes.
    pub forward: f64,
    /// Gradients, including forward passes.
    pub gradient: f64,
    /// Hessian-vector products, including gradients.
    pub hvp: f64,
}

/// Points of a line search in `diagnose`, each of which costs a forward pass: four on average on
/// the images that give the direction (two if the loss is a parabola), and one on the others.
const POINTS: f64 = 5.0;

/// The same where another halving of V gave a good start: three and one.
const POINTS_AGAIN: f64 = 4.0;

/// Operations of `diagnose` per image of V: the model's loss on V and on as many training images,
/// the line search of each layer in every halving of V, and for each group of layers a gradient on every
/// halving and a sweep of their Hessian-vector products. With `raw_too`, gradients and searches are made in
/// one more halving.
pub fn diagnose_work(
    network: &Network,
    groups: &[Vec<Layer>],
    repeats: usize,
    raw_too: bool,
) -> Operations {
    let all = cost::forward(network, 0..network.stages());
    let repeats = repeats + usize::from(raw_too);
    let mut work = Operations { forward: 3.0 * all, gradient: 0.0, hvp: 0.0 };
    for group in groups {
        if let Some(lowest) = group.iter().min_by_key(|layer| layer.first_stage) {
            let one = 2.0 * cost::suffix(network, lowest)
                + group.iter().map(|layer| cost::own(network, layer)).sum::<f64>();
            work.gradient += repeats as f64 * one;
        }
        work.hvp += cost::sweep(network, &group.iter().collect::<Vec<_>>());
    }
    let again = repeats.saturating_sub(1) as f64;
    for layer in groups.iter().flatten() {
        // A linear path costs two products on either fold, for any number of points.
        let passes = match network.is_linear_in(layer) {
            true => 4.0 * (1.0 + again),
            false => POINTS + POINTS_AGAIN * again,
        };
        work.forward += passes * cost::suffix(network, layer);
    }
    work
}

/// Work of a post-training step besides its gradient.
#[derive(Clone, Copy, Debug)]
pub enum Perturbing<'a> {
    /// Nothing: plain SGD.
    Nothing,
    /// A layer takes a descent step on the gradient of a separate batch.
    Line {
        /// The layer.
        layer: &'a Layer,
        /// Whether one Hessian-vector product gives the step size, or a search.
        newton: bool,
        /// Size of this batch, as a multiple of B.
        ratio: f64,
    },
    /// The updated layers take an ascent step on the gradient of B.
    Ascent {
        /// Fraction of the steps with an ascent step.
        share: f64,
        /// Whether only their normalisation layers take it; their gradient needs no weight
        /// products.
        norms: bool,
    },
}

/// Operations of one post-training step per image of B.
pub fn step_work(network: &Network, update: &Layer, perturbing: Perturbing) -> f64 {
    let gradient = cost::gradient(network, update);
    match perturbing {
        Perturbing::Nothing => gradient,
        Perturbing::Ascent { share, norms } => {
            let first = if norms { 2.0 * cost::suffix(network, update) } else { gradient };
            gradient + share * first
        }
        Perturbing::Line { layer: p, newton, ratio } => {
            let start = p.first_stage.min(update.first_stage);
            let forward = |to: usize| cost::forward(network, start..to);
            let linear = network.is_linear_in(p);
            let line = match (newton, linear) {
                (true, _) => cost::hvp(network, p),
                (false, true) => 2.0 * cost::suffix(network, p),
                (false, false) => 12.0 * cost::suffix(network, p),
            };
            let search = forward(p.first_stage) + cost::gradient(network, p) + line;
            forward(update.first_stage) + gradient + ratio * search
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::arch;
    use crate::models::layers::select;

    #[test]
    fn an_ascent_step_is_a_second_gradient() {
        let network = arch::named("vit_nano_patch7_28", 10, 1).unwrap().network().unwrap();
        let all = select(&network, "*").unwrap().remove(0);
        let work = |perturbing| step_work(&network, &all, perturbing);
        let sgd = work(Perturbing::Nothing);
        // A full gradient is a forward pass and a backward pass of twice its size.
        assert!((sgd / cost::forward(&network, 0..network.stages()) - 3.0).abs() < 1e-12);
        for (share, norms, expected) in
            [(1.0, false, 2.0), (0.2, false, 1.2), (1.0, true, 5.0 / 3.0)]
        {
            let ratio = work(Perturbing::Ascent { share, norms }) / sgd;
            assert!((ratio - expected).abs() < 1e-12, "{ratio}");
        }
    }
}
