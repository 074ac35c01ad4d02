//! Architectures by name, and their names in timm.

use super::Error;
use super::vit::{Activation, Config, Distillation, FinalNorm, Pooling};
use crate::nearest::nearest;
use serde_json::{Map, Value, json};

/// Name, width, depth and heads. The MLP is four times as wide. All but the first two are timm's.
const SIZES: [(&str, usize, usize, usize); 6] = [
    ("nano", 64, 6, 4),
    ("micro", 128, 6, 4),
    ("tiny", 192, 12, 3),
    ("small", 384, 12, 6),
    ("base", 768, 12, 12),
    ("large", 1024, 24, 16),
];

/// Names of plain architectures in timm's registry, with patch and image size.
const TIMM: [&str; 15] = [
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch32_384",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch8_224",
    "vit_base_patch32_224",
    "vit_base_patch32_384",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch8_224",
    "vit_large_patch32_224",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
];

/// ε of timm's layer norm, unless an architecture overrides it.
pub const TIMM_EPS: f64 = 1e-6;
/// ε of timm's architectures whose names contain `clip`.
pub const TIMM_CLIP_EPS: f64 = 1e-5;

/// The configuration of the architecture with this name, with the given classes and input channels.
///
/// # Errors
/// [`Error::NoArchitecture`].
pub fn named(name: &str, classes: usize, channels: usize) -> Result<super::Config, Error> {
    vit(name, classes, channels).map(super::Config::Vit)
}

/// The configuration of `vit_SIZE_patchP_S` or `vit_SIZE_patchP_regR_S` with the given classes and
/// input channels: class-token pooling, biases everywhere, exact GELU, ε = 10⁻⁶. As in timm,
/// register tokens have no rows in the position embedding.
///
/// # Errors
/// [`Error::NoArchitecture`], with the invalid part of the name and the known sizes.
pub fn vit(name: &str, classes: usize, channels: usize) -> Result<Config, Error> {
    let fail = |reason: String, nearest: Option<&str>| Error::NoArchitecture {
        wanted: name.to_string(),
        reason,
        nearest: nearest.map(str::to_string),
        known: SIZES.map(|(size, ..)| size).join(", "),
    };
    let number = |text: &str, what: &str| match text.parse::<u16>() {
        Ok(n) if n > 0 => Ok(usize::from(n)),
        _ => Err(fail(format!("{what} `{text}` is not a number from 1 to 65535"), None)),
    };
    let parts: Vec<&str> = name.split('_').collect();
    let (size, patch, registers, image) = match parts.as_slice() {
        ["vit", size, patch, image] => (*size, *patch, None, *image),
        ["vit", size, patch, registers, image] => (*size, *patch, Some(*registers), *image),
        _ => return Err(fail("it does not have that form".into(), None)),
    };
    let &(_, dim, depth, heads) = SIZES.iter().find(|s| s.0 == size).ok_or_else(|| {
        fail(format!("size `{size}` is not known"), nearest(size, SIZES.map(|s| s.0)))
    })?;
    let patch = patch
        .strip_prefix("patch")
        .ok_or_else(|| fail(format!("expected patchP, found `{patch}`"), None))?;
    let (patch, image) = (number(patch, "patch size")?, number(image, "image size")?);
    let registers = match registers.map(|text| (text, text.strip_prefix("reg"))) {
        None => 0,
        Some((_, Some(count))) => number(count, "register count")?,
        Some((text, None)) => {
            return Err(fail(format!("expected regR, found `{text}`"), None));
        }
    };
    if image % patch != 0 {
        return Err(fail(format!("{image} is not a multiple of the patch size {patch}"), None));
    }
    for (what, count) in [("class", classes), ("channel", channels)] {
        if !(1..=1 << 24).contains(&count) {
            return Err(fail(format!("{what} count {count} is not from 1 to 2^24"), None));
        }
    }
    Ok(Config {
        image_size: [image, image],
        patch_size: [patch, patch],
        channels,
        dim,
        depth,
        heads,
        mlp_dim: 4 * dim,
        classes,
        class_token: true,
        distillation: Distillation::None,
        registers,
        position_covers_prefix: registers == 0,
        patch_bias: true,
        qkv_bias: true,
        layer_scale: false,
        norm_pre: false,
        final_norm: FinalNorm::BeforePool,
        pooling: Pooling::Token,
        activation: Activation::Gelu,
        eps: TIMM_EPS,
    })
}

/// The usual number of heads for this width: one per 64 channels.
pub fn usual_heads(dim: usize) -> Option<usize> {
    SIZES
        .iter()
        .find(|size| size.1 == dim)
        .map(|size| size.3)
        .or_else(|| (dim >= 64 && dim.is_multiple_of(64)).then_some(dim / 64))
}

/// Why timm cannot build this model from a `config.json`, if it cannot.
pub fn not_for_timm(config: &Config) -> Option<String> {
    if config.patch_bias == config.norm_pre {
        return Some(
            "in timm, the patch projection has a bias if and only if there is no norm_pre".into(),
        );
    }
    let two = config.two_heads();
    if two && (config.eps != TIMM_EPS || config.registers > 0 || !config.position_covers_prefix)
        || config.distillation == Distillation::Token
    {
        return Some("timm only has the distilled models that DeiT published".into());
    }
    if config.eps != TIMM_EPS && config.eps != TIMM_CLIP_EPS {
        return Some(format!(
            "timm's norms have ε = 1e-6 or 1e-5; this model has {:e}",
            config.eps
        ));
    }
    None
}

