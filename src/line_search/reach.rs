//! How far a layer may be moved.

/// Longest ‖Δw‖ of a search for a minimum: ‖w_ℓ‖, and for a layer of zeros 2 φ(0)/‖g‖.
///
/// A layer of zeros has no length of its own. But a loss is never negative: a parabola with the value
/// φ(0) and the slope −‖g‖ per unit length that stays above 0 has its minimum within 2 φ(0)/‖g‖.
pub fn longest(weight_norm: f64, gradient_norm: f64, loss: f64) -> f64 {
    match weight_norm > 0.0 {
        true => weight_norm,
        false => 2.0 * loss / gradient_norm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_parabola_above_zero_has_its_minimum_further_away() {
        assert_eq!(longest(0.25, 3.0, 7.0), 0.25);
        // φ(s) = L − g s + c s²/2 has its minimum at g/c, where it is L − g²/(2c) ≥ 0.
        let (loss, gradient): (f64, f64) = (1.25, 0.5);
        for least in [0.0, 0.01, 1.0] {
            let curvature = gradient * gradient / (2.0 * (loss - least));
            let minimum = gradient / curvature;
            assert!(minimum <= longest(0.0, gradient, loss) * (1.0 + 1e-12), "{least}: {minimum}");
        }
    }
}
