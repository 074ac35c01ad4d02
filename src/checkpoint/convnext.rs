//! The layouts of ConvNeXt and ConvNeXt V2: timm's `ConvNeXt` (1.0), whose names are canonical, and
//! transformers' `ConvNextForImageClassification` and `ConvNextV2ForImageClassification`.

use super::Error;
use super::arguments::Arguments;
use super::error::Mismatch;
use super::layout::{Layout, LayoutPart};
use super::read::{Shapes, compare, nonempty};
use super::reader::{Dialect, Reader};
use super::settings::Settings;
use super::spelling::{index, is_parameter};
use super::timm_config::check_problem;
use super::transformers_config::check_keys;
use super::transformers_images::shortest_edge;
use crate::models::convnext::{Config, KERNEL};
use std::collections::BTreeMap;

/// Modules outside the network's stages: timm's name and transformers', without `weight` and `bias`.
const OUTSIDE: [(&str, &str); 4] = [
    ("stem.0.", "embeddings.patch_embeddings."),
    ("stem.1.", "embeddings.layernorm."),
    ("head.norm.", "layernorm."),
    ("head.fc.", "classifier."),
];

/// Modules of a downsampling.
const DOWNSAMPLE: [(&str, &str); 2] =
    [("downsample.0.", "downsampling_layer.0."), ("downsample.1.", "downsampling_layer.1.")];

/// Modules of a block.
const INSIDE: [(&str, &str); 5] = [
    ("conv_dw.", "dwconv."),
    ("norm.", "layernorm."),
    ("mlp.fc1.", "pwconv1."),
    ("mlp.grn.", "grn."),
    ("mlp.fc2.", "pwconv2."),
];

/// LayerScale of a block.
const SCALE: (&str, &str) = ("gamma", "layer_scale_parameter");

/// Prefix of a stage's index, and of a block's.
const STAGE: (&str, &str) = ("stages.", "encoder.stages.");
const BLOCK: (&str, &str) = ("blocks.", "layers.");

/// What planish computes, for error messages.
const COMPUTES: &str = "ConvNeXt and ConvNeXt V2 with a stem of patches, 7×7 depthwise convolutions, \
     layer norms, the exact GELU, and the mean before the last norm";

/// ε of the norms below the last, and in timm of the last, unless a configuration states another.
const EPS: f64 = 1e-6;

/// Largest stride of a network of timm. A further downsampling becomes a dilation.
const TIMM_STRIDE: usize = 32;

/// Most stages, so that damaged names cannot exhaust memory.
const MOST_STAGES: usize = 8;

/// timm's arguments of `ConvNeXt`.
const ARGUMENTS: Arguments = Arguments {
    computes: COMPUTES,
    read: &[
        "conv_bias",
        "conv_mlp",
        "depths",
        "dims",
        "global_pool",
        "in_chans",
        "kernel_sizes",
        "ls_init_value",
        "norm_eps",
        "num_classes",
        "patch_size",
        "use_grn",
    ],
    harmless: &["device", "drop_path_rate", "drop_rate", "dtype", "head_init_scale"],
    other: &[
        ("act_layer", "it selects another activation"),
        ("head_hidden_size", "it puts another layer into the head"),
        ("head_norm_first", "it puts the last norm before the mean"),
        ("norm_layer", "it selects another norm"),
        ("output_stride", "it selects dilated convolutions"),
        ("stem_type", "it selects another stem"),
    ],
    defaults: &[
        ("act_layer", "gelu"),
        ("norm_layer", "layernorm"),
        ("output_stride", "32"),
        ("stem_type", "patch"),
    ],
};

/// transformers' settings of these networks, besides those of every model.
const SETTINGS: [&str; 15] = [
    "depths",
    "drop_path_rate",
    "hidden_act",
    "hidden_sizes",
    "image_size",
    "layer_norm_eps",
    "layer_scale_init_value",
    "num_channels",
    "num_stages",
    "out_features",
    "out_indices",
    "patch_size",
    "reshape_hidden_states",
    "stage_names",
    "use_grn",
];

