//! timm's arguments of an architecture: those that are read, those without effect on a trained model,
//! and those that select another network.

use super::Error;
use super::settings::Settings;

/// The arguments of a timm architecture, as found in `model_args`.
pub(super) struct Arguments {
    /// What planish computes, for error messages.
    pub computes: &'static str,
    /// Arguments that planish reads.
    pub read: &'static [&'static str],
    /// Arguments that do not change what a trained model computes: dropout and initialisation, other
    /// image sizes than the model's own, and tensor placement.
    pub harmless: &'static [&'static str],
    /// Arguments that select another module or step, with the change; false has no effect.
    pub other: &'static [(&'static str, &'static str)],
    /// Values of these arguments that are timm's defaults.
    pub defaults: &'static [(&'static str, &'static str)],
}

impl Arguments {
    /// Refuses arguments of networks that planish does not compute, and unknown arguments.
    pub fn check(&self, settings: &Settings) -> Result<(), Error> {
        if settings.get("model_args").is_some_and(|args| !args.is_object()) {
            return Err(settings.unsupported("model_args", "an object", "correct it"));
        }
        for argument in settings.keys("model_args") {
            let key = format!("model_args.{argument}");
            if self.read.contains(&argument) || self.harmless.contains(&argument) {
                continue;
            }
            let Some(means) = self.selects(argument) else {
                let means = "planish does not know what this argument changes";
                let remedy = "remove it if the model is the same without it";
                return Err(settings.not_computed(&key, means, self.computes, remedy));
            };
            if !settings.is_off(&key) && !self.is_default(settings, argument) {
                return Err(settings.not_computed(&key, means, self.computes, "use a plain model"));
            }
        }
        Ok(())
    }

    fn is_default(&self, settings: &Settings, argument: &str) -> bool {
        let found = settings.get(&format!("model_args.{argument}")).map(ToString::to_string);
        let found = found.as_deref().map(|text| text.trim_matches('"'));
        self.defaults.iter().any(|(name, value)| *name == argument && Some(*value) == found)
    }

    /// What an argument that selects another network changes.
    pub fn selects(&self, argument: &str) -> Option<&'static str> {
        self.other.iter().find(|(other, _)| *other == argument).map(|(_, means)| *means)
    }
}
