//! Flags of the methods: all options of all methods, each optional.

use planish::options::Error;
use planish::options::text::count;
use planish::train::perturbation::StepRule;
use planish::train::{MethodName, MethodOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Options of all methods. A method rejects options that it does not use.
#[derive(clap::Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Method options")]
pub struct MethodArgs {
    /// Layer that PoL perturbs [default: the plan's]
    #[arg(long, value_name = "L")]
    pub perturb: Option<String>,
    /// Layers to update [default: the plan's; all for SAM and variants]
    #[arg(long, value_name = "L")]
    pub update: Option<String>,
    /// Images in B′, the perturbation batch of PoL and PoF [default: 256]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub perturb_batch: Option<usize>,
    /// Γ of PoL and PoF: scale of the perturbation. [default: 2]
    ///
    /// The perturbation is γ times the step to the loss minimum, with γ drawn from U(0, Γ) at each
    /// step.
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    pub gamma: Option<f64>,
    /// How PoL and PoF find the step [default: search; newton below the last block]
    #[arg(long, value_enum, hide_short_help = true)]
    pub step: Option<StepRule>,
    /// ρ: length of SAM's ascent step [default: 0.05; 0.5 for asam, sam-norm]
    #[arg(long, value_name = "RHO", allow_negative_numbers = true)]
    pub rho: Option<f64>,
    /// η of asam, added to |w| [default: 0.01]
    #[arg(long, hide_short_help = true, value_name = "ETA", allow_negative_numbers = true)]
    pub asam_eta: Option<f64>,
    /// Take looksam's ascent step every K steps [default: 5]
    #[arg(
        long, hide_short_help = true, value_name = "K", value_parser = count, allow_negative_numbers = true
    )]
    pub look_every: Option<usize>,
    /// Weight of looksam's stored gradient part between ascent steps [default: 0.7]
    #[arg(long, hide_short_help = true, value_name = "ALPHA", allow_negative_numbers = true)]
    pub look_alpha: Option<f64>,
}

impl MethodArgs {
    /// The flags given, by option name.
    pub fn given(&self) -> Map<String, Value> {
        let all = serde_json::to_value(self).ok();
        let all = all.and_then(|all| all.as_object().cloned()).unwrap_or_default();
        all.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// The flags that a method uses.
    pub fn of(&self, name: MethodName) -> Self {
        let own = name.options();
        let given = self.given().into_iter().filter(|(key, _)| own.contains(key)).collect();
        serde_json::from_value(Value::Object(given)).unwrap_or_default()
    }

    /// The method with these options.
    ///
    /// # Errors
    /// An option that the method does not use, or a value out of range.
    pub fn method(&self, name: MethodName) -> Result<MethodOptions, Error> {
        MethodOptions::new(name, &self.given())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_a_method_is_a_flag() {
        let flags: Vec<String> = serde_json::to_value(MethodArgs::default())
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let mut options: Vec<String> = MethodName::ALL.iter().flat_map(|m| m.options()).collect();
        assert!(options.iter().all(|option| flags.contains(option)), "{options:?}");
        options.sort();
        options.dedup();
        assert_eq!(options.len(), flags.len());
    }
}
