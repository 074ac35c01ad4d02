//! Human-readable numbers.

use crate::evaluate::{Effect, Estimate};

/// Shown for a missing value.
pub const ABSENT: &str = "–";

/// A value with its standard error, to two significant digits of the error: `0.789 ± 0.011`.
/// Without an error, to four significant digits.
pub fn estimate(figure: Estimate) -> String {
    match figure.stderr {
        Some(stderr) if stderr > 0.0 && stderr.is_finite() && figure.mean.is_finite() => {
            let places = decimals(stderr, 2);
            format!("{} ± {stderr:.places$}", unsigned_zero(figure.mean, places))
        }
        _ => number(figure.mean),
    }
}

/// An effect with its 95% interval, to two significant digits of its standard error:
/// `0.012 (0.003 to 0.021)`. Without an interval, to four significant digits.
pub fn effect(effect: &Effect) -> String {
    in_units(effect, 1.0, 0)
}

/// An effect that is a share, in percentage points without a unit: `-0.2 (-1.1 to 0.7)`.
pub fn effect_in_points(effect: &Effect) -> String {
    in_units(effect, 100.0, 1)
}

/// See [`effect`], times `unit`, with at least this many decimals.
fn in_units(effect: &Effect, unit: f64, least: usize) -> String {
    let (mean, stderr) = (unit * effect.mean, effect.stderr.map(|stderr| unit * stderr));
    match (stderr, effect.interval) {
        (Some(stderr), Some([low, high])) if stderr > 0.0 && stderr.is_finite() => {
            let places = decimals(stderr, 2).max(least);
            let [mean, low, high] =
                [mean, unit * low, unit * high].map(|x| unsigned_zero(x, places));
            format!("{mean} ({low} to {high})")
        }
        _ => number(mean),
    }
}

/// `1 image`, `5,000 images`.
pub fn images(n: usize) -> String {
    match n {
        1 => "1 image".into(),
        n => format!("{} images", count(n as u64)),
    }
}

/// `1 epoch`, `10 epochs`.
pub fn epochs(n: usize) -> String {
    match n {
        1 => "1 epoch".into(),
        n => format!("{} epochs", count(n as u64)),
    }
}

/// `1 step`, `5,000 steps`.
pub fn steps(n: usize) -> String {
    match n {
        1 => "1 step".into(),
        n => format!("{} steps", count(n as u64)),
    }
}

/// A number to four significant digits; very large and very small ones as `1.234e-7`.
pub fn number(x: f64) -> String {
    if !x.is_finite() {
        ABSENT.into()
    } else if x == 0.0 {
        "0".into()
    } else if x.abs() < 1e-4 || x.abs() >= 1e7 {
        format!("{x:.3e}")
    } else {
        unsigned_zero(x, decimals(x, 4))
    }
}

/// [`number`], or a dash.
pub fn optional(x: Option<f64>) -> String {
    x.map_or_else(|| ABSENT.into(), number)
}

/// A share as a percentage: `83.4%`. A share that would round to zero is shown to its first digit,
/// `0.03%`, or as `< 0.001%`.
pub fn percent(share: f64) -> String {
    let x = 100.0 * share;
    if !x.is_finite() {
        ABSENT.into()
    } else if x == 0.0 || x.abs() >= 0.05 {
        format!("{x:.1}%", x = x + 0.0)
    } else if x.abs() >= 0.001 {
        format!("{x:.*}%", decimals(x, 1))
    } else if x > 0.0 {
        "< 0.001%".into()
    } else {
        "> -0.001%".into()
    }
}

/// A share with its standard error, as percentages: `83.4% ± 0.5%`, with more decimals if the error
/// needs them, `99.981% ± 0.014%`.
pub fn share(figure: Estimate) -> String {
    match figure.stderr {
        Some(stderr) if stderr > 0.0 && stderr.is_finite() && figure.mean.is_finite() => {
            let (mean, stderr) = (100.0 * figure.mean, 100.0 * stderr);
            let places = if stderr < 0.05 { decimals(stderr, 2) } else { 1 };
            format!("{}% ± {stderr:.places$}%", unsigned_zero(mean, places))
        }
        _ => percent(figure.mean),
    }
}

