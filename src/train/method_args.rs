//! Options of the methods as a user gives them: all options of all methods, each optional.

use super::lora_options::LoraOptions;
use super::options::{MethodName, MethodOptions, no_effect};
use super::perturbation::{NoMinimum, StepRule};
use crate::options::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Options of the ascent step of SAM and Friendly-SAM, which fine-tuning has, too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct AscentArgs {
    /// ρ: length of SAM's ascent step [default: 0.05; 0.5 for asam, sam-norm; 0.01 for sl-sam]
    #[cfg_attr(feature = "cli", arg(long, value_name = "RHO", allow_negative_numbers = true))]
    pub rho: Option<f64>,
    /// σ of friendly-sam: weight of the moving average that is subtracted [default: 1]
    #[cfg_attr(
        feature = "cli",
        arg(long, hide_short_help = true, value_name = "SIGMA", allow_negative_numbers = true)
    )]
    pub friendly_sigma: Option<f64>,
    /// λ of friendly-sam: decay rate of the gradient's moving average [default: 0.9]
    #[cfg_attr(
        feature = "cli",
        arg(long, hide_short_help = true, value_name = "LAMBDA", allow_negative_numbers = true)
    )]
    pub friendly_lambda: Option<f64>,
}

/// Options of all methods. They are flags of `post-train` and `bench`, keys of a study's `grid`, and
/// columns of its runs. [`MethodArgs::method`] turns them into a method, which rejects options that
/// it does not read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Method options"))]
pub struct MethodArgs {
    /// Layer that PoL perturbs [default: the plan's]
    #[cfg_attr(feature = "cli", arg(long, value_name = "L"))]
    pub perturb: Option<String>,
    /// Layers to update [default: the plan's; all for SAM and variants]
    #[cfg_attr(feature = "cli", arg(long, value_name = "L"))]
    pub update: Option<String>,
    /// Images in B′, the perturbation batch of PoL and PoF [default: 256]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "N", value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub perturb_batch: Option<usize>,
    /// Γ of PoL and PoF: scale of the perturbation. [default: 2]
    ///
    /// The perturbation is γ times the step to the loss minimum, with γ drawn from U(0, Γ) at each
    /// step.
    #[cfg_attr(feature = "cli", arg(long, value_name = "G", allow_negative_numbers = true))]
    pub gamma: Option<f64>,
    /// How PoL and PoF find the step [default: search; newton below the last block]
    #[cfg_attr(feature = "cli", arg(long, value_enum, hide_short_help = true))]
    pub step: Option<StepRule>,
    /// What PoL and PoF do if the loss of B′ has no minimum along the line [default: reject]
    #[cfg_attr(feature = "cli", arg(long, value_enum, hide_short_help = true))]
    pub no_minimum: Option<NoMinimum>,
    /// Draw B′ with replacement: on, or off [default: off]
    #[cfg_attr(feature = "cli", arg(
        long, value_name = "on|off", action = clap::ArgAction::Set,
        value_parser = crate::options::text::on_off, hide_short_help = true
    ))]
    pub perturb_replacement: Option<bool>,
    /// The ascent step.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub ascent: AscentArgs,
    /// Mean fraction of tensors that sl-sam selects per step [default: 0.5]
    #[cfg_attr(
        feature = "cli",
        arg(long, hide_short_help = true, value_name = "S", allow_negative_numbers = true)
    )]
    pub active_share: Option<f64>,
    /// η of asam, added to |w| [default: 0.01]
    #[cfg_attr(
        feature = "cli",
        arg(long, hide_short_help = true, value_name = "ETA", allow_negative_numbers = true)
    )]
    pub asam_eta: Option<f64>,
    /// Take looksam's ascent step every K steps [default: 5]
    #[cfg_attr(feature = "cli", arg(
        long, hide_short_help = true, value_name = "K",
        value_parser = crate::options::text::count, allow_negative_numbers = true
    ))]
    pub look_every: Option<usize>,
    /// Weight of looksam's stored gradient part between ascent steps [default: 0.7]
    #[cfg_attr(
        feature = "cli",
        arg(long, hide_short_help = true, value_name = "ALPHA", allow_negative_numbers = true)
    )]
    pub look_alpha: Option<f64>,
    /// Low-rank adapters of the linear layers of the layers that sgd updates.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub lora: LoraOptions,
}

impl AscentArgs {
    /// This ρ.
    pub fn of_rho(rho: f64) -> Self {
        Self { rho: Some(rho), ..Self::default() }
    }
}

impl MethodArgs {
    /// The given options, by name: those that differ from the default, which is null or, for a switch, off.
    fn given(&self) -> Map<String, Value> {
        let fields = |of: &Self| match serde_json::to_value(of) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let none = fields(&Self::default());
        let own = fields(self).into_iter();
        own.filter(|(name, value)| none.get(name) != Some(value)).collect()
    }

    /// The options that a method reads.
    pub fn of(&self, name: MethodName) -> Self {
        let own = name.options();
        let given = self.given().into_iter().filter(|(key, _)| own.contains(key)).collect();
        serde_json::from_value(Value::Object(given)).unwrap_or_default()
    }