/// The part for one of timm's names; `None` if the layout has no such name.
pub(super) fn part(name: &str) -> Option<LayoutPart> {
    canonical(name, |pair| pair.0).map(LayoutPart::whole)
}

/// The part for one of transformers' names, without its root.
pub(super) fn transformers_part(name: &str) -> Option<LayoutPart> {
    canonical(name, |pair| pair.1).map(LayoutPart::whole)
}

/// transformers' name of a canonical tensor, without its root.
pub(super) fn transformers_name(canonical: &str) -> Option<String> {
    translate(canonical, |pair| pair.0, |pair| pair.1)
}

type Pick = fn((&'static str, &'static str)) -> &'static str;

/// The canonical name, which is timm's.
fn canonical(name: &str, from: Pick) -> Option<String> {
    translate(name, from, |pair| pair.0)
}

/// A name in another library's spelling.
fn translate(name: &str, from: Pick, to: Pick) -> Option<String> {
    let module = |table: &[(&'static str, &'static str)], name: &str| {
        table.iter().find_map(|&pair| {
            let rest = name.strip_prefix(from(pair)).filter(|rest| is_parameter(rest))?;
            Some(format!("{}{rest}", to(pair)))
        })
    };
    if let Some(found) = module(&OUTSIDE, name) {
        return Some(found);
    }
    let (stage, rest) = index(name.strip_prefix(from(STAGE))?)?;
    let stage = format!("{}{stage}.", to(STAGE));
    if let Some(found) = module(&DOWNSAMPLE, rest) {
        return Some(format!("{stage}{found}"));
    }
    let (block, rest) = index(rest.strip_prefix(from(BLOCK))?)?;
    let inner = match rest == from(SCALE) {
        true => to(SCALE).to_string(),
        false => module(&INSIDE, rest)?,
    };
    Some(format!("{stage}{}{block}.{inner}", to(BLOCK)))
}

/// Whether a file may hold a canonical tensor with further dimensions of size 1: timm's MLPs as 1×1
/// convolutions, and transformers' response normalisation.
pub(super) fn is_squeezed(canonical: &str) -> bool {
    ["mlp.fc1.weight", "mlp.fc2.weight", "mlp.grn.weight", "mlp.grn.bias"]
        .iter()
        .any(|end| canonical.ends_with(end))
}

/// The configuration as far as the tensors determine it, for the smallest image.
///
/// # Errors
/// What does not fit such a model.
pub(super) fn structure(shapes: &Shapes, layout: Layout) -> Result<Config, Box<Mismatch>> {
    nonempty(shapes)?;
    let dim_of = |name: &str, axis: usize| shapes.get(name).and_then(|s| s.get(axis).copied());
    // Blocks per stage; counts, so that a huge index cannot exhaust memory.
    let mut blocks: BTreeMap<usize, std::collections::BTreeSet<usize>> = BTreeMap::new();
    for name in shapes.keys() {
        let Some((stage, rest)) = name.strip_prefix("stages.").and_then(index) else { continue };
        if let Some((block, _)) = rest.strip_prefix("blocks.").and_then(index) {
            blocks.entry(stage).or_default().insert(block);
        }
    }
    let depths: Vec<usize> = blocks.values().map(std::collections::BTreeSet::len).collect();
    let width = |stage: usize| {
        dim_of(&format!("stages.{stage}.downsample.1.weight"), 0)
            .or(dim_of(&format!("stages.{stage}.blocks.0.norm.weight"), 0))
            .unwrap_or(0)
    };
    let dims: Vec<usize> = (0..depths.len()).map(width).collect();
    let patch = dim_of("stem.0.weight", 2).unwrap_or(1);
    let any = |end: &str| shapes.keys().any(|name| name.ends_with(end));
    let side = patch.saturating_mul(1 << depths.len().saturating_sub(1).min(16));
    let config = Config {
        image_size: [side; 2],
        patch_size: patch,
        channels: dim_of("stem.0.weight", 1).unwrap_or(0),
        depths,
        dims,
        classes: dim_of("head.fc.weight", 0).or(dim_of("head.fc.bias", 0)).unwrap_or(0),
        layer_scale: any(".gamma"),
        grn: any(".mlp.grn.weight"),
        eps: EPS,
        final_eps: if layout.is_transformers() { layout.eps() } else { EPS },
    };
    if config.depths.len() > MOST_STAGES {
        let unexpected = vec![format!("stages.{MOST_STAGES}")];
        return Err(Box::new(Mismatch { unexpected, ..Mismatch::default() }));
    }
    let mut mismatch = compare(config.declare().params(), shapes, None);
    if config.depths.is_empty() {
        mismatch.missing.push("stages.0.blocks.0".into());
    }
    if mismatch.is_empty() { Ok(config) } else { Err(Box::new(mismatch)) }
}

