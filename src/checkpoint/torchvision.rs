//! torchvision's layout: `VisionTransformer` of `torchvision.models.vision_transformer`; the MLP
//! names of its first version (`linear_1`, `linear_2`); and heads that fine-tuning scripts
//! substitute: a bare `nn.Linear`, or one inside an `nn.Sequential`.

use super::layout::LayoutPart;
use super::spelling::{Spelling, index};

/// torchvision's names.
pub(super) const SPELLING: Spelling = Spelling {
    tokens: &[("class_token", "cls_token"), ("encoder.pos_embedding", "pos_embed")],
    modules: &[
        ("conv_proj.", "patch_embed.proj."),
        ("encoder.ln.", "norm."),
        ("heads.head.", "head."),
        ("heads.", "head."),
    ],
    scales: &[],
    block: "encoder.layers.encoder_layer_",
    inside: &[
        ("ln_1.", "norm1.", 0, 1),
        ("self_attention.in_proj_", "attn.qkv.", 0, 1),
        ("self_attention.out_proj.", "attn.proj.", 0, 1),
        ("ln_2.", "norm2.", 0, 1),
        ("mlp.0.", "mlp.fc1.", 0, 1),
        ("mlp.3.", "mlp.fc2.", 0, 1),
        ("mlp.linear_1.", "mlp.fc1.", 0, 1),
        ("mlp.linear_2.", "mlp.fc2.", 0, 1),
    ],
};

/// Width, depth, MLP width and heads of the models that torchvision publishes: B, L and H. H has 80
/// channels per head, so its number of heads does not follow from a common head size.
const PUBLISHED: [[usize; 4]; 3] =
    [[768, 12, 3072, 12], [1024, 24, 4096, 16], [1280, 32, 5120, 16]];

/// The canonical part of a name.
pub(super) fn part(name: &str) -> Option<LayoutPart> {
    let numbered = name.strip_prefix("heads.").and_then(index).map(|(_, rest)| rest);
    match numbered {
        Some(rest) => SPELLING.part(&format!("heads.{rest}")),
        None => SPELLING.part(name),
    }
}

/// Heads of the published model of these sizes.
pub(super) fn published_heads(dim: usize, depth: usize, mlp_dim: usize) -> Option<usize> {
    let same = |model: &&[usize; 4]| model[..3] == [dim, depth, mlp_dim];
    PUBLISHED.iter().find(same).map(|model| model[3])
}
