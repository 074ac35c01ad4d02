//! Where the validation images come from.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the validation images V come from.
///
/// Reports store its text, such as `half of test, seed 0`, which can be parsed again. A fraction is
/// written as a percentage with at most six decimals.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ValOrigin {
    /// There are no validation images.
    #[default]
    None,
    /// The option `val_data`.
    ValData(PathBuf),
    /// The split `val` of the data.
    SplitVal(PathBuf),
    /// The only split of the data.
    OnlySplit,
    /// Held out of the training split, as `val_from_train` asks.
    Train {
        /// Seed of the split.
        seed: u64,
        /// Fraction held out.
        fraction: f64,
    },
    /// Held out of the training split when the checkpoint was fine-tuned.
    Finetune {
        /// Seed of the split.
        seed: u64,
        /// Fraction held out.
        fraction: f64,
    },
    /// Half of the test split; the other half is the test split.
    HalfOfTest {
        /// Seed of the split.
        seed: u64,
    },
}

/// A fraction as a percentage.
pub(super) fn percent(fraction: f64) -> String {
    // Six decimals hide the rounding of 0.07 × 100; trailing zeros are cut.
    let text = format!("{:.6}", fraction * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

impl fmt::Display for ValOrigin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ValOrigin::None => f.write_str("none"),
            ValOrigin::ValData(path) => write!(f, "`val_data` {}", path.display()),
            ValOrigin::SplitVal(path) => write!(f, "{}, split val", path.display()),
            ValOrigin::OnlySplit => f.write_str("the data given"),
            ValOrigin::Train { seed, fraction } => {
                write!(f, "held out of train, seed {seed}, {}", percent(*fraction))
            }
            ValOrigin::Finetune { seed, fraction } => {
                write!(f, "held out by finetune, seed {seed}, {}", percent(*fraction))
            }
            ValOrigin::HalfOfTest { seed } => write!(f, "half of test, seed {seed}"),
        }
    }
}

impl FromStr for ValOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seed = |text: &str| text.parse::<u64>().ok();
        let held_out = |text: &str| -> Option<(u64, f64)> {
            let (of, share) = text.split_once(", ")?;
            let share: f64 = share.strip_suffix('%')?.parse().ok()?;
            Some((seed(of)?, share / 100.0))
        };
        let found = match text {
            "none" => Some(ValOrigin::None),
            "the data given" => Some(ValOrigin::OnlySplit),
            _ => {
                if let Some(of) = text.strip_prefix("half of test, seed ") {
                    seed(of).map(|seed| ValOrigin::HalfOfTest { seed })
                } else if let Some(of) = text.strip_prefix("held out of train, seed ") {
                    held_out(of).map(|(seed, fraction)| ValOrigin::Train { seed, fraction })
                } else if let Some(of) = text.strip_prefix("held out by finetune, seed ") {
                    held_out(of).map(|(seed, fraction)| ValOrigin::Finetune { seed, fraction })
                } else if let Some(path) = text.strip_prefix("`val_data` ") {
                    Some(ValOrigin::ValData(path.into()))
                } else {
                    text.strip_suffix(", split val").map(|path| ValOrigin::SplitVal(path.into()))
                }
            }
        };
        found.ok_or_else(|| {
            format!("expected where V comes from, such as half of test, seed 0; found {text}")
        })
    }
}

impl Serialize for ValOrigin {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ValOrigin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_can_be_read_again() {
        let (seed, fraction) = (3, 0.07);
        for (origin, text) in [
            (ValOrigin::None, "none"),
            (ValOrigin::ValData("a, b".into()), "`val_data` a, b"),
            (ValOrigin::SplitVal("data".into()), "data, split val"),
            (ValOrigin::OnlySplit, "the data given"),
            (ValOrigin::Train { seed, fraction }, "held out of train, seed 3, 7%"),
            (ValOrigin::Finetune { seed, fraction }, "held out by finetune, seed 3, 7%"),
            (ValOrigin::HalfOfTest { seed }, "half of test, seed 3"),
        ] {
            assert_eq!(origin.to_string(), text);
            assert_eq!(text.parse(), Ok(origin));
        }
        assert!("half of test, seed x".parse::<ValOrigin>().is_err());
        assert!("elsewhere".parse::<ValOrigin>().is_err());
    }
}
