//! Options as text: how the command line and study files write them.
//!
//! [`as_text`] makes serde read and write a type in its command-line form.

use bytesize::ByteSize;
use std::ops::Range;
use std::time::Duration;

/// Parses `A..B`, a half-open range with A < B.
pub fn range(text: &str) -> Result<Range<usize>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| a.parse().ok().zip(b.parse().ok()));
    match ends {
        Some((from, to)) if from < to => Ok(from..to),
        _ => Err("expected A..B with A less than B, as in 0..12000".into()),
    }
}

/// Parses a whole number from 1.
pub fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&n: &usize| n > 0);
    number.ok_or_else(|| "expected a whole number from 1".into())
}

/// Parses `on` or `off`.
pub fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".into()),
    }
}

fn number_that(text: &str, holds: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && holds(*x));
    number.ok_or_else(|| format!("expected {expected}"))
}

/// Parses `5%` or `0.05`, above 0 and below 1.
pub fn percent(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), 100.0),
        None => (text, 1.0),
    };
    let expected = "a share between 0 and 1, as in 5% or 0.05";
    number_that(number, |x| x > 0.0 && x < unit, expected).map(|x| x / unit)
}

/// Parses a number of days, at least 0.
pub fn days(text: &str) -> Result<Duration, String> {
    let expected = "a number of days from 0 to 1000000";
    let days = number_that(text, |x| (0.0..=1e6).contains(&x), expected)?;
    Ok(Duration::from_secs_f64(86_400.0 * days))
}

/// Parses a time with its unit, as in `90s`, `10m` or `1.5h`, as seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    let expected = "a time above 0 with its unit, as in 90s, 10m or 2h";
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0)];
    let found = units.iter().find_map(|(unit, n)| text.strip_suffix(*unit).map(|x| (x, n)));
    let (number, unit) = found.ok_or_else(|| format!("expected {expected}"))?;
    number_that(number.trim(), |x| x > 0.0 && x < 1e6, expected).map(|x| x * unit)
}

/// Parses bytes with a unit, at least 1 MiB, since a bare `4` would mean four bytes.
pub fn memory(text: &str) -> Result<ByteSize, String> {
    let size = text.parse().ok().filter(|size: &ByteSize| size.as_u64() >= 1 << 20);
    size.ok_or_else(|| "expected at least 1MiB, with its unit, as in 4GiB".into())
}

/// Parses `28` or `32x28` (height first).
pub fn size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.trim().parse().ok().filter(|&n: &usize| n > 0);
    let pair = match text.split_once(['x', '×']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|n| (n, n)),
    };
    let (height, width) = pair.ok_or("expected pixels, as in 224 or 224x192 (height first)")?;
    Ok([height, width])
}

/// For `#[serde(with = "…")]`: a value in its `Display` and `FromStr` form. Numbers are also
/// accepted, so that a study file may say `resize = 256`.
pub mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Text {
        Given(String),
        Whole(u64),
        Number(f64),
    }

    impl Display for Text {
        fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            match self {
                Text::Given(text) => f.write_str(text),
                Text::Whole(number) => write!(f, "{number}"),
                Text::Number(number) => write!(f, "{number}"),
            }
        }
    }

    /// Writes the text.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    /// Reads the text.
    ///
    /// # Errors
    /// A text that `FromStr` rejects.
    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        Text::deserialize(from)?.to_string().parse().map_err(D::Error::custom)
    }

    /// The same for an optional value.
    pub mod option {
        use super::*;

        /// Writes the text, or null.
        ///
        /// # Errors
        /// The serializer's.
        pub fn serialize<T: Display, S: Serializer>(
            value: &Option<T>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => to.collect_str(value),
                None => to.serialize_none(),
            }
        }

        /// Reads the text, or null.
        ///
        /// # Errors
        /// A text that `FromStr` rejects.
        pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
        where
            T: FromStr,
            T::Err: Display,
            D: Deserializer<'de>,
        {
            let text = Option::<Text>::deserialize(from)?;
            text.map(|text| text.to_string().parse()).transpose().map_err(D::Error::custom)
        }
    }
}

/// For `#[serde(with = "…")]`: height and width, as text for [`size`] or as a pair.
pub mod as_size {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Pair([usize; 2]),
        Text(super::as_text::Text),
    }

    /// Writes the pair, or null.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(value: &Option<[usize; 2]>, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    /// Reads a pair, a number or a text.
    ///
    /// # Errors
    /// Anything else.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[usize; 2]>, D::Error> {
        Ok(match Option::<Size>::deserialize(from)? {
            None => None,
            Some(Size::Pair(pair)) => Some(pair),
            Some(Size::Text(text)) => {
                Some(super::size(&text.to_string()).map_err(D::Error::custom)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_not_empty() {
        assert_eq!(range("0..12000"), Ok(0..12000));
        assert!(["", "5", "5..5", "6..5", "-1..5", "a..b"].iter().all(|text| range(text).is_err()));
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(memory("4GiB"), Ok(ByteSize::gib(4)));
        assert_eq!(memory("1048576"), Ok(ByteSize::mib(1)));
        let message = memory("4").unwrap_err();
        assert!(message.contains("4GiB"), "{message}");
        assert!(["1023KiB", "much", "-4GiB"].iter().all(|text| memory(text).is_err()));
    }

    #[test]
    fn numbers_are_finite_and_in_their_range() {
        assert_eq!((percent("5%"), percent("0.05")), (Ok(0.05), Ok(0.05)));
        assert!(["0", "0%", "100%", "1", "5 %%", "x"].iter().all(|t| percent(t).is_err()));
    }

    #[test]
    fn counts_are_at_least_one() {
        assert_eq!((count("1"), count("512")), (Ok(1), Ok(512)));
        assert!(["", "0", "-8", "1.5", "x"].iter().all(|text| count(text).is_err()));
    }

    #[test]
    fn image_sizes_are_read() {
        assert_eq!(size("28"), Ok([28, 28]));
        assert_eq!(size("32x28"), Ok([32, 28]));
        assert!(["", "0", "x", "28x", "-1", "28x0"].iter().all(|text| size(text).is_err()));
    }
}
