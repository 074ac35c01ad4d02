//! Where a move is evaluated: two points, then the best one that a parabola predicts.

/// The α to evaluate next, of a grid, from the loss at 0 and at two points of the grid; `None` if the
/// parabola through them is lowest at 0. If it is lowest at a point already evaluated, the neighbour
/// on the side of its minimum is taken.
pub(super) fn third(grid: &[f64], at_zero: f64, points: [(f64, f64); 2]) -> Option<f64> {
    let [(a, ya), (b, yb)] = points.map(|(alpha, loss)| (alpha, loss - at_zero));
    // c₁ α + c₂ α² through both points.
    let c2 = (yb / b - ya / a) / (b - a);
    let c1 = ya / a - c2 * a;
    if !(c1.is_finite() && c2.is_finite()) {
        // A loss that is not finite says only that the minimum is below it.
        return grid.iter().copied().find(|alpha| *alpha < a.min(b));
    }
    let predicted = |alpha: f64| c1 * alpha + c2 * alpha * alpha;
    let best =
        (0..grid.len()).min_by(|&i, &j| predicted(grid[i]).total_cmp(&predicted(grid[j])))?;
    if predicted(grid[best]) >= 0.0 {
        return None;
    }
    let known = |alpha: f64| alpha == a || alpha == b;
    if !known(grid[best]) {
        return Some(grid[best]);
    }
    let vertex = -0.5 * c1 / c2;
    let (below, above) = (best.checked_sub(1), Some(best + 1).filter(|i| *i < grid.len()));
    let near = if vertex > grid[best] { above.or(below) } else { below.or(above) };
    near.map(|i| grid[i]).filter(|alpha| !known(*alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(loss: impl Fn(f64) -> f64) -> Option<f64> {
        let grid: Vec<f64> = (1..=10).map(|i| f64::from(i) / 10.0).collect();
        third(&grid, loss(0.0), [(grid[2], loss(grid[2])), (grid[6], loss(grid[6]))])
    }

    #[test]
    fn the_minimum_of_a_parabola_is_found() {
        for (minimum, expected) in [(0.1, 0.1), (0.52, 0.5), (0.8, 0.8), (1.4, 1.0)] {
            let found = of(|x| 3.0 + (x - minimum).powi(2)).unwrap();
            assert!((found - expected).abs() < 1e-12, "{minimum}: {found}");
        }
        // Lowest at a known point: its neighbour.
        assert_eq!(of(|x| (x - 0.31).powi(2)), Some(0.4));
        assert_eq!(of(|x| (x - 0.29).powi(2)), Some(0.2));
    }

    #[test]
    fn a_loss_that_only_rises_needs_no_further_point() {
        assert_eq!(of(|x| x), None);
        assert_eq!(of(|x| x + x * x), None);
        // It falls everywhere, ever faster.
        assert_eq!(of(|x| -x * x), Some(1.0));
    }

    #[test]
    fn infinite_losses_are_bounds() {
        assert_eq!(of(|x| if x > 0.2 { f64::INFINITY } else { 0.0 }), Some(0.1));
    }
}