/// A count with thousands separators: `85,875,556`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration: `0.41 s`, `12.3 s`, `4 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    if !(0.0..1e9).contains(&seconds) {
        return ABSENT.into();
    }
    let whole = seconds.round() as u64;
    match whole {
        3600.. => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        60.. => format!("{} min {:02} s", whole / 60, whole % 60),
        _ if seconds < 10.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.1} s"),
    }
}

/// Decimal places needed to show `digits` significant digits of `x`; at least 0.
fn decimals(x: f64, digits: i32) -> usize {
    // Read the exponent after rounding, so that 0.0996 to two digits is 0.10, not 0.100.
    let text = format!("{:.*e}", (digits - 1).max(0) as usize, x.abs());
    let exponent = text.split('e').nth(1).and_then(|e| e.parse::<i32>().ok()).unwrap_or(0);
    (digits - 1 - exponent).clamp(0, 300) as usize
}

/// Fixed decimals, never `-0.00`.
pub fn unsigned_zero(x: f64, places: usize) -> String {
    let text = format!("{x:.places$}");
    let zero = text.bytes().all(|b| !b.is_ascii_digit() || b == b'0');
    if zero { text.trim_start_matches('-').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mean: f64, stderr: f64) -> String {
        estimate(Estimate { mean, stderr: Some(stderr) })
    }

    #[test]
    fn errors_have_two_digits_and_set_the_decimals() {
        assert_eq!(of(0.78912, 0.01134), "0.789 ± 0.011");
        assert_eq!(of(0.78912, 0.0996), "0.79 ± 0.10");
        assert_eq!(of(1234.5, 321.0), "1234 ± 321");
        assert_eq!(of(-0.0001, 0.02), "0.000 ± 0.020");
        assert_eq!(of(-0.024, 0.017), "-0.024 ± 0.017");
        assert_eq!(of(0.5, 0.0), "0.5000");
        assert_eq!(estimate(Estimate { mean: 2.0 / 3.0, stderr: None }), "0.6667");
        assert_eq!(of(f64::NAN, 0.1), ABSENT);
    }

    #[test]
    fn effects_have_the_digits_of_their_error() {
        let found = Effect {
            mean: 0.0123,
            stderr: Some(0.0041),
            degrees_of_freedom: Some(4.0),
            interval: Some([0.00092, 0.02368]),
            smallest_visible: None,
            equivalence_p: None,
            verdict: None,
        };
        assert_eq!(effect(&found), "0.0123 (0.0009 to 0.0237)");
        assert_eq!(effect_in_points(&found), "1.23 (0.09 to 2.37)");
        assert_eq!(effect(&Effect { interval: None, ..found }), "0.01230");
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!(
            [0.0, 3.0, -12.34567, 99999.6, 0.00098765].map(number).join(" "),
            "0 3.000 -12.35 100000 0.0009877"
        );
        assert_eq!([1.5e-9, -2e12, f64::INFINITY].map(number).join(" "), "1.500e-9 -2.000e12 –");
        assert_eq!((optional(None), optional(Some(0.25))), (ABSENT.into(), "0.2500".into()));
    }

    #[test]
    fn counts_shares_and_times() {
        assert_eq!([0, 999, 1000, 85_875_556].map(count).join(" "), "0 999 1,000 85,875,556");
        assert_eq!((percent(0.8344), percent(f64::NAN)), ("83.4%".into(), ABSENT.into()));
        // A non-zero share is never shown as zero.
        assert_eq!(
            [0.0, -0.0, 0.0006, 0.00032, -0.0001, 1e-7, -1e-9].map(percent).join(" "),
            "0.0% 0.0% 0.1% 0.03% -0.01% < 0.001% > -0.001%"
        );
        let with = |mean, stderr| share(Estimate { mean, stderr: Some(stderr) });
        assert_eq!(
            [with(0.8344, 0.0052), with(0.99981, 0.00014), with(1.0, 0.0)].join(" "),
            "83.4% ± 0.5% 99.981% ± 0.014% 100.0%"
        );
        let times = [0.412, 12.34, 59.7, 245.0, 7620.0, f64::NAN, -1.0].map(duration);
        assert_eq!(
            times.join(" | "),
            "0.41 s | 12.3 s | 1 min 00 s | 4 min 05 s | 2 h 07 min | – | –"
        );
    }
}
