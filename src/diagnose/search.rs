//! The first local minimum of a loss along a line.

/// Relative width at which α* is known well enough: κ depends on its square.
const TOLERANCE: f64 = 0.01;
/// A parabola is believed only if one of its outer points lies this near, relative to α.
const NEAR: f64 = 0.1;

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// φ(0).
    pub at_zero: f64,
    /// First α to try, > 0.
    pub start: f64,
    /// Largest α allowed.
    pub cap: f64,
    /// Evaluations allowed.
    pub budget: usize,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minimum {
    /// α*, or 0 if no α tried was better than 0.
    pub alpha: f64,
    /// φ(α*).
    pub value: f64,
    /// Evaluations of φ.
    pub evaluations: usize,
    /// Whether φ still fell at the cap.
    pub capped: bool,
}

/// Searches φ for its first local minimum at α > 0.
///
/// From `start`, α is halved or doubled to a bracket low < mid < high with φ(mid) below both
/// ends; then parabolic steps inside it, until α moves by less than 1%, by the word of a point
/// near it, or the budget is spent.
/// The best point evaluated is returned. A φ that is not finite counts as +∞.
///
/// # Errors
/// Those of `phi`.
pub fn first_minimum<E>(
    line: Line,
    mut phi: impl FnMut(f64) -> Result<f64, E>,
) -> Result<Minimum, E> {
    let mut evaluations = 0;
    let mut at = |alpha: f64, evaluations: &mut usize| {
        *evaluations += 1;
        phi(alpha).map(|y| if y.is_finite() { y } else { f64::INFINITY })
    };
    let mut low = (0.0, line.at_zero);
    let mut high: Option<(f64, f64)> = None;
    let mut mid: Option<(f64, f64)> = None;
    let mut alpha = line.start.min(line.cap);
    // Halving alone may overrun: the minimum is there, since φ falls at 0.
    while evaluations < line.budget || (mid.is_none() && evaluations < 4 * line.budget) {
        let y = at(alpha, &mut evaluations)?;
        match mid {
            None if y < line.at_zero => mid = Some((alpha, y)),
            // No better than 0: the minimum lies below, and this point bounds it.
            None => high = Some((alpha, y)),
            Some(best) if y < best.1 => {
                low = best;
                mid = Some((alpha, y));
            }
            Some(_) => high = Some((alpha, y)),
        }
        alpha = match (mid, high) {
            (Some(_), Some(_)) => break,
            (None, _) => alpha / 2.0,
            (Some(best), None) if best.0 >= line.cap => {
                // Still falling at the cap, or past a minimum already?
                let near = (0.5 * (low.0 + line.cap)).max((1.0 - NEAR) * line.cap);
                let y = at(near, &mut evaluations)?;
                if y < best.1 {
                    mid = Some((near, y));
                    high = Some(best);
                }
                break;
            }
            (Some(_), None) => (2.0 * alpha).min(line.cap),
        };
    }
    let Some(mut mid) = mid else {
        return Ok(Minimum { alpha: 0.0, value: line.at_zero, evaluations, capped: false });
    };
    let Some(mut high) = high else {
        let capped = mid.0 >= line.cap;
        return Ok(Minimum { alpha: mid.0, value: mid.1, evaluations, capped });
    };
    while evaluations < line.budget {
        let (left, right) = (mid.0 - low.0, high.0 - mid.0);
        let mut next = inside(low, mid, high);
        if (next - mid.0).abs() <= TOLERANCE * mid.0 {
            if left.min(right) <= 1.01 * NEAR * mid.0 {
                break;
            }
            // Far ends can agree with the middle by chance, 0, α and 2α above all: ask nearby.
            next = mid.0 * if right > left { 1.0 + NEAR } else { 1.0 - NEAR };
        }
        let point = (next, at(next, &mut evaluations)?);
        let better = point.1 < mid.1;
        match (better, next < mid.0) {
            (true, true) => (high, mid) = (mid, point),
            (true, false) => (low, mid) = (mid, point),
            (false, true) => low = point,
            (false, false) => high = point,
        }
    }
    Ok(Minimum { alpha: mid.0, value: mid.1, evaluations, capped: false })
}

