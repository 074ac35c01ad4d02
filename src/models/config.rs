//! The configuration of a model of any architecture.

use super::{Builder, Error, Network, convnext, mlp_mixer, vit};
use serde::Serialize;

/// Everything that determines the tensors and the arithmetic of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Config {
    /// A Vision Transformer.
    Vit(vit::Config),
    /// An MLP-Mixer.
    Mixer(mlp_mixer::Config),
    /// A ConvNeXt.
    ConvNext(convnext::Config),
}

impl Config {
    /// The network.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn network(&self) -> Result<Network, Error> {
        match self {
            Config::Vit(config) => config.network(),
            Config::Mixer(config) => config.network(),
            Config::ConvNext(config) => config.network(),
        }
    }

    /// Declares parameters and stages.
    pub fn declare(&self) -> Builder {
        match self {
            Config::Vit(config) => config.declare(),
            Config::Mixer(config) => config.declare(),
            Config::ConvNext(config) => config.declare(),
        }
    }

    /// The configuration of a Vision Transformer, if it is one.
    pub fn vit(&self) -> Option<&vit::Config> {
        match self {
            Config::Vit(config) => Some(config),
            _ => None,
        }
    }

    /// Height and width of the input in pixels.
    pub fn image_size(&self) -> [usize; 2] {
        match self {
            Config::Vit(config) => config.image_size,
            Config::Mixer(config) => config.image_size,
            Config::ConvNext(config) => config.image_size,
        }
    }

    /// Input channels.
    pub fn channels(&self) -> usize {
        match self {
            Config::Vit(config) => config.channels,
            Config::Mixer(config) => config.channels,
            Config::ConvNext(config) => config.channels,
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        match self {
            Config::Vit(config) => config.classes,
            Config::Mixer(config) => config.classes,
            Config::ConvNext(config) => config.classes,
        }
    }

    /// The same model with another number of classes.
    #[must_use]
    pub fn with_classes(mut self, classes: usize) -> Self {
        match &mut self {
            Config::Vit(config) => config.classes = classes,
            Config::Mixer(config) => config.classes = classes,
            Config::ConvNext(config) => config.classes = classes,
        }
        self
    }
}

impl From<mlp_mixer::Config> for Config {
    fn from(config: mlp_mixer::Config) -> Self {
        Config::Mixer(config)
    }
}

impl From<convnext::Config> for Config {
    fn from(config: convnext::Config) -> Self {
        Config::ConvNext(config)
    }
}

impl From<vit::Config> for Config {
    fn from(config: vit::Config) -> Self {
        Config::Vit(config)
    }
}
