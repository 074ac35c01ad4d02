//! What timm's architecture names imply beyond the tensors.
//!
//! A name selects the defaults of an architecture. Some of them do not show in tensor names and
//! shapes: the place of the layer norms, the activation, ε, the number of heads, the pooling.
//! `tests/reference/sweep_timm.py` compares planish with every architecture of timm.

use super::Error;
use super::settings::Settings;
use crate::models::arch::TIMM_CLIP_EPS;
use crate::models::vit::{self, Pooling};

/// What planish computes, for error messages.
pub(super) const PLAIN: &str = "MLP-Mixer, ConvNeXt and Vision Transformers with layer norms before \
     or after attention and MLP, an absolute position embedding, and an MLP of two layers, which may \
     be gated (SwiGLU)";

/// What a part of a name implies.
enum Says {
    /// planish does not compute this network; the reason.
    Other(&'static str),
    /// The activation, unless `act_layer` states it.
    Activation(vit::Activation),
    /// The name leaves the activation open, so `act_layer` must state it; the reason.
    Open(&'static str),
    /// The norms of a block follow attention and MLP.
    PostNorm,
    /// There is no last norm.
    NoFinalNorm,
    /// Class and register tokens take part in the pooling, unless `pool_include_prefix` states it.
    PoolsPrefix,
    /// The number of heads.
    Heads(usize),
    /// ε of the layer norms, unless `norm_layer` states it.
    Eps(f64),
    /// The pooling, unless `global_pool` states it.
    Pooling(Pooling),
}

use Says::{Activation, Eps, Heads, NoFinalNorm, Open, Other, PoolsPrefix, PostNorm};
use vit::Activation::{Gelu, GeluTanh, QuickGelu, SwiGlu};

/// SigLIP's name leaves the activation open.
const EITHER_GELU: &str =
    "some architectures of this name have the exact GELU, others its tanh approximation";

/// Words of a name and what they imply. For each kind, the first matching row counts.
const ROWS: [(&str, Says); 92] = [
    // Blocks.
    ("rpn", PostNorm),
    ("18x2", Other("its blocks run two attentions in parallel, then two MLPs")),
    ("xp", Other("its blocks run attention and MLP in parallel")),
    ("pwee", Other("its blocks run attention and MLP in parallel")),
    ("dpwee", Other("its blocks run differential attention and MLP in parallel")),
    ("dwee", Other("it has differential attention")),
    ("dlittle", Other("it has differential attention")),
    ("aimv2", Other("it has RMS norms and gated MLPs (SwiGLU)")),
    ("test_vit4", Other("it has RMS norms")),
    ("beit3", Other("its attention and MLP have a layer norm inside")),
    // Positions.
    ("rope", Other("its attention rotates queries and keys by position (RoPE)")),
    ("dinov3", Other("its attention rotates queries and keys by position (RoPE)")),
    ("lingbot", Other("its attention rotates queries and keys by position (RoPE)")),
    ("sapiens2", Other("its attention rotates queries and keys by position (RoPE)")),
    ("pe_core", Other("its attention rotates queries and keys by position (RoPE)")),
    ("pe_lang", Other("its attention rotates queries and keys by position (RoPE)")),
    ("pe_spatial", Other("its attention rotates queries and keys by position (RoPE)")),
    ("eva02", Other("its attention rotates queries and keys by position (RoPE)")),
    ("relpos", Other("its attention depends on relative positions")),
    ("srelpos", Other("its attention depends on relative positions")),
    ("samvit", Other("its attention has windows and relative positions")),
    ("beit", Other("its attention depends on relative positions")),
    ("beitv2", Other("its attention depends on relative positions")),
    // Patches.
    ("mci", Other("its patch embedding is a convolutional network")),
    ("r_s16", Other("its patch embedding is a convolutional network")),
    ("r26", Other("its patch embedding is a convolutional network")),
    ("r50", Other("its patch embedding is a convolutional network")),
    ("vit_base_resnet50", Other("its patch embedding is a convolutional network")),
    ("resnet26d", Other("its patch embedding is a convolutional network")),
    ("resnet50d", Other("its patch embedding is a convolutional network")),
    ("vitamin", Other("its patch embedding is a convolutional network")),
    ("naflexvit", Other("it takes images of any size")),
    // Other families whose tensor names are the same or almost the same.
    ("eva_giant", Other("it is another network (timm: Eva)")),
    ("cait", Other("it is another network (CaiT)")),
    ("convit", Other("it is another network (ConViT)")),
    ("hiera", Other("it is another network (Hiera)")),
    ("xcit", Other("it is another network (XCiT)")),
    ("volo", Other("it is another network (VOLO)")),
    ("deepseek_vit", Other("it is another network (DeepSeek's encoder)")),
    ("gemma4_vit", Other("it is another network (Gemma's encoder)")),
    ("qwen3_vit", Other("it is another network (Qwen's encoder)")),
    ("gmixer", Other("its MLPs are gated (gMixer)")),
    ("resmlp", Other("it is another network (ResMLP)")),
    ("gmlp", Other("it is another network (gMLP)")),
    ("test_convnext", Other("its activation is the tanh GELU")),
    ("test_convnext2", Other("its activation is the tanh GELU")),
    ("test_convnext3", Other("its activation is SiLU")),
    // Activations.
    ("giant_patch14_dinov2", Activation(SwiGlu)),
    ("giant_patch14_reg4_dinov2", Activation(SwiGlu)),
    ("giant_patch14_reg1_tipsv2", Activation(SwiGlu)),
    ("quickgelu", Activation(QuickGelu)),
    ("quick_gelu", Activation(QuickGelu)),
    ("vit_base_patch32_siglip", Activation(GeluTanh)),
    ("vit_large_patch16_siglip_512", Activation(GeluTanh)),
    ("vit_large_patch16_siglip_gap_512", Activation(GeluTanh)),
    ("vit_so400m_patch16_siglip", Activation(GeluTanh)),
    ("vit_giantopt_patch16_siglip", Activation(GeluTanh)),
    ("vit_base_patch16_siglip", Activation(Gelu)),
    ("vit_large_patch16_siglip", Activation(Gelu)),
    ("vit_so400m_patch14_siglip", Activation(Gelu)),
    ("siglip", Open(EITHER_GELU)),
    ("siglip2", Open(EITHER_GELU)),
    // No last norm.
    ("intern300m", NoFinalNorm),
    ("radio", NoFinalNorm),
    // ε: timm's `LayerNorm(eps=1e-5)` of all CLIP models.
    ("clip", Eps(TIMM_CLIP_EPS)),
    // Heads where the size's name would be wrong, then those by size.
    ("vit_base_patch16_gap_224", Heads(16)),
    ("vit_base_patch32_plus", Heads(14)),
    ("vit_base_patch16_plus", Heads(14)),
    ("eva_large", Heads(16)),
    ("test_vit", Heads(2)),
    ("test_vit2", Heads(2)),
    ("test_vit3", Heads(3)),
    ("vit_giant_patch14_dinov2", Heads(24)),
    ("vit_giant_patch14_reg4_dinov2", Heads(24)),
    ("vit_tiny", Heads(3)),
    ("vit_small", Heads(6)),
    ("vit_base", Heads(12)),
    ("vit_large", Heads(16)),
    ("deit_tiny", Heads(3)),
    ("deit_small", Heads(6)),
    ("deit_base", Heads(12)),
    ("deit3_small", Heads(6)),
    ("deit3_base", Heads(12)),
    ("deit3_large", Heads(16)),
    ("flexivit_small", Heads(6)),
    ("flexivit_base", Heads(12)),
    ("flexivit_large", Heads(16)),
    // Pooling by mean: `gap` is global average pooling.
    ("gap", Says::Pooling(Pooling::Mean)),
    ("eva_large", Says::Pooling(Pooling::Mean)),
    ("test_vit2", Says::Pooling(Pooling::Mean)),
    ("rpn", Says::Pooling(Pooling::Mean)),
    ("test_vit3", PoolsPrefix),
];

/// Families of plain Vision Transformers.
const FAMILIES: [&str; 4] = ["vit", "deit", "deit3", "flexivit"];

/// Other words in names of plain architectures, besides numbers, `patch16` and `reg4`.
const WORDS: [&str; 38] = [
    "nano",
    "micro",
    "tiny",
    "xsmall",
    "small",
    "wee",
    "little",
    "medium",
    "mediumd",
    "betwixt",
    "base",
    "large",
    "huge",
    "giant",
    "giantopt",
    "gigantic",
    "so150m",
    "so150m2",
    "so400m",
    "intern300m",
    "plus",
    "36x1",
    "distilled",
    "gap",
    "clip",
    "siglip",
    "quickgelu",
    "rpn",
    "miil",
    "dinov2",
    "tipsv2",
    "radio",
    "map",
    "in21k",
    "in21ft1k",
    "laion2b",
    "dino",
    "sam",
];

/// An architecture's name as timm writes it.
pub(super) struct Named {
    /// The name with underscores at both ends, without repository and tag.
    words: String,
}

impl Named {
    /// `timm/vit_base_patch16_224.augreg` is `vit_base_patch16_224`.
    pub fn new(name: &str) -> Named {
        let name = name.rsplit(['/', ':']).next().unwrap_or(name);
        let name = name.split('.').next().unwrap_or(name).to_lowercase();
        let words = name.replace(|c: char| !c.is_alphanumeric(), "_");
        Named { words: format!("_{words}_") }
    }

    fn first<T>(&self, kind: impl Fn(&'static Says) -> Option<T>) -> Option<T> {
        let fits = |words: &str| self.words.contains(&format!("_{words}_"));
        ROWS.iter().filter(|(words, _)| fits(words)).find_map(|(_, says)| kind(says))
    }

    /// Why planish does not compute this architecture, if so.
    pub fn other(&self) -> Option<&'static str> {
        self.first(|says| if let Other(why) = says { Some(*why) } else { None })
    }

    /// The activation, if it is not timm's default; or why the name leaves it open.
    pub fn activation(&self) -> Option<Result<vit::Activation, &'static str>> {
        self.first(|says| match says {
            Activation(activation) => Some(Ok(*activation)),
            Open(why) => Some(Err(*why)),
            _ => None,
        })
    }

    /// Whether the norms of a block follow attention and MLP.
    pub fn post_norm(&self) -> bool {
        self.first(|says| matches!(says, PostNorm).then_some(())).is_some()
    }

    /// Whether there is no last norm.
    pub fn no_final_norm(&self) -> bool {
        self.first(|says| matches!(says, NoFinalNorm).then_some(())).is_some()
    }

    /// Whether class and register tokens take part in the pooling.
    pub fn pools_prefix(&self) -> bool {
        self.first(|says| matches!(says, PoolsPrefix).then_some(())).is_some()
    }

    /// The number of heads, if the name begins like one of timm's.
    pub fn heads(&self) -> Option<usize> {
        let begins = |words: &str| self.words.starts_with(&format!("_{words}_"));
        ROWS.iter().filter(|(words, _)| begins(words)).find_map(|(_, says)| match says {
            Heads(heads) => Some(*heads),
            _ => None,
        })
    }

    /// ε, if it is not timm's default.
    pub fn eps(&self) -> Option<f64> {
        self.first(|says| if let Eps(eps) = says { Some(*eps) } else { None })
    }

    /// The pooling.
    pub fn pooling(&self) -> Option<Pooling> {
        self.first(|says| if let Says::Pooling(pooling) = says { Some(*pooling) } else { None })
    }

    /// Whether timm uses every word of the name for plain Vision Transformers.
    pub fn is_known(&self) -> bool {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let after = |word: &str, start| word.strip_prefix(start).is_some_and(number);
        let plain = |word: &str| {
            WORDS.contains(&word)
                || number(word)
                || ["patch", "reg", "v"].iter().any(|s| after(word, s))
        };
        let mut words = self.words.trim_matches('_').split('_');
        match words.next() {
            Some("eva") => words.next() == Some("large") && words.all(plain),
            Some("test") => {
                matches!(words.next(), Some("vit" | "vit2" | "vit3")) && words.next().is_none()
            }
            Some(family) => FAMILIES.contains(&family) && words.all(plain),
            None => false,
        }
    }
}

/// Refuses an architecture that planish does not compute, by its name alone.
pub(super) fn check(settings: &Settings) -> Result<(), Error> {
    let key = "architecture";
    let Some(why) = settings.text(key)?.and_then(|name| Named::new(name).other()) else {
        return Ok(());
    };
    let remedy = "use a plain model; if this is one, correct the architecture name";
    Err(settings.not_computed(key, why, PLAIN, remedy))
}
