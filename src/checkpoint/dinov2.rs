//! transformers' DINOv2, with and without registers: `Dinov2ForImageClassification` and
//! `Dinov2WithRegistersForImageClassification`, with the names that it saves and those that it has in
//! memory since version 5.
//!
//! The classifier sees the class token and the mean over patches. The position embedding is stored for
//! the image size of the pretraining, and resized to the images' own size in every pass.

use super::layout::LayoutPart;
use super::reader::Reader;
use super::settings::Settings;
use super::spelling::Spelling;
use super::timm_config::check_problem;
use super::transformers_config::{check_keys, model_types};
use super::transformers_images::extent;
use super::{Error, transformers};
use crate::models::PositionResize;
use crate::models::vit::{Activation, Config, Pooling};

const COMPUTES: &str = "DINOv2 with a classifier on the class token and the mean over patches";

/// Names in files, then those in memory where they differ.
pub(super) const SPELLING: Spelling = Spelling {
    tokens: &[
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.register_tokens", "reg_token"),
        ("embeddings.position_embeddings", "pos_embed"),
    ],
    modules: &[
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("layernorm.", "norm."),
        ("classifier.", "head."),
    ],
    scales: &[("layer_scale1.lambda1", "ls1.gamma"), ("layer_scale2.lambda1", "ls2.gamma")],
    block: "encoder.layer.",
    inside: &[
        ("norm1.", "norm1.", 0, 1),
        ("attention.attention.query.", "attn.qkv.", 0, 3),
        ("attention.attention.key.", "attn.qkv.", 1, 3),
        ("attention.attention.value.", "attn.qkv.", 2, 3),
        ("attention.output.dense.", "attn.proj.", 0, 1),
        ("norm2.", "norm2.", 0, 1),
        ("mlp.fc1.", "mlp.fc1.", 0, 1),
        ("mlp.fc2.", "mlp.fc2.", 0, 1),
        ("mlp.weights_in.", "mlp.fc1.", 0, 1),
        ("mlp.weights_out.", "mlp.fc2.", 0, 1),
        ("attention.q_proj.", "attn.qkv.", 0, 3),
        ("attention.k_proj.", "attn.qkv.", 1, 3),
        ("attention.v_proj.", "attn.qkv.", 2, 3),
        ("attention.o_proj.", "attn.proj.", 0, 1),
        ("mlp.gate_proj.", "mlp.fc1.", 0, 2),
        ("mlp.up_proj.", "mlp.fc1.", 1, 2),
        ("mlp.down_proj.", "mlp.fc2.", 0, 1),
    ],
};

/// Settings that planish reads.
const READ: [&str; 12] = [
    "hidden_act",
    "hidden_size",
    "image_size",
    "layer_norm_eps",
    "mlp_ratio",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "num_register_tokens",
    "patch_size",
    "qkv_bias",
    "use_swiglu_ffn",
];

/// Settings without effect on a trained classifier: initial values, dropped paths, and what a backbone
/// of a detector returns.
const HARMLESS: [&str; 8] = [
    "apply_layernorm",
    "drop_path_rate",
    "layerscale_value",
    "out_features",
    "out_indices",
    "reshape_hidden_states",
    "stage_names",
    "use_mask_token",
];

/// The canonical part of a name.
pub(super) fn part(name: &str) -> Option<LayoutPart> {
    SPELLING.part(&name[transformers::root(name).len()..])
}

