//! The first local minimum of a loss along a line.

/// Relative tolerance of α*. κ depends on its square.
const TOLERANCE: f64 = 0.01;
/// A parabola is trusted only if one of its outer points is this close to α, relative to α.
const NEAR: f64 = 0.1;
/// Grid points at which a polynomial's slope is checked for its first sign change.
const GRID: usize = 256;

/// The line to search.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// φ(0).
    pub at_zero: f64,
    /// φ′(0) < 0, and φ″(0) if it is known too.
    pub derivatives: Option<(f64, Option<f64>)>,
    /// First α to try, > 0.
    pub start: f64,
    /// Maximum α.
    pub cap: f64,
    /// Maximum number of evaluations.
    pub budget: usize,
}

/// The minimum found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minimum {
    /// α*, or 0 if no evaluated α was better than 0.
    pub alpha: f64,
    /// φ(α*).
    pub value: f64,
    /// Evaluations of φ.
    pub evaluations: usize,
    /// Whether φ was still falling at the cap.
    pub capped: bool,
}

/// (α, φ(α)).
type Point = (f64, f64);

/// Searches φ for its first local minimum at α > 0.
///
/// If φ′(0) is known, a polynomial through it, φ″(0) if known, and the latest points gives the next α.
/// A point within 1% of the polynomial's minimum is accepted as α*; without φ″(0), only if another point is
/// near it. If the polynomial returns to a point that was evaluated before, it has failed.
///
/// Otherwise, or if the polynomial fails, α is halved or doubled until low < mid < high with φ(mid)
/// below both ends. Parabolic steps then shrink this bracket until α moves by less than 1%,
/// confirmed by a nearby point, or until the budget is spent.
///
/// Returns the best point evaluated. A non-finite φ counts as +∞.
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
    let mut alpha = line.start.min(line.cap);
    let mut points: Vec<Point> = Vec::new();
    while let Some(derivatives) = line.derivatives
        && evaluations < line.budget
    {
        points.push((alpha, at(alpha, &mut evaluations)?));
        let Some(next) = polynomial_minimum(line.at_zero, derivatives, &points) else { break };
        let mut next = next;
        if let (_, Some(best), _) = bracket(line.at_zero, &points)
            && (next - best.0).abs() <= TOLERANCE * best.0
        {
            // Without φ″(0), a parabola through one point can have its minimum there by chance.
            let near = |p: &Point| (p.0 - best.0).abs() >= 0.99 * NEAR * best.0;
            if derivatives.1.is_some() || points.iter().any(near) {
                let (alpha, value) = best;
                return Ok(Minimum { alpha, value, evaluations, capped: false });
            }
            let up = best.0 * (1.0 + NEAR);
            next = if up <= line.cap { up } else { best.0 * (1.0 - NEAR) };
        }
        // Near a known point, the next polynomial would be almost the same, and so on without end.
        let known = points.iter().any(|p| (next - p.0).abs() <= TOLERANCE * p.0);
        if known || next > line.cap {
            break;
        }
        alpha = next;
    }
    let (mut low, mut mid, mut high) = bracket(line.at_zero, &points);
    // Halving may exceed the budget: a minimum exists, since φ falls at 0.
    while evaluations < line.budget || (mid.is_none() && evaluations < 4 * line.budget) {
        alpha = match (mid, high) {
            (Some(_), Some(_)) => break,
            (None, None) => alpha,
            (None, Some(high)) => high.0 / 2.0,
            (Some(best), None) if best.0 >= line.cap => {
                // Is φ still falling at the cap, or is this past a minimum?
                let near = (0.5 * (low.0 + line.cap)).max((1.0 - NEAR) * line.cap);
                let y = at(near, &mut evaluations)?;
                if y < best.1 {
                    mid = Some((near, y));
                    high = Some(best);
                }
                break;
            }
            (Some(best), None) => (2.0 * best.0).min(line.cap),
        };
        let point = (alpha, at(alpha, &mut evaluations)?);
        match mid {
            None if point.1 < line.at_zero => mid = Some(point),
            // No better than 0: the minimum is below this point, which bounds it.
            None => high = Some(point),
            Some(best) if point.1 < best.1 => (low, mid) = (best, Some(point)),
            Some(_) => high = Some(point),
        }
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
            // Far ends can agree with the middle by chance, above all 0, α and 2α, so evaluate a
            // nearby point.
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

/// The best point below φ(0) and its neighbours: a lower one (or 0) and a higher one.
fn bracket(at_zero: f64, points: &[Point]) -> (Point, Option<Point>, Option<Point>) {
    let below = points.iter().filter(|p| p.1 < at_zero);
    let mid = below.min_by(|a, b| a.1.total_cmp(&b.1)).copied();
    let place = mid.map_or(0.0, |p| p.0);
    let low = points.iter().filter(|p| p.0 < place).max_by(|a, b| a.0.total_cmp(&b.0));
    let high = points.iter().filter(|p| p.0 > place).min_by(|a, b| a.0.total_cmp(&b.0));
    (low.copied().unwrap_or((0.0, at_zero)), mid, high.copied())
}

/// First minimum of φ(0) + φ′(0) α + φ″(0) α²/2 + t₃ α³ + t₄ α⁴ fitted to the last two points, or
/// with t₄ = 0 to one point. If φ″(0) is unknown, it takes the place of t₄. `None` if there is no minimum
/// within four times the farthest point.
fn polynomial_minimum(
    at_zero: f64,
    (slope, bend): (f64, Option<f64>),
    points: &[Point],
) -> Option<f64> {
    let (&(a, y), earlier) = points.split_last()?;
    // Points too close together would fit the last term to rounding errors.
    let other = earlier.last().filter(|p| (p.0 - a).abs() > 2.0 * TOLERANCE * a);
    // What is left of φ, by α³ or α²: the first term to fit plus α times the second.
    let rest = |(a, y): Point| match bend {
        Some(bend) => (y - at_zero - slope * a - 0.5 * bend * a * a) / (a * a * a),
        None => (y - at_zero - slope * a) / (a * a),
    };
    let second = other.map_or(0.0, |&other| (rest((a, y)) - rest(other)) / (a - other.0));
    let first = rest((a, y)) - second * a;
    let (bend, t3, t4) = match bend {
        Some(bend) => (bend, first, second),
        None => (2.0 * first, second, 0.0),
    };
    if !(bend.is_finite() && t3.is_finite() && t4.is_finite()) {
        return None;
    }
    let derivative = |x: f64| slope + x * (bend + x * (3.0 * t3 + x * 4.0 * t4));
    let farthest = points.iter().fold(0.0, |m: f64, p| m.max(p.0));
    let step = 4.0 * farthest / GRID as f64;
    let i = (1..=GRID).find(|&i| derivative(i as f64 * step) >= 0.0)?;
    let (mut low, mut high) = ((i - 1) as f64 * step, i as f64 * step);
    for _ in 0..40 {
        let mid = 0.5 * (low + high);
        if derivative(mid) < 0.0 { low = mid } else { high = mid }
    }
    Some(high)
}

/// The minimum of the parabola through three points. If it is unusable (an infinite end, or a step
/// onto an end), the middle of the longer side.
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
        let line = Line { at_zero: f(0.0), derivatives: None, start, cap, budget };
        first_minimum(line, |a| Ok::<_, ()>(f(a))).unwrap()
    }

    #[test]
    fn finds_a_parabola_from_any_start() {
        for start in [1e-3, 0.5, 1.0, 3.0, 1e3] {
            let found = search(|a| (a - 1.0).powi(2), start, 1e6, 60);
            assert!((found.alpha - 1.0).abs() < 0.01, "{start}: {found:?}");
            assert!(!found.capped);
        }
    }

    #[test]
    fn finds_an_anharmonic_minimum_to_one_percent() {
        // φ(α) = exp(2α) − 4α: minimum at ln(2)/2.
        let found = search(|a| (2.0 * a).exp() - 4.0 * a, 0.5, 10.0, 60);
        assert!((found.alpha / (2f64.ln() / 2.0) - 1.0).abs() < 0.01, "{found:?}");
        assert!(found.evaluations < 12);
        let frugal = search(|a| (2.0 * a).exp() - 4.0 * a, 0.5, 10.0, 5);
        assert_eq!(frugal.evaluations, 5);
        assert!((frugal.alpha / (2f64.ln() / 2.0) - 1.0).abs() < 0.05, "{frugal:?}");
    }

    #[test]
    fn rejects_a_parabola_that_agrees_by_chance() {
        // φ(0) = φ(2), so the parabola through 0, 1 and 2 has its minimum at 1; with t = α − 1,
        // φ′ = 0.9 t² + 2 t − 0.3 is 0 at t = (√5.08 − 2)/1.8.
        let phi = |a: f64| (a - 1.0).powi(2) + 0.3 * ((a - 1.0).powi(3) - (a - 1.0));
        let found = search(phi, 1.0, 10.0, 60);
        let exact = 1.0 + (5.08f64.sqrt() - 2.0) / 1.8;
        assert!((found.alpha / exact - 1.0).abs() < 0.01, "{found:?}");
    }

    fn informed(f: impl Fn(f64) -> f64, derivatives: (f64, f64), start: f64, cap: f64) -> Minimum {
        let derivatives = Some((derivatives.0, Some(derivatives.1)));
        let line = Line { at_zero: f(0.0), derivatives, start, cap, budget: 5 };
        first_minimum(line, |a| Ok::<_, ()>(f(a))).unwrap()
    }

    #[test]
    fn derivatives_reduce_evaluations() {
        let found = informed(|a| (a - 1.0).powi(2), (-2.0, 2.0), 0.6, 9.0);
        assert!((found.alpha - 1.0).abs() < 0.01 && found.evaluations == 2, "{found:?}");
        // φ = exp(2α) − 4α, φ′(0) = −2, φ″(0) = 4: the parabola's minimum is 0.5, the true one
        // ln(2)/2.
        for (start, most) in [(0.5, 3), (0.3, 3), (0.1, 4), (2.0, 5)] {
            let found = informed(|a| (2.0 * a).exp() - 4.0 * a, (-2.0, 4.0), start, 10.0);
            assert!((found.alpha / (2f64.ln() / 2.0) - 1.0).abs() < 0.01, "{start} {found:?}");
            assert!(found.evaluations <= most, "{start} {found:?}");
        }
        // φ = −sin α: the first minimum is π/2, even if a later one is near the start.
        let found = informed(|a| -a.sin(), (-1.0, 0.0), 1.0, 10.0);
        assert!((found.alpha / std::f64::consts::FRAC_PI_2 - 1.0).abs() < 0.02, "{found:?}");
    }

    #[test]
    fn a_slope_alone_confirms_a_good_start() {
        let with = |f: &dyn Fn(f64) -> f64, slope: f64, start: f64| {
            let derivatives = Some((slope, None));
            let line = Line { at_zero: f(0.0), derivatives, start, cap: 9.0, budget: 5 };
            first_minimum(line, |a| Ok::<_, ()>(f(a))).unwrap()
        };
        let parabola = |a: f64| (a - 1.0).powi(2);
        for (start, most) in [(1.0, 2), (0.7, 2), (1.4, 2), (4.0, 2)] {
            let found = with(&parabola, -2.0, start);
            assert!((found.alpha - 1.0).abs() < 0.01 && found.evaluations <= most, "{found:?}");
        }
        // φ = exp(2α) − 4α: minimum at ln(2)/2 = 0.35.
        // At 0.382, the parabola through this point alone has its minimum there.
        for start in [0.35, 0.3, 0.382, 0.42, 0.6] {
            let found = with(&|a| (2.0 * a).exp() - 4.0 * a, -2.0, start);
            assert!((found.alpha / (2f64.ln() / 2.0) - 1.0).abs() < 0.01, "{start} {found:?}");
            assert!(found.evaluations <= if start < 0.5 { 3 } else { 5 }, "{start} {found:?}");
        }
    }

    #[test]
    fn no_point_is_evaluated_twice() {
        // Σ log(1 + exp(x + y α)) is convex. Its polynomials circle around the minimum without end.
        for (terms, bent) in [
            (&[(6.0, -2.0), (-6.0, -8.0), (-6.0, 2.0)][..], true),
            (&[(6.0, -4.0), (-5.0, 1.0), (5.0, -3.0)], true),
            (&[(6.0, -7.0), (-6.0, 9.0), (2.0, 7.0)], false),
        ] {
            let phi = |a: f64| terms.iter().map(|(x, y)| (x + y * a).exp().ln_1p()).sum::<f64>();
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let slope = |a: f64| terms.iter().map(|(x, y)| y * sigmoid(x + y * a)).sum::<f64>();
            let bend: f64 =
                terms.iter().map(|(x, y)| y * y * sigmoid(*x) * (1.0 - sigmoid(*x))).sum();
            let (mut low, mut high) = (0.0, 100.0);
            for _ in 0..60 {
                let mid = 0.5 * (low + high);
                if slope(mid) < 0.0 { low = mid } else { high = mid }
            }
            let line = Line {
                at_zero: phi(0.0),
                derivatives: Some((slope(0.0), bent.then_some(bend))),
                start: 0.6 * -slope(0.0) / bend,
                cap: 100.0,
                budget: 60,
            };
            let mut seen: Vec<f64> = Vec::new();
            let found = first_minimum(line, |a| {
                seen.push(a);
                Ok::<_, ()>(phi(a))
            })
            .unwrap();
            assert!((found.alpha / low - 1.0).abs() < 0.01, "{low} {found:?}");
            assert!(seen.len() == found.evaluations && seen.len() <= 12, "{seen:?}");
            seen.sort_by(f64::total_cmp);
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
        }
    }

    #[test]
    fn falls_back_to_bracketing_if_the_polynomial_fails() {
        let falls = informed(|a| -a, (-1.0, 0.0), 1.0, 5.0);
        assert_eq!((falls.alpha, falls.capped), (5.0, true));
        let overflows = informed(
            |a| if a > 0.3 { f64::NAN } else { (a - 0.2).powi(2) - 0.04 },
            (-0.4, 2.0),
            4.0,
            10.0,
        );
        assert!(overflows.value < -0.03 && overflows.alpha < 0.3, "{overflows:?}");
        let rises = informed(|a| a, (-1.0, 1.0), 1.0, 5.0);
        assert_eq!((rises.alpha, rises.value), (0.0, 0.0));
    }

    #[test]
    fn stops_at_the_cap_if_the_loss_only_falls() {
        let found = search(|a| -a, 1.0, 5.0, 60);
        assert_eq!((found.alpha, found.capped), (5.0, true));
    }

    #[test]
    fn finds_a_minimum_below_the_cap() {
        let found = search(|a| (a - 0.4).powi(2), 3.0, 0.5, 60);
        assert!((found.alpha - 0.4).abs() < 0.01 && !found.capped, "{found:?}");
    }

    #[test]
    fn does_not_move_if_the_loss_only_rises() {
        let found = search(|a| a, 1.0, 5.0, 8);
        assert_eq!((found.alpha, found.value, found.evaluations), (0.0, 0.0, 32));
    }

    #[test]
    fn treats_overflowing_losses_as_high() {
        let f = |a: f64| if a > 0.3 { f64::NAN } else { (a - 0.2).powi(2) };
        let found = search(f, 4.0, 10.0, 60);
        assert!((found.alpha - 0.2).abs() < 0.002, "{found:?}");
    }
}