/// The minimum of the parabola through three points; where it says nothing (an infinite end, or
/// a step onto an end), the middle of the longer side.
fn inside(low: (f64, f64), mid: (f64, f64), high: (f64, f64)) -> f64 {
    let (left, right) = (mid.0 - low.0, high.0 - mid.0);
    let (to_high, to_low) = (mid.1 - high.1, mid.1 - low.1);
    let parabola = mid.0
        - 0.5 * (left * left * to_high - right * right * to_low)
            / (left * to_high + right * to_low);
    let margin = 0.05 * left.min(right);
    if parabola.is_finite() && parabola > low.0 + margin && parabola < high.0 - margin {
        parabola
    } else if left > right {
        mid.0 - 0.5 * left
    } else {
        mid.0 + 0.5 * right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(f: impl Fn(f64) -> f64, start: f64, cap: f64, budget: usize) -> Minimum {
        let line = Line { at_zero: f(0.0), start, cap, budget };
        first_minimum(line, |a| Ok::<_, ()>(f(a))).unwrap()
    }

    #[test]
    fn a_parabola_is_found_from_anywhere() {
        for start in [1e-3, 0.5, 1.0, 3.0, 1e3] {
            let found = search(|a| (a - 1.0).powi(2), start, 1e6, 60);
            assert!((found.alpha - 1.0).abs() < 0.01, "{start}: {found:?}");
            assert!(!found.capped);
        }
    }

    #[test]
    fn an_anharmonic_valley_is_found_to_a_percent() {
        // φ(α) = exp(2α) − 4α: minimum at ln(2)/2.
        let found = search(|a| (2.0 * a).exp() - 4.0 * a, 0.5, 10.0, 60);
        assert!((found.alpha / (2f64.ln() / 2.0) - 1.0).abs() < 0.01, "{found:?}");
        assert!(found.evaluations < 12);
        let frugal = search(|a| (2.0 * a).exp() - 4.0 * a, 0.5, 10.0, 5);
        assert_eq!(frugal.evaluations, 5);
        assert!((frugal.alpha / (2f64.ln() / 2.0) - 1.0).abs() < 0.05, "{frugal:?}");
    }

    #[test]
    fn a_parabola_that_agrees_by_chance_is_not_believed() {
        // φ(0) = φ(2), so the parabola through 0, 1 and 2 has its minimum at 1; with t = α − 1,
        // φ′ = 0.9 t² + 2 t − 0.3 is 0 at t = (√5.08 − 2)/1.8.
        let phi = |a: f64| (a - 1.0).powi(2) + 0.3 * ((a - 1.0).powi(3) - (a - 1.0));
        let found = search(phi, 1.0, 10.0, 60);
        let exact = 1.0 + (5.08f64.sqrt() - 2.0) / 1.8;
        assert!((found.alpha / exact - 1.0).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn a_loss_that_only_falls_stops_at_the_cap() {
        let found = search(|a| -a, 1.0, 5.0, 60);
        assert_eq!((found.alpha, found.capped), (5.0, true));
    }

    #[test]
    fn a_minimum_below_the_cap_is_found_from_the_cap() {
        let found = search(|a| (a - 0.4).powi(2), 3.0, 0.5, 60);
        assert!((found.alpha - 0.4).abs() < 0.01 && !found.capped, "{found:?}");
    }

    #[test]
    fn a_loss_that_only_rises_moves_nothing() {
        let found = search(|a| a, 1.0, 5.0, 8);
        assert_eq!((found.alpha, found.value, found.evaluations), (0.0, 0.0, 32));
    }

    #[test]
    fn losses_that_overflow_count_as_high() {
        let f = |a: f64| if a > 0.3 { f64::NAN } else { (a - 0.2).powi(2) };
        let found = search(f, 4.0, 10.0, 60);
        assert!((found.alpha - 0.2).abs() < 0.002, "{found:?}");
    }
}
