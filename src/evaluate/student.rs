//! Student's t distribution with any number of degrees of freedom above 0.

/// P(T ≤ t) for `df` degrees of freedom.
///
/// With x = ν/(ν + t²), P(|T| > |t|) is the regularised incomplete beta function I_x(ν/2, 1/2)
/// (Abramowitz and Stegun, 26.7.1). NaN for a NaN or for `df` ≤ 0.
pub fn student_cdf(t: f64, df: f64) -> f64 {
    if t.is_nan() || df.is_nan() || df <= 0.0 {
        return f64::NAN;
    }
    let tail = 0.5 * both_tails(t.abs(), df);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// P(T > t), accurate also where it is tiny.
pub fn student_tail(t: f64, df: f64) -> f64 {
    student_cdf(-t, df)
}

/// The t with P(T ≤ t) = `share`, for `share` between 0 and 1; NaN otherwise.
pub fn student_quantile(share: f64, df: f64) -> f64 {
    let valid = (0.0..=1.0).contains(&share) && df > 0.0;
    if !valid {
        return f64::NAN;
    }
    if share == 0.5 {
        return 0.0;
    }
    let tail = share.min(1.0 - share);
    if tail == 0.0 {
        return if share > 0.5 { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    // The tail falls in t, so doubling finds a bracket, which is then halved to the last bits.
    let (mut low, mut high) = (0.0, 1.0);
    while student_tail(high, df) > tail && high < 1e300 {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle == low || middle == high {
            break;
        }
        if student_tail(middle, df) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    let t = 0.5 * (low + high);
    if share > 0.5 { t } else { -t }
}

/// P(|T| > t) for t ≥ 0.
fn both_tails(t: f64, df: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    // Where x is above the mean of the beta distribution, its complement converges faster.
    let square = t * t;
    let (x, rest) = (df / (df + square), square / (df + square));
    let (a, b) = (0.5 * df, 0.5);
    match x < (a + 1.0) / (a + b + 2.0) {
        true => incomplete_beta(x, rest, a, b),
        false => 1.0 - incomplete_beta(rest, x, b, a),
    }
}

/// I_x(a, b) by its continued fraction (Abramowitz and Stegun, 26.5.8), evaluated by Lentz's method.
/// `rest` is 1 − x, given apart because the difference would lose digits.
fn incomplete_beta(x: f64, rest: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let ln = libm::lgamma;
    let front = ln(a + b) - ln(a) - ln(b) + a * x.ln() + b * rest.ln();
    let kept = |x: f64| if x.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { x };
    let (mut c, mut d) = (1.0, 1.0 / kept(1.0 - (a + b) * x / (a + 1.0)));
    let mut value = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = value;
        for term in [even, odd] {
            d = 1.0 / kept(1.0 + term * d);
            c = kept(1.0 + term / c);
            value *= c * d;
        }
        if (value - before).abs() <= 1e-16 * value.abs() {
            break;
        }
    }
    front.exp() * value / a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/reference/make_effects.py` wrote, by SciPy.
    #[derive(serde::Deserialize)]
    struct Reference {
        student: Vec<Row>,
    }

    #[derive(serde::Deserialize)]
    struct Row {
        df: f64,
        share: f64,
        quantile: f64,
        t: f64,
        cdf: f64,
        tail: f64,
    }

    #[test]
    fn quantiles_and_tails_equal_scipy() {
        let text = include_str!("../../tests/reference/effects.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        assert!(reference.student.len() > 30);
        for row in reference.student {
            // lgamma of large arguments loses some digits: 1e-16 times its value, about 1e4.
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-11 * b.abs();
            let found = student_quantile(row.share, row.df);
            assert!(close(found, row.quantile), "{} {}: {found}", row.df, row.share);
            let found = student_cdf(row.t, row.df);
            assert!(close(found, row.cdf), "{} {}: {found}", row.df, row.t);
            let found = student_tail(row.t, row.df);
            assert!(close(found, row.tail), "{} {}: {found}", row.df, row.t);
        }
    }

    #[test]
    fn one_and_two_degrees_of_freedom_have_closed_forms() {
        for t in [0.0, 0.3, 1.0, 4.0, 100.0] {
            let cauchy = 0.5 - f64::atan(t) / std::f64::consts::PI;
            let two = 0.5 - t / (2.0 * (2.0 + t * t).sqrt());
            assert!((student_tail(t, 1.0) - cauchy).abs() < 1e-15);
            assert!((student_tail(t, 2.0) - two).abs() < 1e-15);
        }
        assert_eq!(
            (student_cdf(f64::INFINITY, 3.0), student_cdf(f64::NEG_INFINITY, 3.0)),
            (1.0, 0.0)
        );
        assert_eq!((student_quantile(0.5, 3.0), student_quantile(1.0, 3.0)), (0.0, f64::INFINITY));
        assert!(student_quantile(1.5, 3.0).is_nan() && student_cdf(1.0, 0.0).is_nan());
    }
}
