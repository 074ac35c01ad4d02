//! Architectures by name, and their names in timm.

use super::vit::{Activation, Config, Distillation, FinalNorm, Pooling};
use super::{Error, convnext, mlp_mixer};
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

/// Name, width and depth of MLP-Mixers. All but the first two are timm's.
const MIXERS: [(&str, usize, usize); 5] =
    [("nano", 64, 6), ("micro", 128, 6), ("small", 512, 8), ("base", 768, 12), ("large", 1024, 24)];

/// Patch sizes for which timm's network is the one that planish computes.
const CONVNEXT_PATCHES: [usize; 2] = [1, 4];

/// Name, depths and widths of ConvNeXts. All but the first are timm's.
const CONVNEXTS: [(&str, [usize; 4], [usize; 4]); 10] = [
    ("mini", [1, 1, 2, 1], [16, 32, 64, 128]),
    ("atto", [2, 2, 6, 2], [40, 80, 160, 320]),
    ("femto", [2, 2, 6, 2], [48, 96, 192, 384]),
    ("pico", [2, 2, 6, 2], [64, 128, 256, 512]),
    ("nano", [2, 2, 8, 2], [80, 160, 320, 640]),
    ("tiny", [3, 3, 9, 3], [96, 192, 384, 768]),
    ("small", [3, 3, 27, 3], [96, 192, 384, 768]),
    ("base", [3, 3, 27, 3], [128, 256, 512, 1024]),
    ("large", [3, 3, 27, 3], [192, 384, 768, 1536]),
    ("xlarge", [3, 3, 27, 3], [256, 512, 1024, 2048]),
];

/// Sizes of MLP-Mixers in timm, which names them by their first letter.
const TIMM_MIXER_SIZES: [&str; 3] = ["small", "base", "large"];

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

/// The known sizes of each family.
fn sizes() -> String {
    let list = |names: &[&str]| names.join(", ");
    format!(
        "{} for vit, {} for mixer, {} for convnext and convnextv2",
        list(&SIZES.map(|size| size.0)),
        list(&MIXERS.map(|size| size.0)),
        list(&CONVNEXTS.map(|size| size.0))
    )
}

fn unknown(name: &str, reason: String, nearest: Option<&str>) -> Error {
    Error::NoArchitecture {
        wanted: name.to_string(),
        reason,
        nearest: nearest.map(str::to_string),
        known: sizes(),
    }
}

/// The configuration of the architecture with this name, with the given classes and input channels.
///
/// # Errors
/// [`Error::NoArchitecture`].
pub fn named(name: &str, classes: usize, channels: usize) -> Result<super::Config, Error> {
    match name.split('_').next() {
        Some("mixer") => mixer(name, classes, channels).map(super::Config::Mixer),
        Some("convnext" | "convnextv2") => {
            convnext(name, classes, channels).map(super::Config::ConvNext)
        }
        _ => vit(name, classes, channels).map(super::Config::Vit),
    }
}

/// The configuration of `mixer_SIZE_patchP_S`, with hidden widths of D/2 over tokens and 4 D over
/// channels, or of timm's short names, such as `mixer_b16_224`.
///
/// # Errors
/// [`Error::NoArchitecture`], with the invalid part of the name and the known sizes.
pub fn mixer(name: &str, classes: usize, channels: usize) -> Result<mlp_mixer::Config, Error> {
    let fail = |reason: String, nearest: Option<&str>| unknown(name, reason, nearest);
    let parts: Vec<&str> = name.split('_').collect();
    let (size, patch, image) = match parts.as_slice() {
        ["mixer", size, patch, image] => match patch.strip_prefix("patch") {
            Some(patch) => (*size, patch, *image),
            None => return Err(fail(format!("expected patchP, found \"{patch}\""), None)),
        },
        // timm's names: a letter for the size, followed by the patch size.
        ["mixer", short, image] => {
            let (letter, patch) = short.split_at(short.len().min(1));
            let sizes = MIXERS.iter().map(|size| size.0);
            let size = sizes.filter(|size| TIMM_MIXER_SIZES.contains(size));
            match size.clone().find(|size| size.starts_with(letter)) {
                Some(size) => (size, patch, *image),
                None => return Err(fail(format!("size \"{letter}\" is not known"), None)),
            }
        }
        _ => return Err(fail("the name does not have a known form".into(), None)),
    };
    let &(_, dim, depth) = MIXERS.iter().find(|s| s.0 == size).ok_or_else(|| {
        fail(format!("size \"{size}\" is not known"), nearest(size, MIXERS.map(|s| s.0)))
    })?;
    let number = |text: &str, what: &str| number(text, what).map_err(|reason| fail(reason, None));
    let (patch, image) = (number(patch, "patch size")?, number(image, "image size")?);
    check_sizes(patch, image, [classes, channels]).map_err(|reason| fail(reason, None))?;
    Ok(mlp_mixer::Config {
        image_size: [image, image],
        patch_size: [patch, patch],
        channels,
        dim,
        depth,
        token_mlp_dim: dim / 2,
        channel_mlp_dim: 4 * dim,
        classes,
        eps: TIMM_EPS,
    })
}

