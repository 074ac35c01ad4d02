//! Published settings, as defaults of many options at once.
//!
//! What PoF's paper (Sato et al., ICML 2022) leaves open follows from its code: SGD with Nesterov momentum
//! and weight decay, at the constant rate 0.1 · 0.2⁴ that remains after the milestones of training; B′
//! drawn with replacement and augmented as B; the step searched on a grid; steps without a minimum not
//! perturbed. PoL's publication states B; its times fit B′ = B, a perturbed layer near the head and the
//! last block as the updated one. Everything else is taken from PoF.

use super::method_args::MethodArgs;
use super::options::{MethodName, TrainOptions};
use super::perturbation::{NoMinimum, StepRule};
use super::schedule::Shape;
use crate::data::Augment;
use crate::models::Network;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
#[cfg(feature = "cli")]
use std::sync::LazyLock;

/// The settings of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Preset {
    /// PoF as in its paper and code: B and B′ of 256, 10 epochs, lr 0.00016
    Pof2022,
    /// PoL as published: perturb the head, update the last block; B and B′ of 128; else as pof2022
    Pol,
}

/// The choice of a preset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct PresetOptions {
    /// Use a publication's settings as the defaults
    #[cfg_attr(feature = "cli", arg(long, value_enum, help_heading = "Method options"))]
    pub preset: Option<Preset>,
}

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 2] = [Preset::Pof2022, Preset::Pol];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Pof2022 => "pof2022",
            Preset::Pol => "pol",
        }
    }

    /// The method that it is about.
    pub fn method(self) -> MethodName {
        match self {
            Preset::Pof2022 => MethodName::Pof,
            Preset::Pol => MethodName::Pol,
        }
    }

    fn batch(self) -> usize {
        match self {
            Preset::Pof2022 => 256,
            Preset::Pol => 128,
        }
    }

    /// Its training options.
    pub fn train(self) -> TrainOptions {
        TrainOptions {
            epochs: 10,
            batch_size: self.batch(),
            lr: 1.6e-4,
            schedule: Shape::Constant,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            // The code pads by 4 pixels and crops: a shift.
            augment: Augment { flip: true, shift: 4, crop: None },
            ..TrainOptions::default()
        }
    }

    /// Its training options that differ from the defaults, by name.
    pub fn train_values(self) -> Map<String, Value> {
        let fields = |of: &TrainOptions| match serde_json::to_value(of) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let usual = fields(&TrainOptions::default());
        let own = fields(&self.train()).into_iter();
        own.filter(|(name, value)| usual.get(name) != Some(value)).collect()
    }

    /// Its options for `method`: none for a method that does not read them.
    pub fn method_args(self, method: MethodName) -> MethodArgs {
        let all = MethodArgs {
            perturb_batch: Some(self.batch()),
            perturb_replacement: Some(true),
            gamma: Some(2.0),
            step: Some(StepRule::Grid),
            no_minimum: Some(NoMinimum::Reject),
            ..MethodArgs::default()
        };
        all.of(method)
    }

    /// p and u in this network, if it names layers.
    pub fn layers(self, network: &Network) -> Option<[String; 2]> {
        match self {
            Preset::Pof2022 => None,
            Preset::Pol => Some(["head".into(), network.last_block().name]),
        }
    }
}

impl PresetOptions {
    /// The given options of a method, with the preset's in place of missing ones.
    pub fn fill(self, given: &MethodArgs, method: MethodName) -> MethodArgs {
        match self.preset {
            Some(preset) => given.or(&preset.method_args(method)),
            None => given.clone(),
        }
    }
}

/// Each preset's values of training options, as they are written on the command line.
#[cfg(feature = "cli")]
static FLAGS: LazyLock<Vec<(Preset, String, String)>> = LazyLock::new(|| {
    let text = |value: Value| match value {
        Value::Bool(on) => if on { "on" } else { "off" }.into(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    let of = |preset: Preset| {
        preset.train_values().into_iter().map(move |(name, value)| (preset, name, text(value)))
    };
    Preset::ALL.into_iter().flat_map(of).collect()
});

/// Adds each preset's value to the flag of a training option, as its default with that preset.
#[cfg(feature = "cli")]
pub fn with_defaults(arg: clap::Arg) -> clap::Arg {
    let name = arg.get_id().to_string();
    let own = FLAGS.iter().filter(|(_, option, _)| *option == name);
    own.fold(arg, |arg, (preset, _, value)| {
        arg.default_value_if("preset", preset.name(), value.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_preset_names_what_differs_from_the_defaults() {
        let expected = json!({
            "epochs": 10, "batch_size": 256, "lr": 1.6e-4, "schedule": "constant", "nesterov": true,
            "weight_decay": 5e-4, "augment": "flip,shift=4",
        });
        assert_eq!(Value::Object(Preset::Pof2022.train_values()), expected);
        let pol = Preset::Pol.train_values();
        assert_eq!((pol.get("batch_size"), pol["epochs"].clone()), (None, json!(10)));
    }

    #[test]
    fn given_options_take_precedence() {
        let preset = PresetOptions { preset: Some(Preset::Pol) };
        let given = MethodArgs { gamma: Some(1.0), ..MethodArgs::default() };
        let filled = preset.fill(&given, MethodName::Pol);
        assert_eq!((filled.gamma, filled.perturb_batch), (Some(1.0), Some(128)));
        assert_eq!(filled.step, Some(StepRule::Grid));
        // The control has the same training options and none of the perturbation.
        let none = MethodArgs::default();
        assert_eq!(preset.fill(&none, MethodName::Sgd), none);
        assert_eq!(PresetOptions::default().fill(&given, MethodName::Pol), given);
    }
}
