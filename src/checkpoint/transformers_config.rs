//! transformers' `config.json` held against the tensors, and what neither says.

use super::Error;
use super::reader::Reader;
use super::settings::Settings;
use crate::vit::{Activation, Config, Pooling};

/// Architectures that transformers computes as planish does.
const MODEL_TYPES: [&str; 2] = ["vit", "deit"];

impl Reader<'_> {
    /// What the configuration may state and the tensors show.
    pub(super) fn check_transformers(
        &self,
        config: &Config,
        settings: &Settings,
    ) -> Result<(), Error> {
        let place = settings.place.as_str();
        if settings.text("model_type")?.is_some_and(|kind| !MODEL_TYPES.contains(&kind)) {
            let remedy = "planish serves plain Vision Transformers only";
            return Err(settings.unsupported("model_type", "vit or deit", remedy));
        }
        if settings.text("problem_type")?.is_some_and(|p| p != "single_label_classification") {
            let remedy = "planish measures the cross-entropy of one label an image";
            let expected = "single_label_classification";
            return Err(settings.unsupported("problem_type", expected, remedy));
        }
        for (key, shown, tensor) in [
            ("hidden_size", config.dim, "the patch projection"),
            ("num_hidden_layers", config.depth, "the blocks"),
            ("intermediate_size", config.mlp_dim, "the first layer of the MLP"),
            ("num_channels", config.channels, "the patch projection"),
            ("num_labels", config.classes, "the classifier"),
        ] {
            if let Some(stated) = settings.count(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(place, key, stated, shown, tensor));
            }
        }
        if let Some(stated) = settings.pair("patch_size")?.filter(|&p| p != config.patch_size) {
            let (shown, tensor) = (config.patch_size, "the patch projection");
            return Err(self.contradiction(place, "patch_size", stated, shown, tensor));
        }
        if let Some(stated) = settings.flag("qkv_bias")?.filter(|&stated| stated != config.qkv_bias)
        {
            let (shown, tensor) = (config.qkv_bias, "biases of query, key and value");
            return Err(self.contradiction(place, "qkv_bias", stated, shown, tensor));
        }
        Ok(())
    }

    /// Pooling, activation and ε, which leave no trace in the tensors.
    pub(super) fn transformers_arithmetic(
        &mut self,
        config: &mut Config,
        settings: &Settings,
    ) -> Result<(), Error> {
        config.pooling = Pooling::Token;
        match settings.number("layer_norm_eps")? {
            Some(eps) if eps > 0.0 && eps < 1.0 => config.eps = eps,
            Some(_) => {
                let expected = "a number between 0 and 1";
                return Err(settings.unsupported("layer_norm_eps", expected, "correct it"));
            }
            None => self.assumed.push(format!("layer norm ε: {:e}", config.eps)),
        }
        config.activation = match settings.text("hidden_act")? {
            Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some(_) => {
                let expected = "gelu, gelu_new or gelu_pytorch_tanh";
                let remedy = "planish knows the exact GELU and its tanh approximation only";
                return Err(settings.unsupported("hidden_act", expected, remedy));
            }
            None => {
                self.assumed.push("activation: exact GELU".into());
                Activation::Gelu
            }
        };
        Ok(())
    }
}