impl Reader<'_> {
    /// Completes the configuration of the tensors.
    ///
    /// # Errors
    /// Contradictions, and settings of networks that planish does not compute.
    pub fn complete_convnext(&mut self, mut config: Config) -> Result<Config, Error> {
        self.refuse_heads()?;
        self.check_patch_size([config.patch_size; 2])?;
        match (self.settings, self.dialect) {
            (Some(settings), Dialect::Timm) => self.timm_convnext(&mut config, settings)?,
            (Some(settings), Dialect::Transformers) => {
                self.transformers_convnext(&mut config, settings)?;
            }
            (None, _) => {}
        }
        self.assumed.push(format!("norm ε: {:e}, last norm {:e}", config.eps, config.final_eps));
        let least = config.image_size;
        // transformers' networks take images of any size: the size is the processor's.
        let processed = match (self.overrides.image_size, self.images) {
            (None, Some(images)) => shortest_edge(images)?.map(|edge| (images, [edge; 2])),
            _ => None,
        };
        let stated = match processed {
            Some((images, size)) => Some((images.place.clone(), size)),
            None => self.image_size()?,
        };
        config.image_size = match stated {
            Some((place, size)) => {
                if size.iter().zip(least).any(|(n, least)| !n.is_multiple_of(least) || *n == 0) {
                    let shown = format!("downsampling to a {}th", least[0]);
                    let tensor = "the downsampling layers";
                    return Err(self.contradiction(&place, "image size", size, shown, tensor));
                }
                size
            }
            None => {
                self.assumed.push("image size 224×224".into());
                [224; 2]
            }
        };
        Ok(config)
    }

    fn timm_convnext(&mut self, config: &mut Config, settings: &Settings) -> Result<(), Error> {
        ARGUMENTS.check(settings)?;
        let key = "model_args.patch_size";
        if let Some(stated) = settings.count(key)?.filter(|&stated| stated != config.patch_size) {
            let (shown, tensor) = (config.patch_size, "`stem.0.weight`");
            return Err(self.contradiction(&settings.place, key, stated, shown, tensor));
        }
        if config.image_size[0] > TIMM_STRIDE {
            let means = "timm dilates the convolutions of the last stages for such patches";
            return Err(settings.not_computed(key, means, COMPUTES, "use patches of 4 pixels"));
        }
        let key = "model_args.kernel_sizes";
        let sevens = |value: &serde_json::Value| match value.as_array() {
            Some(list) => list.iter().all(|n| n == KERNEL),
            None => value == KERNEL,
        };
        if settings.get(key).is_some_and(|value| !sevens(value)) {
            let means = "it selects other convolutions";
            return Err(settings.not_computed(key, means, COMPUTES, "use 7×7 convolutions"));
        }
        for (key, shown, tensor) in [
            ("model_args.use_grn", config.grn, "`mlp.grn`"),
            ("model_args.conv_bias", true, "`conv_dw.bias`"),
        ] {
            if let Some(stated) = settings.flag(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(&settings.place, key, stated, shown, tensor));
            }
        }
        self.note_name(&["convnext_", "convnextv2_"])?;
        self.check_top_level(settings, &ARGUMENTS)?;
        for key in ["model_args.global_pool", "global_pool"] {
            if settings.text(key)?.is_some_and(|pool| pool != "avg") {
                let means = "it selects another pooling";
                return Err(settings.not_computed(key, means, COMPUTES, "use a mean"));
            }
        }
        let name = settings.text("architecture")?.unwrap_or_default();
        // The default of this architecture alone.
        let name = name.rsplit('/').next().unwrap_or(name);
        let named = name.starts_with("convnext_xxlarge").then_some(1e-5);
        if let Some(eps) = settings.number("model_args.norm_eps")?.or(named) {
            (config.eps, config.final_eps) = (eps, eps);
        }
        self.check_convnext(config, settings, ["model_args.dims", "model_args.depths"])?;
        let place = settings.place.as_str();
        for (key, shown, tensor) in [
            ("num_classes", config.classes, "`head.fc.weight`"),
            ("model_args.num_classes", config.classes, "`head.fc.weight`"),
            ("model_args.in_chans", config.channels, "`stem.0.weight`"),
        ] {
            if let Some(stated) = settings.count(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(place, key, stated, shown, tensor));
            }
        }
        Ok(())
    }

    fn transformers_convnext(
        &mut self,
        config: &mut Config,
        settings: &Settings,
    ) -> Result<(), Error> {
        check_keys(settings, &SETTINGS, COMPUTES)?;
        check_problem(settings)?;
        let (key, kind) = ("model_type", if config.grn { "convnextv2" } else { "convnext" });
        if let Some(stated) = settings.text(key)?.filter(|&stated| stated != kind) {
            let shown = if config.grn { "response normalisation" } else { "none" };
            let tensor = "the blocks";
            return Err(self.contradiction(&settings.place, key, stated, shown, tensor));
        }
        if settings.text("hidden_act")?.is_some_and(|name| name != "gelu") {
            let means = "it selects another activation";
            return Err(settings.not_computed("hidden_act", means, COMPUTES, "use GELU"));
        }
        match settings.number("layer_norm_eps")? {
            Some(eps) if eps > 0.0 && eps < 1.0 => config.final_eps = eps,
            Some(_) => {
                let expected = "a number between 0 and 1";
                return Err(settings.unsupported("layer_norm_eps", expected, "correct it"));
            }
            None => {}
        }
        let key = "patch_size";
        if let Some(stated) = settings.count(key)?.filter(|&stated| stated != config.patch_size) {
            let (shown, tensor) = (config.patch_size, "the patch projection");
            return Err(self.contradiction(&settings.place, key, stated, shown, tensor));
        }
        self.check_convnext(config, settings, ["hidden_sizes", "depths"])?;
        for (key, shown, tensor) in [
            ("num_channels", config.channels, "the patch projection"),
            ("num_labels", config.classes, "the classifier"),
        ] {
            if let Some(stated) = settings.count(key)?.filter(|&stated| stated != shown) {
                return Err(self.contradiction(&settings.place, key, stated, shown, tensor));
            }
        }
        Ok(())
    }

    /// Checks widths and depths against the tensors.
    fn check_convnext(
        &self,
        config: &Config,
        settings: &Settings,
        [dims, depths]: [&'static str; 2],
    ) -> Result<(), Error> {
        for (key, shown) in [(dims, &config.dims), (depths, &config.depths)] {
            let Some(stated) = settings.numbers(key)? else { continue };
            let same = stated.iter().copied().eq(shown.iter().map(|&n| n as f32));
            if !same {
                return Err(self.contradiction(&settings.place, key, stated, shown, "the stages"));
            }
        }
        Ok(())
    }
}
