//! timm's layout: `VisionTransformer` of `timm.models.vision_transformer` (1.0).

use super::Layout;
use super::error::Mismatch;
use super::layout::LayoutPart;
use super::read::{Shapes, compare, nonempty};
use super::spelling::index;
use crate::models::vit::{Activation, Config, Distillation, FinalNorm, Pooling};
use std::collections::BTreeSet;

/// Tensors outside the blocks.
const OUTSIDE: [&str; 29] = [
    "cls_token",
    "dist_token",
    "reg_token",
    "pos_embed",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "norm_pre.weight",
    "norm_pre.bias",
    "norm.weight",
    "norm.bias",
    "fc_norm.weight",
    "fc_norm.bias",
    "head.weight",
    "head.bias",
    "head_dist.weight",
    "head_dist.bias",
    "attn_pool.latent",
    "attn_pool.q.weight",
    "attn_pool.q.bias",
    "attn_pool.kv.weight",
    "attn_pool.kv.bias",
    "attn_pool.proj.weight",
    "attn_pool.proj.bias",
    "attn_pool.norm.weight",
    "attn_pool.norm.bias",
    "attn_pool.mlp.fc1.weight",
    "attn_pool.mlp.fc1.bias",
    "attn_pool.mlp.fc2.weight",
    "attn_pool.mlp.fc2.bias",
];

/// Tensors of a block.
const INSIDE: [&str; 18] = [
    "norm1.weight",
    "norm1.bias",
    "attn.qkv.weight",
    "attn.qkv.bias",
    "attn.q_norm.weight",
    "attn.q_norm.bias",
    "attn.k_norm.weight",
    "attn.k_norm.bias",
    "attn.proj.weight",
    "attn.proj.bias",
    "ls1.gamma",
    "norm2.weight",
    "norm2.bias",
    "mlp.fc1.weight",
    "mlp.fc1.bias",
    "mlp.fc2.weight",
    "mlp.fc2.bias",
    "ls2.gamma",
];

/// Fewer tensors than any block has.
const LEAST_IN_BLOCK: usize = 8;
/// So many blocks may lack tensors, and all missing tensors are still counted.
const FEW_BLOCKS: usize = 32;

/// The block of a name and the rest of the name; the index has no leading zeros.
fn in_block(name: &str) -> Option<(usize, &str)> {
    name.strip_prefix("blocks.").and_then(index)
}

/// Every timm name is canonical and unsplit.
pub(super) fn part(name: &str) -> Option<LayoutPart> {
    let known = match in_block(name) {
        Some((_, rest)) => INSIDE.contains(&rest),
        None => OUTSIDE.contains(&name),
    };
    known.then(|| LayoutPart::whole(name.to_string()))
}

/// The configuration as far as the tensors determine it. The grid is one row of patches of unknown
/// arrangement; heads, pooling, activation (unless the MLP is gated) and the place of the blocks' norms
/// are placeholders for [`Reader`](super::reader::Reader) to fill in.
///
/// Tensors that only timm omits are required in the other layouts, so there a missing class token
/// is an error and not another kind of model.
///
/// # Errors
/// What does not fit such a model.
pub(super) fn structure(
    shapes: &Shapes,
    layout: Layout,
    distillation: Distillation,
) -> Result<Config, Box<Mismatch>> {
    nonempty(shapes)?;
    let dim_of = |name: &str, axis: usize| shapes.get(name).and_then(|s| s.get(axis).copied());
    let has = |name: &str| shapes.contains_key(name);
    let blocks: BTreeSet<usize> =
        shapes.keys().filter_map(|name| in_block(name)).map(|(i, _)| i).collect();
    let dim = dim_of("patch_embed.proj.weight", 0)
        .or_else(|| dim_of("head.weight", 1))
        .or_else(|| dim_of("blocks.0.norm1.weight", 0))
        .unwrap_or(0);
    let any_block =
        |rest: &str| blocks.iter().any(|i| shapes.contains_key(&format!("blocks.{i}.{rest}")));
    let patch = |axis: usize| dim_of("patch_embed.proj.weight", axis).unwrap_or(1);
    let fixed = layout != Layout::Timm;
    let dinov2 = layout == Layout::TransformersDinov2;
    let (clip, siglip) = (layout == Layout::TransformersClip, layout == Layout::TransformersSiglip);
    let hidden =
        dim_of("blocks.0.mlp.fc1.weight", 0).or_else(|| dim_of("blocks.0.mlp.fc1.bias", 0));
    // A gated MLP's first layer has two outputs for each input of the second.
    let narrow = dim_of("blocks.0.mlp.fc2.weight", 1);
    let gated = hidden.is_some_and(|hidden| narrow.and_then(|n| n.checked_mul(2)) == Some(hidden));
    let qk_norm = any_block("attn.q_norm.weight") || any_block("attn.k_norm.weight");
    let of_head = dim_of("blocks.0.attn.q_norm.weight", 0).filter(|_| qk_norm);
    let norms = ["norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias"].map(has);
    let final_norm = match norms {
        // The reader checks that the configuration confirms it.
        [false, false, false, false] if layout == Layout::Timm => FinalNorm::None,
        _ if clip => FinalNorm::None,
        [false, _, true, _] => FinalNorm::AfterPool,
        _ => FinalNorm::BeforePool,
    };
    let config = Config {
        image_size: [patch(2), patch(3)],
        patch_size: [patch(2), patch(3)],
        channels: patch(1),
        dim,
        // A count, not the highest index, so that a gap shows as a missing block and a huge index
        // cannot exhaust memory. Nor can many blocks of one tensor each.
        depth: blocks.len().min(shapes.len() / LEAST_IN_BLOCK + FEW_BLOCKS),
        heads: of_head.map_or(1, |of_head| (dim / of_head.max(1)).max(1)),
        mlp_dim: narrow.filter(|_| gated).or(hidden).unwrap_or(dim.saturating_mul(4)),
        classes: dim_of("head.weight", 0).or_else(|| dim_of("head.bias", 0)).unwrap_or(0),
        class_token: has("cls_token") || fixed && !siglip || distillation != Distillation::None,
        distillation,
        registers: dim_of("reg_token", 1).unwrap_or(0),
        position_covers_prefix: false,
        registers_without_position: false,
        position_resize: None,
        patch_bias: has("patch_embed.proj.bias") || fixed && !clip,
        qkv_bias: any_block("attn.qkv.bias") || layout == Layout::Torchvision,
        layer_scale: any_block("ls1.gamma") || any_block("ls2.gamma") || dinov2,
        post_norm: false,
        qk_norm,
        norm_pre: has("norm_pre.weight") || clip,
        final_norm,
        pooling: match (dinov2, has("attn_pool.latent")) {
            (true, _) => Pooling::TokenAndMean,
            (false, true) => Pooling::Attention,
            (false, false) => Pooling::Token,
        },
        pool_prefix: false,
        activation: if gated { Activation::SwiGlu } else { Activation::Gelu },
        eps: layout.eps(),
    };
    let mut mismatch = compare(config.declare().params(), shapes, Some(("pos_embed", 1)));
    if config.depth == 0 {
        mismatch.missing.push("blocks.0".into());
    }
    if mismatch.is_empty() { Ok(config) } else { Err(Box::new(mismatch)) }
}
