//! peft's `adapter_config.json`: the settings of LoRA and DoRA that determine the merged weights.

use super::Error;
use super::settings::Settings;
use crate::models::lora::{is_named, scale};
use serde_json::Value;
use std::path::Path;

/// Name of the configuration in an adapter's folder.
pub(super) const CONFIG_FILE: &str = "adapter_config.json";

/// Settings that give other weights than W + s·BA, or that planish does not read.
const UNSUPPORTED: [&str; 11] = [
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
];

/// Initialisations that leave the base weights as they are. Others subtract the initial update from
/// the base, so the adapter only fits a base that is changed in the same way.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The settings of an adapter.
#[derive(Clone, Debug)]
pub(super) struct AdapterConfig {
    place: String,
    rank: usize,
    alpha: f64,
    rank_stabilised: bool,
    /// Whether it is DoRA.
    pub dora: bool,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
    /// Modules whose whole parameters are stored.
    pub whole: Vec<String>,
}

impl AdapterConfig {
    /// Reads the configuration in an adapter's folder.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Setting`]: a type of adapter other than LoRA, or a setting that
    /// planish does not support.
    pub fn read(path: &Path, text: String) -> Result<AdapterConfig, Error> {
        let found = Settings::parse(path.display().to_string(), text)?;
        let merge = "merge the adapter with peft (merge_and_unload) and save the model";
        if found.text("peft_type")? != Some("LORA") {
            let expected = "\"LORA\": planish reads LoRA and DoRA";
            return Err(found.unsupported("peft_type", expected, merge));
        }
        if let Some(key) = UNSUPPORTED.into_iter().find(|key| !found.is_off(key)) {
            return Err(found.unsupported(key, "nothing or false", merge));
        }
        if found.text("bias")?.is_some_and(|bias| bias != "none") {
            return Err(found.unsupported("bias", "\"none\"", merge));
        }
        match found.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(name)) if INITIALISATIONS.contains(&name.as_str()) => {}
            Some(_) => {
                let expected = "true, false, \"gaussian\", \"eva\" or \"orthogonal\", which leave \
                                the base weights as they are";
                return Err(found.unsupported("init_lora_weights", expected, merge));
            }
        }
        let rank = found.count("r")?.filter(|&rank| rank > 0);
        let positive = |key: &str| found.unsupported(key, "a whole number above 0", "correct it");
        let rank = rank.ok_or_else(|| positive("r"))?;
        let alpha = found.number("lora_alpha")?;
        let alpha =
            alpha.ok_or_else(|| found.unsupported("lora_alpha", "a number", "correct it"))?;
        let (ranks, alphas) =
            (patterns(&found, "rank_pattern")?, patterns(&found, "alpha_pattern")?);
        Ok(AdapterConfig {
            rank,
            alpha,
            rank_stabilised: found.flag("use_rslora")?.unwrap_or(false),
            dora: found.flag("use_dora")?.unwrap_or(false),
            ranks,
            alphas,
            whole: found.names("modules_to_save")?.unwrap_or_default(),
            place: found.place,
        })
    }

    /// s of the module with this name, whose A has `rank` rows.
    ///
    /// # Errors
    /// [`Error::Setting`] if the configuration gives the module another rank.
    pub fn scale(&self, module: &str, rank: usize) -> Result<f64, Error> {
        let stated = value(&self.ranks, module).unwrap_or(self.rank as f64);
        if stated != rank as f64 {
            return Err(Error::Setting {
                place: self.place.clone(),
                key: "r".into(),
                expected: format!("{rank}, the rank of the tensors of {module}"),
                found: stated.to_string(),
                remedy: "use the configuration that belongs to the tensors".into(),
            });
        }
        let alpha = value(&self.alphas, module).unwrap_or(self.alpha);
        Ok(scale(alpha, rank, self.rank_stabilised))
    }
}

/// The numbers of a `rank_pattern` or `alpha_pattern`, by module name.
fn patterns(settings: &Settings, key: &str) -> Result<Vec<(String, f64)>, Error> {
    let Some(found) = settings.get(key) else { return Ok(Vec::new()) };
    let unfit = || {
        let expected = "numbers above 0 under names of modules, without wildcards";
        settings.unsupported(key, expected, "name the modules in full")
    };
    let list = found.as_object().ok_or_else(unfit)?.iter().map(|(name, value)| {
        let number = value.as_f64().filter(|n| n.is_finite() && *n > 0.0)?;
        // peft reads the names as regular expressions. A dot matches itself, too.
        let plain = |c: char| c.is_alphanumeric() || "._-^".contains(c);
        name.chars().all(plain).then(|| (name.clone(), number))
    });
    list.collect::<Option<_>>().ok_or_else(unfit)
}

/// The number of the first pattern that matches the module: its name, or its last parts.
fn value(patterns: &[(String, f64)], module: &str) -> Option<f64> {
    let matches = |pattern: &str| match pattern.strip_prefix('^') {
        Some(whole) => module == whole,
        None => is_named(module, pattern),
    };
    patterns.iter().find(|(pattern, _)| matches(pattern)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(changes: Value) -> Result<AdapterConfig, Error> {
        let mut config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"});
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        AdapterConfig::read(Path::new("a/adapter_config.json"), config.to_string())
    }

    #[test]
    fn scales_follow_rank_alpha_and_patterns() {
        let plain = read(json!({})).unwrap();
        assert_eq!(plain.scale("vit.layers.0.attention.q_proj", 4).unwrap(), 2.0);
        let stabilised = read(json!({"use_rslora": true})).unwrap();
        assert_eq!(stabilised.scale("x", 4).unwrap(), 4.0);
        let patterned = read(json!({
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.fc1": 8}, "alpha_pattern": {"mlp.fc1": 16},
        }));
        let patterned = patterned.unwrap();
        assert_eq!(patterned.scale("vit.layers.0.attention.q_proj", 2).unwrap(), 4.0);
        assert_eq!(patterned.scale("vit.layers.1.mlp.fc1", 8).unwrap(), 2.0);
        assert_eq!(patterned.scale("vit.layers.0.mlp.fc1", 4).unwrap(), 4.0);
        let message = patterned.scale("vit.layers.11.mlp.fc1", 8).unwrap_err().to_string();
        assert!(message.contains("\"r\": expected 8") && message.contains("found 4"), "{message}");
    }

    #[test]
    fn other_adapters_are_refused() {
        for (changes, expected) in [
            (json!({"peft_type": "LOHA"}), "\"peft_type\": expected \"LORA\""),
            (json!({"bias": "lora_only"}), "\"bias\": expected \"none\""),
            (json!({"init_lora_weights": "pissa"}), "\"init_lora_weights\": expected true"),
            (json!({"fan_in_fan_out": true}), "\"fan_in_fan_out\""),
            (json!({"r": 0}), "\"r\": expected a whole number above 0"),
            (json!({"lora_alpha": "x"}), "\"lora_alpha\""),
            (json!({"alpha_pattern": {"fc[12]": 2}}), "\"alpha_pattern\""),
        ] {
            let message = read(changes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
