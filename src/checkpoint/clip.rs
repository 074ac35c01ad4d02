//! The vision towers of transformers' CLIP and SigLIP with a classifier: `CLIPForImageClassification`
//! and `SiglipForImageClassification`.
//!
//! Both classify the mean over patches. CLIP takes it before its last norm, which is then not used;
//! SigLIP after it, and does not use its pooling head. Files of the whole model also hold the text
//! tower.

use super::layout::{Layout, LayoutPart};
use super::reader::Reader;
use super::settings::Settings;
use super::spelling::Spelling;
use super::timm_config::check_problem;
use super::transformers_config::check_keys;
use super::{Error, transformers};
use crate::models::vit::{Config, Pooling};
use serde_json::{Value, json};

/// Prefix of the vision tower's names.
pub(super) const ROOT: &str = "vision_model.";

const COMPUTES: &str =
    "the vision towers of CLIP and SigLIP with a classifier on the mean over patches";

/// Beginnings of names, without the root, that neither classifier uses: the text tower, the projections
/// to the common space, and counters of positions.
const UNUSED: [&str; 7] = [
    "embeddings.position_ids",
    "logit_bias",
    "logit_scale",
    "text_model.",
    "text_projection.",
    "visual_projection.",
    "multi_modal_projector.",
];

const INSIDE: [(&str, &str, usize, usize); 8] = [
    ("layer_norm1.", "norm1.", 0, 1),
    ("self_attn.q_proj.", "attn.qkv.", 0, 3),
    ("self_attn.k_proj.", "attn.qkv.", 1, 3),
    ("self_attn.v_proj.", "attn.qkv.", 2, 3),
    ("self_attn.out_proj.", "attn.proj.", 0, 1),
    ("layer_norm2.", "norm2.", 0, 1),
    ("mlp.fc1.", "mlp.fc1.", 0, 1),
    ("mlp.fc2.", "mlp.fc2.", 0, 1),
];

/// Names of CLIP. `pre_layrnorm` is spelt so.
pub(super) const CLIP: Spelling = Spelling {
    tokens: &[
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding.weight", "pos_embed"),
    ],
    modules: &[
        ("embeddings.patch_embedding.", "patch_embed.proj."),
        ("pre_layrnorm.", "norm_pre."),
        ("classifier.", "head."),
    ],
    scales: &[],
    block: "encoder.layers.",
    inside: &INSIDE,
};

/// Names of SigLIP.
pub(super) const SIGLIP: Spelling = Spelling {
    tokens: &[("embeddings.position_embedding.weight", "pos_embed")],
    modules: &[
        ("embeddings.patch_embedding.", "patch_embed.proj."),
        ("post_layernorm.", "norm."),
        ("classifier.", "head."),
    ],
    scales: &[],
    block: "encoder.layers.",
    inside: &INSIDE,
};

/// Settings beside those of the towers.
const AROUND: [&str; 7] = [
    "initializer_factor",
    "logit_scale_init_value",
    "projection_dim",
    "text_config",
    "text_config_dict",
    "vision_config",
    "vision_config_dict",
];

/// Settings of the vision tower that planish reads.
const READ: [&str; 9] = [
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
];

/// Settings of the vision tower without effect on a trained classifier.
const HARMLESS: [&str; 5] =
    ["attention_dropout", "dropout", "initializer_factor", "projection_dim", "vision_use_head"];

/// The canonical part of a name.
pub(super) fn part(spelling: &Spelling, name: &str) -> Option<LayoutPart> {
    spelling.part(&name[transformers::root(name).len()..])
}

/// Whether a tensor is not used for classification.
pub(super) fn is_ignored(layout: Layout, name: &str) -> bool {
    let name = &name[transformers::root(name).len()..];
    let unused = match layout {
        Layout::TransformersClip => "post_layernorm.",
        _ => "head.",
    };
    name.starts_with(unused) || UNUSED.iter().any(|start| name.starts_with(start))
}

