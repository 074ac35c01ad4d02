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
use super::train_args::TrainArgs;
use crate::data::Augment;
use crate::models::Network;
use serde::{Deserialize, Serialize};

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
    /// The method: the given one, else the preset's, else PoL.
    pub fn method(self, given: Option<MethodName>) -> MethodName {
        given.or(self.preset.map(Preset::method)).unwrap_or(MethodName::Pol)
    }

    /// The given options of a method, with the preset's in place of missing ones.
    pub fn fill(self, given: &MethodArgs, method: MethodName) -> MethodArgs {
        match self.preset {
            Some(preset) => given.or(&preset.method_args(method)),
            None => given.clone(),
        }
    }

    /// The given training options, with the preset's in place of missing ones, or else the defaults.
    pub fn train(self, given: &TrainArgs) -> TrainOptions {
        given.over(self.preset.map_or_else(TrainOptions::default, Preset::train))
    }

    /// The same for so many training images. If they are fewer than the default batch, a batch has all of
    /// them, and the second value is a note that says so. A batch size that the user or the preset states
    /// is kept.
    pub fn train_on(self, given: &TrainArgs, images: usize) -> (TrainOptions, Option<String>) {
        let train = self.train(given);
        match given.batch_size.is_some() || self.preset.is_some() {
            true => (train, None),
            false => train.fitted_to(images),
        }
    }

    /// Which of these methods get the preset's training options without being the published method or
    /// its control, as a note.
    pub fn note(self, methods: &[MethodName]) -> Option<String> {
        let preset = self.preset?;
        let published =
            |method: &&MethodName| **method == preset.method() || **method == MethodName::Sgd;
        let mut others: Vec<&str> = Vec::new();
        for method in methods.iter().filter(|method| !published(method)) {
            if !others.contains(&method.title()) {
                others.push(method.title());
            }
        }
        (!others.is_empty()).then(|| {
            format!(
                "the preset {} has the published settings of {}; its training options also apply to {}",
                preset.name(),
                preset.method().title(),
                others.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_the_base_of_training_options() {
        let of = |preset| PresetOptions { preset: Some(preset) };
        // The values of the paper's code.
        let published = TrainOptions {
            epochs: 10,
            batch_size: 256,
            lr: 1.6e-4,
            schedule: Shape::Constant,
            nesterov: true,
            weight_decay: 5e-4,
            augment: "flip,shift=4".parse().unwrap(),
            ..TrainOptions::default()
        };
        let none = TrainArgs::default();
        assert_eq!(of(Preset::Pof2022).train(&none), published);
        assert_eq!(
            of(Preset::Pol).train(&none),
            TrainOptions { batch_size: 128, ..published.clone() }
        );
        // A default value that is given counts as given.
        let default = TrainOptions::default();
        let given =
            TrainArgs { epochs: Some(default.epochs), lr: Some(default.lr), ..none.clone() };
        let (epochs, lr) = (default.epochs, default.lr);
        assert_eq!(
            of(Preset::Pof2022).train(&given),
            TrainOptions { epochs, lr, ..published.clone() }
        );
        assert_eq!(PresetOptions::default().train(&none), default);
    }

    #[test]
    fn only_the_default_batch_is_cut_to_the_training_set() {
        let (none, given) =
            (TrainArgs::default(), TrainArgs { batch_size: Some(128), ..TrainArgs::default() });
        let usual = PresetOptions::default();
        let (cut, note) = usual.train_on(&none, 40);
        assert_eq!(cut.batch_size, 40);
        assert!(note.unwrap().contains("40 images"));
        let preset = PresetOptions { preset: Some(Preset::Pol) };
        for (options, args) in [(usual, &given), (preset, &none)] {
            let (kept, note) = options.train_on(args, 40);
            assert_eq!((kept.batch_size, note), (128, None));
        }
        assert_eq!(usual.train_on(&none, 128), (TrainOptions::default(), None));
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
        assert_eq!(preset.method(None), MethodName::Pol);
        assert_eq!(preset.method(Some(MethodName::Sam)), MethodName::Sam);
    }

    #[test]
    fn a_note_names_the_methods_that_a_preset_is_not_about() {
        let preset = PresetOptions { preset: Some(Preset::Pol) };
        assert_eq!(preset.note(&[MethodName::Pol, MethodName::Sgd]), None);
        let note = preset.note(&[MethodName::Pol, MethodName::Sam, MethodName::Asam]).unwrap();
        assert!(
            note.ends_with("settings of PoL; its training options also apply to SAM, ASAM"),
            "{note}"
        );
        assert_eq!(PresetOptions::default().note(&[MethodName::Sam]), None);
    }
}
