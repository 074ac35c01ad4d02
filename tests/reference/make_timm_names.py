"""Writes tests/reference/timm_names.json: the network that timm builds for each architecture name.

    python tests/reference/make_timm_names.py

For every architecture of timm with the tensor names of a Vision Transformer: the network (`plain` if
planish computes it, or the feature that makes it different), and the settings that tensors do not
determine: heads, ε, activation, pooling, the place of the blocks' norms, whether there is a last norm.
They are read from the modules of a model without weights. Needs timm (1.0.31 was
used) and torch. Tests read the result; they do not run this script.
"""

import json
from pathlib import Path

import timm
import torch
from timm.layers import Attention, AttentionPoolLatent, GluMlp, LayerNorm, Mlp, PatchEmbed
from timm.models._registry import _deprecated_models, _model_to_module
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer

MODULES = """beit cait convit deepseek_vit deit eva gemma4_vit naflexvit qwen3_vit
vision_transformer vision_transformer_hybrid vision_transformer_relpos vision_transformer_sam
vitamin volo xcit""".split()
GELU = {"SiLU": "swiglu", "GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}


def network(model):
    """`plain`, or the first part that planish does not compute."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return type(model).__name__
    block = model.blocks[0]
    parts = [(type(block), (Block, ResPostBlock)), (type(model.patch_embed), PatchEmbed)]
    if type(block) in (Block, ResPostBlock):
        mlp = GluMlp if type(block.mlp) is GluMlp and not block.mlp.gate_last else Mlp
        parts += [(type(block.attn), Attention), (type(block.mlp), mlp), (type(block.norm1), LayerNorm),
                  (type(block.attn.norm), torch.nn.Identity),
                  (type(block.attn.q_norm), (torch.nn.Identity, LayerNorm))]
    for found, plain in parts:
        if not issubclass(found, plain) and found is not torch.nn.LayerNorm:
            return found.__name__
    if type(model.attn_pool) not in (type(None), AttentionPoolLatent):
        return type(model.attn_pool).__name__
    if model.pos_embed is None:
        return "no position embedding"
    return "plain"


rows = []
# Includes names of earlier versions.
earlier = {old: new.split(".")[0] for old, new in _deprecated_models.items()}
for name in [*timm.list_models(), *earlier]:
    if _model_to_module.get(earlier.get(name, name)) not in MODULES:
        continue
    with torch.device("meta"):
        try:
            model = timm.create_model(earlier.get(name, name), depth=1)
        except (TypeError, AssertionError):
            model = timm.create_model(earlier.get(name, name))
    row = dict(name=name, network=network(model))
    if row["network"] == "plain":
        block = model.blocks[0]
        row |= dict(heads=block.attn.num_heads, eps=block.norm1.eps, pooling=model.global_pool,
                    activation=GELU[type(block.mlp.act).__name__])
        final = [model.norm, getattr(model, "fc_norm", torch.nn.Identity())]
        features = dict(post_norm=type(block) is ResPostBlock,
                        no_final_norm=all(isinstance(norm, torch.nn.Identity) for norm in final),
                        pools_prefix=model.pool_include_prefix)
        row |= {feature: True for feature, present in features.items() if present}
    rows.append(row)
    print(row)
out = Path(__file__).parent / "timm_names.json"
out.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in rows) + "\n]\n")
