//! The layouts of Hugging Face transformers: `ViTForImageClassification` and the classifiers of
//! DeiT, with the names of version 5 (in memory) and of version 4. Version 5 still saves the old
//! names, so only the names show the layout of a file.

use super::layout::LayoutPart;
use super::spelling::Spelling;

/// Prefix of every name of the backbone, unless the file is a bare backbone.
const ROOTS: [&str; 7] = [
    "vit.",
    "deit.",
    "convnext.",
    "convnextv2.",
    "dinov2.",
    "dinov2_with_registers.",
    super::clip::ROOT,
];

/// Tensors of the backbone that the classifier does not use.
const UNUSED: [&str; 3] = ["pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token"];

const TOKENS: &[(&str, &str)] = &[
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.position_embeddings", "pos_embed"),
];

const MODULES: &[(&str, &str)] = &[
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm.", "norm."),
    ("classifier.", "head."),
    ("cls_classifier.", "head."),
    ("distillation_classifier.", "head_dist."),
];

/// Names of transformers 5.
pub(super) const NEW: Spelling = Spelling {
    tokens: TOKENS,
    modules: MODULES,
    scales: &[],
    block: "layers.",
    inside: &[
        ("layernorm_before.", "norm1.", 0, 1),
        ("attention.q_proj.", "attn.qkv.", 0, 3),
        ("attention.k_proj.", "attn.qkv.", 1, 3),
        ("attention.v_proj.", "attn.qkv.", 2, 3),
        ("attention.o_proj.", "attn.proj.", 0, 1),
        ("layernorm_after.", "norm2.", 0, 1),
        ("mlp.fc1.", "mlp.fc1.", 0, 1),
        ("mlp.fc2.", "mlp.fc2.", 0, 1),
    ],
};

/// Names up to transformers 4, and in the files of every version.
pub(super) const OLD: Spelling = Spelling {
    tokens: TOKENS,
    modules: MODULES,
    scales: &[],
    block: "encoder.layer.",
    inside: &[
        ("layernorm_before.", "norm1.", 0, 1),
        ("attention.attention.query.", "attn.qkv.", 0, 3),
        ("attention.attention.key.", "attn.qkv.", 1, 3),
        ("attention.attention.value.", "attn.qkv.", 2, 3),
        ("attention.output.dense.", "attn.proj.", 0, 1),
        ("layernorm_after.", "norm2.", 0, 1),
        ("intermediate.dense.", "mlp.fc1.", 0, 1),
        ("output.dense.", "mlp.fc2.", 0, 1),
    ],
};

/// Prefix of a backbone's name, such as `vit.`, or empty.
pub(super) fn root(name: &str) -> &'static str {
    ROOTS.into_iter().find(|root| name.starts_with(root)).unwrap_or("")
}

/// Whether a name, without its root, belongs to the backbone and not to a classifier.
pub(super) fn in_backbone(name: &str) -> bool {
    !name.contains("classifier.")
}

/// The canonical part of a name.
pub(super) fn part(spelling: &Spelling, name: &str) -> Option<LayoutPart> {
    spelling.part(&name[root(name).len()..])
}

/// Whether a tensor is not used for classification.
pub(super) fn is_ignored(name: &str) -> bool {
    UNUSED.contains(&&name[root(name).len()..])
}