/// The configuration of `convnext_SIZE` or `convnextv2_SIZE`, for images of 224 pixels, or of
/// `convnext_SIZE_patchP_S` for patches and images of other sizes.
///
/// # Errors
/// [`Error::NoArchitecture`], with the invalid part of the name and the known sizes.
pub fn convnext(name: &str, classes: usize, channels: usize) -> Result<convnext::Config, Error> {
    let fail = |reason: String, nearest: Option<&str>| unknown(name, reason, nearest);
    let parts: Vec<&str> = name.split('_').collect();
    let (family, size, patch, image) = match parts.as_slice() {
        [family, size] => (*family, *size, "4", "224"),
        [family, size, patch, image] => match patch.strip_prefix("patch") {
            Some(patch) => (*family, *size, patch, *image),
            None => return Err(fail(format!("expected patchP, found \"{patch}\""), None)),
        },
        _ => return Err(fail("the name does not have a known form".into(), None)),
    };
    let &(_, depths, dims) = CONVNEXTS.iter().find(|s| s.0 == size).ok_or_else(|| {
        fail(format!("size \"{size}\" is not known"), nearest(size, CONVNEXTS.map(|s| s.0)))
    })?;
    let number = |text: &str, what: &str| number(text, what).map_err(|reason| fail(reason, None));
    let (patch, image) = (number(patch, "patch size")?, number(image, "image size")?);
    if !CONVNEXT_PATCHES.contains(&patch) {
        return Err(fail(format!("patch size {patch} is not 1 or 4"), None));
    }
    // Three downsamplings by two follow the patches.
    check_sizes(8 * patch, image, [classes, channels]).map_err(|reason| fail(reason, None))?;
    let v2 = family == "convnextv2";
    Ok(convnext::Config {
        image_size: [image, image],
        patch_size: patch,
        channels,
        depths: depths.to_vec(),
        dims: dims.to_vec(),
        classes,
        layer_scale: !v2,
        grn: v2,
        eps: TIMM_EPS,
        final_eps: TIMM_EPS,
    })
}

/// Why timm cannot build this model from a `config.json`, if it cannot.
pub fn convnext_not_for_timm(config: &convnext::Config) -> Option<String> {
    if config.final_eps != config.eps {
        return Some("timm's ConvNeXts have one ε for all norms".into());
    }
    if config.layer_scale == config.grn {
        return Some("timm's ConvNeXts have LayerScale or global response normalisation".into());
    }
    // Other patches give another downsampling, or dilated convolutions.
    if !CONVNEXT_PATCHES.contains(&config.patch_size) || config.depths.len() != 4 {
        return Some("timm's ConvNeXts have four stages and patches of 1 or 4 pixels".into());
    }
    None
}

/// timm's architecture and arguments for a ConvNeXt, as [`timm_architecture`] for a ViT.
pub fn timm_convnext(config: &convnext::Config) -> (String, Option<Value>) {
    let family = if config.grn { "convnextv2" } else { "convnext" };
    let args = json!({
        "patch_size": config.patch_size,
        "in_chans": config.channels,
        "depths": config.depths,
        "dims": config.dims,
        // timm's smaller architectures write their MLPs as 1×1 convolutions.
        "conv_mlp": false,
        "norm_eps": config.eps,
    });
    (format!("{family}_tiny"), Some(args))
}

/// A number in an architecture's name.
fn number(text: &str, what: &str) -> Result<usize, String> {
    match text.parse::<u16>() {
        Ok(n) if n > 0 => Ok(usize::from(n)),
        _ => Err(format!("{what} \"{text}\" is not a number from 1 to 65535")),
    }
}

/// Checks that patches tile the image, and the counts of classes and channels.
fn check_sizes(patch: usize, image: usize, counts: [usize; 2]) -> Result<(), String> {
    if !image.is_multiple_of(patch) {
        return Err(format!("{image} is not a multiple of the patch size {patch}"));
    }
    for (what, count) in ["class", "channel"].into_iter().zip(counts) {
        if !(1..=1 << 24).contains(&count) {
            return Err(format!("{what} count {count} is not from 1 to 2^24"));
        }
    }
    Ok(())
}

