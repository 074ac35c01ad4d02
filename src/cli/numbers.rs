//! Numbers on the command line, checked as they are read.

use std::ops::Range;

/// `A..B`, A included, B not, A less than B.
pub fn range(text: &str) -> Result<Range<usize>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| a.parse().ok().zip(b.parse().ok()));
    match ends {
        Some((from, to)) if from < to => Ok(from..to),
        _ => Err("expected A..B with A less than B, as in 0..12000".into()),
    }
}

fn number_that(text: &str, holds: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && holds(*x));
    number.ok_or_else(|| format!("expected {expected}"))
}

/// A number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    number_that(text, |x| x > 0.0, "a number above 0")
}

/// A number from 0.
pub fn not_negative(text: &str) -> Result<f64, String> {
    number_that(text, |x| x >= 0.0, "a number from 0")
}

/// A number in [0, 1).
pub fn share(text: &str) -> Result<f64, String> {
    number_that(text, |x| (0.0..1.0).contains(&x), "a number from 0 to less than 1")
}

/// A number in (0, 1].
pub fn up_to_one(text: &str) -> Result<f64, String> {
    number_that(text, |x| x > 0.0 && x <= 1.0, "a number above 0 and at most 1")
}

/// `5%` or `0.05`, above 0 and below 1.
pub fn percent(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), 100.0),
        None => (text, 1.0),
    };
    let expected = "a share between 0 and 1, as in 5% or 0.05";
    number_that(number, |x| x > 0.0 && x < unit, expected).map(|x| x / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_something() {
        assert_eq!(range("0..12000"), Ok(0..12000));
        assert!(["", "5", "5..5", "6..5", "-1..5", "a..b"].iter().all(|text| range(text).is_err()));
    }

    #[test]
    fn numbers_are_finite_and_in_their_range() {
        assert_eq!((positive("0.1"), not_negative("0"), share("0.9")), (Ok(0.1), Ok(0.0), Ok(0.9)));
        assert!(positive("0").is_err() && positive("inf").is_err() && positive("x").is_err());
        assert!(not_negative("-1").is_err() && not_negative("NaN").is_err());
        assert_eq!((percent("5%"), percent("0.05"), up_to_one("1")), (Ok(0.05), Ok(0.05), Ok(1.0)));
        assert!(["0", "0%", "100%", "1", "5 %%", "x"].iter().all(|t| percent(t).is_err()));
        assert!(up_to_one("0").is_err() && up_to_one("1.1").is_err());
        assert!(share("1").is_err() && share("-0.1").is_err());
    }
}
