//! Options of low-rank adapters.

use crate::options::{Error, check};
use serde::{Deserialize, Serialize};

/// Options of low-rank adapters. They are flags of `finetune`, and options of the method `sgd`: flags of
/// `post-train` and `bench`, keys of a study's `grid`, and columns of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Adapter options"))]
pub struct LoraOptions {
    /// Train LoRA adapters of rank R and the head; all other weights are frozen
    #[cfg_attr(feature = "cli", arg(
        long = "lora", value_name = "R", value_parser = crate::options::text::count,
        allow_negative_numbers = true
    ))]
    pub lora: Option<usize>,
    /// α: the adapter is scaled by α/R [default: R]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "A", allow_negative_numbers = true, hide_short_help = true)
    )]
    pub lora_alpha: Option<f64>,
    /// Scale by α/√R (rank-stabilised LoRA)
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub rslora: bool,
    /// Also train the norm of each row of the adapted weights (DoRA)
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub dora: bool,
    /// Linear layers with adapters: qkv, proj, fc1, fc2, or the library's own names such as query,
    /// comma-separated [default: all]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "LIST", value_delimiter = ',', hide_short_help = true)
    )]
    pub targets: Option<Vec<String>>,
    /// Also freeze the head
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub freeze_head: bool,
    /// Write a whole checkpoint with the adapters merged, instead of peft's adapter folder
    #[cfg_attr(feature = "cli", arg(long, hide_short_help = true))]
    pub merge: bool,
}

impl LoraOptions {
    /// `LoRA 8` or `DoRA 8`, for tables; `None` without adapters.
    pub fn title(&self) -> Option<String> {
        let kind = if self.dora { "DoRA" } else { "LoRA" };
        self.lora.map(|rank| format!("{kind} {rank}"))
    }

    /// Whether the result is a whole checkpoint: there are no adapters, or they are merged.
    pub fn writes_checkpoint(&self) -> bool {
        self.lora.is_none() || self.merge
    }

    /// α.
    pub fn alpha(&self, rank: usize) -> f64 {
        self.lora_alpha.unwrap_or(rank as f64)
    }

    /// Rejects values out of range and options without effect.
    ///
    /// # Errors
    /// The first such option.
    pub fn check(&self) -> Result<(), Error> {
        for (option, given) in [
            ("lora_alpha", self.lora_alpha.is_some()),
            ("rslora", self.rslora),
            ("dora", self.dora),
            ("targets", self.targets.is_some()),
            ("freeze_head", self.freeze_head),
            ("merge", self.merge),
        ] {
            if given && self.lora.is_none() {
                let applies_to = "adapters (`lora`)".into();
                return Err(Error::NoEffect { option: option.into(), applies_to });
            }
        }
        self.lora.map_or(Ok(()), |rank| check::count("lora", rank))?;
        self.lora_alpha.map_or(Ok(()), |alpha| check::positive("lora_alpha", alpha))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_without_a_rank_have_no_effect() {
        assert_eq!(LoraOptions::default().check(), Ok(()));
        let dora = LoraOptions { dora: true, ..LoraOptions::default() };
        assert!(matches!(dora.check(), Err(Error::NoEffect { option, .. }) if option == "dora"));
        let ranked = LoraOptions { lora: Some(4), ..dora };
        assert_eq!((ranked.check(), ranked.alpha(4)), (Ok(()), 4.0));
        assert_eq!(ranked.title().as_deref(), Some("DoRA 4"));
        assert_eq!(LoraOptions::default().title(), None);
        let negative = LoraOptions { lora_alpha: Some(-1.0), ..ranked };
        assert!(matches!(negative.check(), Err(Error::Value { .. })));
    }
}