/// The ratio r of MLP width to D. timm computes ⌊D r⌋, so a quotient that rounds down is increased
/// by one ulp.
fn mlp_ratio(config: &Config) -> f64 {
    let ratio = config.mlp_dim as f64 / config.dim as f64;
    if ratio * (config.dim as f64) < config.mlp_dim as f64 { ratio.next_up() } else { ratio }
}

/// The architecture under which timm builds this model, and the `model_args` it needs if the name
/// alone is not enough. See [`not_for_timm`] for models that have none.
///
/// With arguments, the name only selects ε and the loader.
pub fn timm_architecture(config: &Config) -> (String, Option<Value>) {
    for name in TIMM {
        let plain = vit(name, config.classes, config.channels);
        if plain.is_ok_and(|plain| plain == *config) {
            return (name.to_string(), None);
        }
    }
    let base = if config.eps == TIMM_CLIP_EPS {
        "vit_base_patch16_clip_224"
    } else if config.two_heads() {
        match config.dim {
            384 => "deit_small_distilled_patch16_224",
            768 => "deit_base_distilled_patch16_224",
            _ => "deit_tiny_distilled_patch16_224",
        }
    } else {
        match config.dim {
            384 => "vit_small_patch16_224",
            768 => "vit_base_patch16_224",
            1024 => "vit_large_patch16_224",
            _ => "vit_tiny_patch16_224",
        }
    };
    let pair = |[a, b]: [usize; 2]| if a == b { json!(a) } else { json!([a, b]) };
    let mut args = Map::new();
    let mut add = |key: &str, value: Value| args.insert(key.to_string(), value);
    add("img_size", pair(config.image_size));
    add("patch_size", pair(config.patch_size));
    add("in_chans", json!(config.channels));
    add("embed_dim", json!(config.dim));
    add("depth", json!(config.depth));
    add("num_heads", json!(config.heads));
    add("mlp_ratio", json!(mlp_ratio(config)));
    add("qkv_bias", json!(config.qkv_bias));
    add("class_token", json!(config.class_token));
    add("no_embed_class", json!(!config.position_covers_prefix));
    add("reg_tokens", json!(config.registers));
    add("pre_norm", json!(config.norm_pre));
    add("fc_norm", json!(config.final_norm == FinalNorm::AfterPool));
    add("global_pool", json!(pooling_name(config.pooling)));
    if config.layer_scale {
        add("init_values", json!(1e-5));
    }
    if config.activation == Activation::GeluTanh {
        add("act_layer", json!("gelu_tanh"));
    }
    (base.to_string(), Some(Value::Object(args)))
}

/// timm's name for a pooling.
pub fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Token => "token",
        Pooling::Mean => "avg",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes() {
        // Parameter counts that timm prints for these models.
        for (name, classes, parameters) in [
            ("vit_tiny_patch16_224", 1000, 5_717_416),
            ("vit_small_patch16_224", 1000, 22_050_664),
            ("vit_base_patch16_224", 1000, 86_567_656),
            ("vit_large_patch16_224", 1000, 304_326_632),
        ] {
            let network = vit(name, classes, 3).unwrap().network().unwrap();
            assert_eq!(network.parameters(), parameters, "{name}");
        }
        let nano = vit("vit_nano_patch7_28", 10, 1).unwrap();
        assert_eq!((nano.dim, nano.depth, nano.heads, nano.tokens()), (64, 6, 4, 17));
        let registers = vit("vit_micro_patch4_reg4_32", 100, 3).unwrap();
        assert_eq!((registers.registers, registers.tokens()), (4, 1 + 4 + 64));
    }

    #[test]
    fn errors_show_which_part_of_a_name_is_invalid() {
        for (name, part) in [
            ("vit_mirco_patch4_32", "did you mean `micro`?"),
            ("resnet50", "not have that form"),
            ("vit_tiny_patch0_32", "patch size `0`"),
            ("vit_tiny_patch5_32", "32 is not a multiple"),
            ("vit_tiny_patch4_99999999", "image size `99999999`"),
            ("vit_tiny_patch4_clip_32", "expected regR, found `clip`"),
            ("vit_tiny_p4_32", "expected patchP, found `p4`"),
        ] {
            let message = vit(name, 10, 3).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("nano, micro"), "{message}");
        }
        assert!(vit("vit_tiny_patch4_32", 0, 3).is_err());
        assert!(vit("vit_tiny_patch4_32", 10, usize::MAX).is_err());
    }

    #[test]
    fn timm_names() {
        let base = vit("vit_base_patch16_224", 100, 3).unwrap();
        assert_eq!(timm_architecture(&base), ("vit_base_patch16_224".into(), None));
        let mut nano = vit("vit_nano_patch7_28", 10, 1).unwrap();
        let (name, args) = timm_architecture(&nano);
        assert_eq!(name, "vit_tiny_patch16_224");
        assert_eq!(args.unwrap()["num_heads"], 4);
        assert_eq!(not_for_timm(&nano), None);
        nano.distillation = Distillation::TokenAndHead;
        assert_eq!(timm_architecture(&nano).0, "deit_tiny_distilled_patch16_224");
        assert_eq!(not_for_timm(&nano), None);
        nano.distillation = Distillation::Token;
        assert!(not_for_timm(&nano).is_some());
        nano.distillation = Distillation::None;
        nano.eps = 1e-12;
        assert!(not_for_timm(&nano).is_some());
    }

    #[test]
    fn heads_of_known_widths() {
        assert_eq!(
            [64, 192, 768, 1280, 100].map(usual_heads),
            [Some(4), Some(3), Some(12), Some(20), None]
        );
    }
}
