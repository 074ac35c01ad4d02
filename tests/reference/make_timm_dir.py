"""Writes tests/reference/timm-tiny: a small random model, saved by timm.

    python tests/reference/make_timm_dir.py

Needs timm (1.0.31 was used), torch and safetensors. Tests read the result; they do not run this script.
"""

from pathlib import Path

import timm
import torch
from timm.models._hub import save_for_hf

torch.manual_seed(0)
model = timm.create_model(
    "vit_tiny_patch16_224",
    img_size=16,
    patch_size=8,
    embed_dim=12,
    depth=2,
    num_heads=3,
    num_classes=4,
    reg_tokens=2,
    no_embed_class=True,
    global_pool="avg",
    init_values=1e-5,
)
save_for_hf(
    model,
    Path(__file__).parent / "timm-tiny",
    model_config={"label_names": ["cat", "dog", "bird", "fish"]},
    safe_serialization=True,
)