/// The canonical shape of a tensor that files store without dimensions of size 1; `None` for others.
pub(super) fn canonical_shape(canonical: &str, shape: &[usize]) -> Option<Vec<usize>> {
    match (canonical, shape) {
        ("cls_token", &[d]) => Some(vec![1, 1, d]),
        ("pos_embed", &[rows, d]) => Some(vec![1, rows, d]),
        ("cls_token" | "pos_embed", _) => Some(shape.to_vec()),
        _ => None,
    }
}

/// transformers' defaults of settings that tensors do not determine. Nested configurations do not state
/// values that are the defaults.
fn defaults(layout: Layout) -> Vec<(&'static str, Value)> {
    match layout {
        Layout::TransformersClip => vec![
            ("hidden_act", json!("quick_gelu")),
            ("layer_norm_eps", json!(1e-5)),
            ("num_attention_heads", json!(12)),
        ],
        _ => vec![
            ("hidden_act", json!("gelu_pytorch_tanh")),
            ("layer_norm_eps", json!(1e-6)),
            ("num_attention_heads", json!(12)),
        ],
    }
}

/// The settings of the vision tower.
///
/// If there is a `vision_config_dict`, its values and transformers' defaults replace those of
/// `vision_config`, as in transformers.
fn tower(settings: &Settings, layout: Layout) -> Result<Settings, Error> {
    let object = |key: &str| match settings.get(key) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(settings.unsupported(key, "an object", "correct it")),
    };
    let (stated, earlier) = (object("vision_config")?, object("vision_config_dict")?);
    let place = match stated.or(earlier) {
        Some(_) => format!("{}: vision_config", settings.place),
        None => settings.place.clone(),
    };
    let mut map = match (stated, earlier) {
        (Some(stated), _) => stated.clone(),
        (None, Some(_)) => serde_json::Map::new(),
        (None, None) => settings.whole(),
    };
    for (key, value) in defaults(layout) {
        if earlier.is_some() || map.get(key).is_none_or(Value::is_null) {
            map.insert(key.into(), value);
        }
    }
    for (key, value) in earlier.into_iter().flatten() {
        map.insert(key.clone(), value.clone());
    }
    Settings::parse(place, Value::Object(map).to_string())
}

/// Refuses unknown settings, of the whole or of the vision tower.
fn check_tower_keys(settings: &Settings) -> Result<(), Error> {
    let read: Vec<&str> = READ.iter().chain(&HARMLESS).chain(&AROUND).copied().collect();
    check_keys(settings, &read, COMPUTES)
}

impl Reader<'_> {
    /// [`Reader::complete`] for the vision towers.
    ///
    /// # Errors
    /// Contradictions, unsupported settings, and an unknown number of heads.
    pub(super) fn complete_clip(
        &mut self,
        mut config: Config,
        rows: usize,
    ) -> Result<Config, Error> {
        self.check_patch_size(config.patch_size)?;
        let vision = match self.settings {
            Some(settings) => {
                check_problem(settings)?;
                check_tower_keys(settings)?;
                Some(tower(settings, self.layout)?)
            }
            None => None,
        };
        let mut tower = Reader {
            path: self.path,
            layout: self.layout,
            dialect: self.dialect,
            settings: vision.as_ref(),
            images: self.images,
            overrides: self.overrides,
            assumed: std::mem::take(&mut self.assumed),
        };
        let done = tower.complete_tower(&mut config, rows);
        self.assumed = tower.assumed;
        done.map(|()| config)
    }

    fn complete_tower(&mut self, config: &mut Config, rows: usize) -> Result<(), Error> {
        if let Some(settings) = self.settings {
            check_tower_keys(settings)?;
            self.check_sizes(config, settings)?;
            self.check_mlp(config, settings)?;
        }
        config.pooling = Pooling::Mean;
        self.grid(config, rows)?;
        self.heads(config)?;
        self.stated_eps(&mut config.eps)?;
        config.activation = self.stated_activation()?;
        Ok(())
    }
}