/// The configuration of `vit_SIZE_patchP_S` or `vit_SIZE_patchP_regR_S` with the given classes and
/// input channels: class-token pooling, biases everywhere, exact GELU, ε = 10⁻⁶. As in timm,
/// register tokens have no rows in the position embedding.
///
/// # Errors
/// [`Error::NoArchitecture`], with the invalid part of the name and the known sizes.
pub fn vit(name: &str, classes: usize, channels: usize) -> Result<Config, Error> {
    let fail = |reason: String, nearest: Option<&str>| unknown(name, reason, nearest);
    let number = |text: &str, what: &str| number(text, what).map_err(|reason| fail(reason, None));
    let parts: Vec<&str> = name.split('_').collect();
    let (size, patch, registers, image) = match parts.as_slice() {
        ["vit", size, patch, image] => (*size, *patch, None, *image),
        ["vit", size, patch, registers, image] => (*size, *patch, Some(*registers), *image),
        _ => return Err(fail("the name does not have a known form".into(), None)),
    };
    let &(_, dim, depth, heads) = SIZES.iter().find(|s| s.0 == size).ok_or_else(|| {
        fail(format!("size \"{size}\" is not known"), nearest(size, SIZES.map(|s| s.0)))
    })?;
    let patch = patch
        .strip_prefix("patch")
        .ok_or_else(|| fail(format!("expected patchP, found \"{patch}\""), None))?;
    let (patch, image) = (number(patch, "patch size")?, number(image, "image size")?);
    let registers = match registers.map(|text| (text, text.strip_prefix("reg"))) {
        None => 0,
        Some((_, Some(count))) => number(count, "register count")?,
        Some((text, None)) => {
            return Err(fail(format!("expected regR, found \"{text}\""), None));
        }
    };
    check_sizes(patch, image, [classes, channels]).map_err(|reason| fail(reason, None))?;
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
        registers_without_position: false,
        position_resize: None,
        patch_bias: true,
        qkv_bias: true,
        layer_scale: false,
        post_norm: false,
        qk_norm: false,
        norm_pre: false,
        final_norm: FinalNorm::BeforePool,
        pooling: Pooling::Token,
        pool_prefix: false,
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
    let written = !config.post_norm && config.activation != Activation::SwiGlu;
    if !written || config.pooling == Pooling::TokenAndMean || config.position_resize.is_some() {
        return Some(
            "a config.json of timm has no argument for this block, MLP, pooling or position \
             embedding"
                .into(),
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

/// The ratio r of a hidden width to D. timm computes ⌊D r⌋, so a quotient that rounds down is
/// increased by one ulp.
fn ratio(hidden: usize, dim: usize) -> f64 {
    let ratio = hidden as f64 / dim as f64;
    if ratio * (dim as f64) < hidden as f64 { ratio.next_up() } else { ratio }
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
    add("mlp_ratio", json!(ratio(config.mlp_dim, config.dim)));
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
    if config.final_norm == FinalNorm::None {
        add("final_norm", json!(false));
    }
    if config.pool_prefix {
        add("pool_include_prefix", json!(true));
    }
    if config.qk_norm {
        add("qk_norm", json!(true));
    }
    match config.activation {
        Activation::GeluTanh => drop(add("act_layer", json!("gelu_tanh"))),
        Activation::QuickGelu => drop(add("act_layer", json!("quick_gelu"))),
        Activation::Gelu | Activation::SwiGlu => {}
    }
    (base.to_string(), Some(Value::Object(args)))
}

/// timm's architecture and arguments for an MLP-Mixer, as [`timm_architecture`] for a ViT.
pub fn timm_mixer(config: &mlp_mixer::Config) -> (String, Option<Value>) {
    const NAMES: [&str; 6] = [
        "mixer_s32_224",
        "mixer_s16_224",
        "mixer_b32_224",
        "mixer_b16_224",
        "mixer_l32_224",
        "mixer_l16_224",
    ];
    let pair = |[a, b]: [usize; 2]| if a == b { json!(a) } else { json!([a, b]) };
    let ratio = |hidden: usize| ratio(hidden, config.dim);
    let mut args = Map::new();
    let mut add = |key: &str, value: Value| args.insert(key.to_string(), value);
    add("img_size", pair(config.image_size));
    add("in_chans", json!(config.channels));
    add("mlp_ratio", json!([ratio(config.token_mlp_dim), ratio(config.channel_mlp_dim)]));
    for name in NAMES {
        let Ok(named) = mixer(name, config.classes, config.channels) else { continue };
        if named == *config {
            return (name.to_string(), None);
        }
        let own = (config.dim, config.depth, config.patch_size);
        if (named.dim, named.depth, named.patch_size) == own {
            return (name.to_string(), Some(Value::Object(args)));
        }
    }
    add("patch_size", pair(config.patch_size));
    add("embed_dim", json!(config.dim));
    add("num_blocks", json!(config.depth));
    ("mixer_b16_224".to_string(), Some(Value::Object(args)))
}

/// Why timm cannot build a model that planish writes, if it cannot.
pub fn unknown_to_timm(config: &super::Config) -> Option<String> {
    let super::Config::Mixer(config) = config else { return None };
    let (_, args) = timm_mixer(config);
    args.is_some_and(|args| args.get("num_blocks").is_some()).then(|| {
        "timm has no MLP-Mixer of this width, depth and patch size: planish reads the checkpoint, \
         timm does not"
            .into()
    })
}

/// timm's name for a pooling.
pub fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Token => "token",
        Pooling::Mean => "avg",
        Pooling::Attention => "map",
        Pooling::TokenAndMean => "token and avg",
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
            ("vit_mirco_patch4_32", "did you mean \"micro\"?"),
            ("resnet50", "not have a known form"),
            ("vit_tiny_patch0_32", "patch size \"0\""),
            ("vit_tiny_patch5_32", "32 is not a multiple"),
            ("vit_tiny_patch4_99999999", "image size \"99999999\""),
            ("vit_tiny_patch4_clip_32", "expected regR, found \"clip\""),
            ("vit_tiny_p4_32", "expected patchP, found \"p4\""),
        ] {
            let message = vit(name, 10, 3).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("nano, micro"), "{message}");
        }
        assert!(vit("vit_tiny_patch4_32", 0, 3).is_err());
        assert!(vit("vit_tiny_patch4_32", 10, usize::MAX).is_err());
    }

    #[test]
    fn mixers() {
        // Parameter counts that timm prints for these models.
        for (name, parameters) in [
            ("mixer_s32_224", 19_104_624),
            ("mixer_s16_224", 18_528_264),
            ("mixer_b16_224", 59_880_472),
            ("mixer_l16_224", 208_196_168),
        ] {
            let config = mixer(name, 1000, 3).unwrap();
            assert_eq!(config.network().unwrap().parameters(), parameters, "{name}");
            assert_eq!(timm_mixer(&config), (name.to_string(), None));
        }
        let nano = mixer("mixer_nano_patch7_28", 10, 1).unwrap();
        assert_eq!((nano.dim, nano.tokens(), nano.token_mlp_dim), (64, 16, 32));
        assert_eq!(timm_mixer(&nano).1.unwrap()["mlp_ratio"], json!([0.5, 4.0]));
        assert!(unknown_to_timm(&nano.into()).is_some());
        let larger = mixer("mixer_base_patch16_448", 10, 1).unwrap();
        let (name, args) = timm_mixer(&larger);
        assert_eq!(
            (name.as_str(), args.unwrap()["img_size"].clone()),
            ("mixer_b16_224", json!(448))
        );
        assert_eq!(unknown_to_timm(&larger.into()), None);
        for (name, part) in [
            ("mixer_x16_224", "size \"x\""),
            ("mixer_smal_patch4_32", "did you mean \"small\"?"),
            ("mixer_base_p4_32", "expected patchP, found \"p4\""),
            ("mixer_b16_225", "225 is not a multiple"),
        ] {
            let message = mixer(name, 10, 3).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    const CONVNEXT_PARAMETERS: [(&str, usize); 6] = [
        ("convnext_tiny", 28_589_128),
        ("convnext_base", 88_591_464),
        ("convnextv2_tiny", 28_635_496),
        ("convnextv2_atto", 3_708_400),
        ("convnext_atto", 3_695_520),
        ("convnext_nano", 15_593_560),
    ];

    #[test]
    fn convnexts() {
        // Parameter counts that timm prints for these models.
        for (name, parameters) in CONVNEXT_PARAMETERS {
            let config = convnext(name, 1000, 3).unwrap();
            assert_eq!(config.network().unwrap().parameters(), parameters, "{name}");
        }
        let mini = convnext("convnext_mini_patch1_32", 10, 3).unwrap();
        assert_eq!(mini.network().unwrap().activation(1), [32 * 32, 16]);
        for (name, part) in [
            ("convnext_tinny", "did you mean \"tiny\"?"),
            ("convnext_tiny_patch4_100", "100 is not a multiple"),
            ("convnext_tiny_patch8_256", "patch size 8 is not 1 or 4"),
            ("convnextv2_tiny_p4_224", "expected patchP, found \"p4\""),
        ] {
            let message = convnext(name, 10, 3).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
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