    /// Rejects options that none of these methods reads.
    ///
    /// # Errors
    /// [`Error::NoEffect`].
    pub fn check_read_by(&self, methods: &[MethodName]) -> Result<(), Error> {
        let given = self.given();
        let read = |key: &String| methods.iter().any(|m| m.options().contains(key));
        given.keys().find(|key| !read(key)).map_or(Ok(()), |key| Err(no_effect(key)))
    }

    /// The options with those of `other` in place of missing ones.
    #[must_use]
    pub fn or(&self, other: &MethodArgs) -> Self {
        let mut all = other.given();
        all.extend(self.given());
        serde_json::from_value(Value::Object(all)).unwrap_or_default()
    }

    /// The method with these options.
    ///
    /// # Errors
    /// [`Error::NoEffect`] for an option that the method does not read; [`Error::Value`] for a value
    /// out of range.
    pub fn method(&self, name: MethodName) -> Result<MethodOptions, Error> {
        self.check_read_by(&[name])?;
        let mut method = MethodOptions::default_of(name);
        for (option, value) in self.given() {
            let refused = |e: serde_json::Error| Error::value(&option, e.to_string(), &value);
            let mut fields = serde_json::to_value(&method).map_err(refused)?;
            fields[option.as_str()] = value.clone();
            method = serde_json::from_value(fields).map_err(refused)?;
        }
        method.check()?;
        Ok(method)
    }
}

impl From<&MethodOptions> for MethodArgs {
    /// All options of a method, as if a user had given each.
    fn from(method: &MethodOptions) -> Self {
        let fields = serde_json::to_value(method).unwrap_or_default();
        serde_json::from_value(fields).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::names;

    #[test]
    fn every_option_of_a_method_is_one_of_these() {
        let mut options: Vec<String> = MethodName::ALL.iter().flat_map(|m| m.options()).collect();
        options.sort();
        options.dedup();
        let mut all = names::<MethodArgs>();
        all.sort();
        assert_eq!(options, all);
    }

    #[test]
    fn methods_reject_options_of_other_methods() {
        let rho = |rho| MethodArgs { ascent: AscentArgs::of_rho(rho), ..MethodArgs::default() };
        let made = rho(1.0).method(MethodName::Asam).unwrap();
        assert_eq!(made, MethodOptions::Asam { update: None, rho: 1.0, asam_eta: 0.01 });
        let error = rho(1.0).method(MethodName::Sgd).unwrap_err();
        let text = "`rho` only applies to the methods sam, friendly-sam, sl-sam, asam, looksam, sam-norm; remove `rho`, or \
                    change the setting that it depends on";
        assert_eq!(error.to_string(), text);
        assert_eq!(rho(1.0).check_read_by(&[MethodName::Sgd, MethodName::Sam]), Ok(()));
        assert_eq!(rho(1.0).check_read_by(&[MethodName::Sgd, MethodName::Pol]), Err(error));
        let error = rho(0.0).method(MethodName::Sam).unwrap_err();
        assert_eq!(error, Error::value("rho", "a number above 0", 0));
    }

    #[test]
    fn only_sgd_has_adapters() {
        let lora = LoraOptions { lora: Some(4), rslora: true, ..LoraOptions::default() };
        let given = MethodArgs { lora: lora.clone(), ..MethodArgs::default() };
        assert_eq!(
            given.method(MethodName::Sgd),
            Ok(MethodOptions::Sgd { update: None, lora: lora.clone() })
        );
        let error = given.method(MethodName::Pol).unwrap_err().to_string();
        assert!(error.starts_with("`lora` only applies to the method sgd"), "{error}");
        assert_eq!(given.of(MethodName::Sam), MethodArgs::default());
        let switch = LoraOptions { lora: None, ..lora };
        let error = MethodArgs { lora: switch, ..MethodArgs::default() }.method(MethodName::Sgd);
        let applies_to = "adapters (`lora`)".into();
        assert_eq!(error, Err(Error::NoEffect { option: "rslora".into(), applies_to }));
    }

    #[test]
    fn a_method_takes_only_its_options() {
        let all = MethodArgs {
            update: Some("norm".into()),
            gamma: Some(1.0),
            ascent: AscentArgs::of_rho(0.1),
            ..MethodArgs::default()
        };
        let own = MethodArgs { gamma: None, ..all.clone() };
        assert_eq!(all.of(MethodName::Sam), own);
        let sgd = all.of(MethodName::Sgd).method(MethodName::Sgd);
        assert_eq!(sgd, Ok(MethodOptions::sgd("norm")));
    }

    #[test]
    fn a_method_is_the_same_from_its_own_options() {
        for name in MethodName::ALL {
            let method = match name {
                MethodName::Pol => MethodOptions::pol("head", "norm"),
                MethodName::Sgd => MethodOptions::sgd("norm"),
                other => MethodOptions::default_of(other),
            };
            assert_eq!(MethodArgs::from(&method).method(name), Ok(method));
        }
    }
}
