//! Limits on how far a layer is moved.

/// Maximum ‖Δw‖ of a line search: ‖w_ℓ‖, or 2 φ(0)/‖g‖ for a layer of zeros.
///
/// The norm of a layer of zeros gives no scale. But the loss is non-negative: a parabola with value
/// φ(0) and slope −‖g‖ per unit length that stays above 0 has its minimum within 2 φ(0)/‖g‖.
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
    fn bounds_the_minimum_of_non_negative_parabolas() {
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