impl Reader<'_> {
    /// [`Reader::complete`] for DINOv2.
    ///
    /// # Errors
    /// Contradictions, unsupported settings, and an unknown number of heads.
    pub(super) fn complete_dinov2(
        &mut self,
        mut config: Config,
        rows: usize,
    ) -> Result<Config, Error> {
        self.check_patch_size(config.patch_size)?;
        if let Some(settings) = self.settings {
            self.check_dinov2(&config, settings)?;
        }
        (config.position_covers_prefix, config.registers_without_position) = (true, true);
        config.pooling = Pooling::TokenAndMean;
        self.stored_positions(&mut config, rows)?;
        self.heads(&mut config)?;
        self.stated_eps(&mut config.eps)?;
        if config.activation != Activation::SwiGlu {
            config.activation = self.stated_activation()?;
        }
        Ok(config)
    }

    fn check_dinov2(&self, config: &Config, settings: &Settings) -> Result<(), Error> {
        let place = settings.place.as_str();
        let read: Vec<&str> = READ.into_iter().chain(HARMLESS).collect();
        check_keys(settings, &read, COMPUTES)?;
        check_problem(settings)?;
        self.check_sizes(config, settings)?;
        let kind = model_types(self.layout)[usize::from(config.registers > 0)];
        if let Some(stated) = settings.text("model_type")?.filter(|&stated| stated != kind) {
            let tensor = "`register_tokens` and the other names";
            return Err(self.contradiction(place, "model_type", stated, kind, tensor));
        }
        let key = "num_register_tokens";
        let stated = settings.count(key)?.filter(|&stated| stated != config.registers);
        if let Some(stated) = stated {
            let (shown, tensor) = (config.registers, "`register_tokens`");
            return Err(self.contradiction(place, key, stated, shown, tensor));
        }
        let (key, gated) = ("use_swiglu_ffn", config.activation == Activation::SwiGlu);
        if let Some(stated) = settings.flag(key)?.filter(|&stated| stated != gated) {
            return Err(self.contradiction(place, key, stated, gated, "the layers of the MLP"));
        }
        if let Some(ratio) = settings.number("mlp_ratio")? {
            let plain = (config.dim as f64 * ratio) as usize;
            let stated = match gated {
                // Two thirds, rounded up to a multiple of 8.
                true => (plain.saturating_mul(2) / 3).div_ceil(8).saturating_mul(8),
                false => plain,
            };
            if stated != config.mlp_dim {
                let (shown, tensor) = (config.mlp_dim, "the layers of the MLP");
                return Err(self.contradiction(place, "mlp_ratio", ratio, shown, tensor));
            }
        }
        Ok(())
    }

    /// The grid of the stored positions, which is square, and the size of the images.
    fn stored_positions(&mut self, config: &mut Config, rows: usize) -> Result<(), Error> {
        let patches = rows.saturating_sub(1);
        let side = patches.isqrt();
        if side == 0 || side * side != patches {
            return Err(Error::Grid { path: self.path.to_path_buf(), rows, prefix: 1 });
        }
        let patch = config.patch_size;
        let stored = patch.map(|pixels| side.saturating_mul(pixels));
        if let Some(settings) = self.settings
            && let Some(stated) = settings.pair("image_size")?
            && [0, 1].map(|axis| stated[axis] / patch[axis]) != [side; 2]
        {
            let (key, tensor) = ("image_size", "the position embedding");
            return Err(self.contradiction(&settings.place, key, stated, stored, tensor));
        }
        let (place, size) = match self.size_of_images()? {
            Some(found) => found,
            None => {
                let [height, width] = stored;
                self.assumed.push(format!("image size {height}×{width}: as in pretraining"));
                (String::new(), stored)
            }
        };
        if [0, 1].iter().any(|&axis| size[axis] == 0 || size[axis] % patch[axis] != 0) {
            let shown = format!("patches of {}×{}", patch[0], patch[1]);
            let tensor = "the patch projection";
            return Err(self.contradiction(&place, "image size", size, shown, tensor));
        }
        config.image_size = size;
        // transformers widens the filter in the network with registers only.
        config.position_resize =
            Some(PositionResize { grid: [side; 2], antialias: config.registers > 0 });
        Ok(())
    }

    /// The size of the images: that of the option or of the image processor.
    fn size_of_images(&self) -> Result<Option<(String, [usize; 2])>, Error> {
        if let Some(size) = self.overrides.image_size {
            return Ok(Some(("`image_size`".into(), size)));
        }
        let Some(images) = self.images else { return Ok(None) };
        let crops = images.flag("do_center_crop")? == Some(true);
        let key = if crops { "crop_size" } else { "size" };
        match extent(images, key)? {
            Some(size) => Ok(Some((images.place.clone(), size))),
            None if crops => {
                let expected = "the height and width of the crop";
                Err(images.unsupported(key, expected, "give `image_size`"))
            }
            None => Ok(None),
        }
    }
}
