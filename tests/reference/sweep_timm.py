"""Compares planish with every architecture of timm whose tensors are like a Vision Transformer's,
an MLP-Mixer's or a ConvNeXt's.

    PLANISH=target/release/planish python tests/reference/sweep_timm.py [NAME…]

For each architecture, a small random model is saved as timm saves it, with the tensors as they
would be in a fine-tuned checkpoint. planish must compute timm's logits, or refuse the checkpoint.
The script prints a line for each and ends with 1 if one is wrong. Needs timm (1.0.31 was used),
torch and safetensors; no test runs it.

Each architecture is built in four ways:

- `args`: width, depth, heads and sizes are overridden, and stand in `model_args`;
- `name`: the heads are the architecture's own and stand nowhere, so that planish has only the name;
- `nopool`: as `args`, without a word on pooling;
- `bare`: arguments that make the tensors look plain (no LayerScale, fused projections) on top.

Architectures other than Vision Transformers have no heads: `name` has the same sizes as `args`.

Weights are scaled so that tokens have a variance near ε: a wrong ε shows in the logits.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models._hub import save_config_for_hf
from timm.models._registry import _model_to_module

warnings.filterwarnings("ignore")
MODULES = """beit cait convit deepseek_vit deit eva gemma4_vit naflexvit qwen3_vit
vision_transformer vision_transformer_hybrid vision_transformer_relpos vision_transformer_sam
vitamin volo xcit convnext convmixer mlp_mixer""".split()
SMALL = dict(img_size=32, patch_size=8, depth=2)
# Sizes of the other families, and arguments that make their tensors look plain.
OTHERS = {
    "convnext": (dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40)),
                 dict(stem_type="patch", conv_mlp=False, use_grn=False, head_norm_first=False,
                      head_hidden_size=None, norm_layer="layernorm", ls_init_value=1e-6)),
    "mlp_mixer": (dict(img_size=32, patch_size=8, num_blocks=2, embed_dim=48), dict()),
    "convmixer": (dict(depth=2, dim=48, patch_size=8), dict()),
}
# Every number of heads divides one of these widths. The sizes that planish reads from names divide the first.
WIDTHS = [336, 320, 416]
WAYS = {
    "args": dict(embed_dim=48, num_heads=3),
    "name": dict(),
    "nopool": dict(embed_dim=48, num_heads=3),
    "bare": dict(embed_dim=48, num_heads=3, init_values=0, swiglu_mlp=False, scale_mlp=False,
                 scale_attn_inner=False, qkv_fused=True, use_abs_pos_emb=True, qk_norm=False,
                 use_rel_pos_bias=False, qkv_bias=False, pos_embed="learn", class_token=True,
                 final_norm=True, use_post_transformer_norm=True),
}
TOLERANCE = 1e-4


def overrides(name, way, width):
    family = _model_to_module[name]
    if family not in OTHERS:
        return dict(SMALL, **dict(WAYS[way], embed_dim=width), num_classes=5)
    small, plain = OTHERS[family]
    return dict(small, **(plain if way == "bare" else {}), num_classes=5)


def build(name, over):
    """The model with as many of the overrides as it takes."""
    while True:
        try:
            return timm.create_model(name, **over).eval()
        except TypeError as error:
            odd = re.search(r"(?:unexpected|values for) keyword argument '(\w+)'", str(error))
            if not odd or odd.group(1) not in over:
                raise
            del over[odd.group(1)]


def draw(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            normal = torch.randn(p.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.3 * normal)
            elif name.startswith("head") or "gamma" in name or "grn" in name:
                p.copy_(0.5 * normal)
            elif "qkv" in name or "fc1" in name:
                p.copy_(normal * p[0].numel() ** -0.5 if p.dim() > 1 else 0.2 * normal)
            else:
                p.copy_(0.004 * normal)


def logits(planish, folder, images, size):
    torch.manual_seed(1)
    dump = folder / "dump.safetensors"
    command = [planish, "eval", folder, "--data", f"tensors:{images}", "--dump", dump, "--quiet"]
    command += ["--image-size", size] if size else []
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().removeprefix("error: ")
    return load_file(dump)["logits"].double()


def compare(planish, name, way, images):
    """The verdict, and the error or the reason."""
    several = way == "name" and _model_to_module[name] not in OTHERS
    widths = WIDTHS if several else [WAYS["args"]["embed_dim"]]
    for width in widths:
        try:
            return try_one(planish, name, way, width, images)
        except Exception as error:  # timm cannot build it so, or it is no classifier
            why = f"{type(error).__name__}: {error}".splitlines()[0]
    return "unbuilt", why


def try_one(planish, name, way, width, images):
    model = build(name, overrides(name, way, width))
    if way == "bare" and hasattr(model, "blocks"):  # as `"init_values": null` in a configuration makes it
        for block in model.blocks:
            for scale in {"gamma_1", "gamma_2"} & set(dict(block.named_parameters())):
                setattr(block, scale, None)
    draw(model)
    x = load_file(images)["pixel_values"]
    with torch.no_grad():
        expected = model.double()(x.double())
    model.float()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        folder = Path(folder)
        state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        save_config_for_hf(model, folder / "config.json")
        text = json.loads((folder / "config.json").read_text())
        if way == "nopool":
            text.pop("global_pool", None)
            text.get("model_args", {}).pop("global_pool", None)
        (folder / "config.json").write_text(json.dumps(text))
        # A ConvNeXt takes images of any size.
        size = x.shape[-1] if _model_to_module[name] == "convnext" else None
        found = logits(planish, folder, images, size)
    if isinstance(found, str):
        return "refused", found.splitlines()[0]
    error = (found - expected).abs().max().item() / expected.std().item()
    return ("equal" if error < TOLERANCE else "WRONG"), f"{error:.1e}"


def main():
    planish = os.environ.get("PLANISH", "planish")
    torch.set_num_threads(1)
    names = sys.argv[1:] or [n for n in timm.list_models() if _model_to_module[n] in MODULES]
    counts = dict(equal=0, refused=0, WRONG=0, unbuilt=0)
    with tempfile.TemporaryDirectory() as folder:
        images = f"{folder}/images"
        for size in 32, 64:
            x = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(3))
            save_file(dict(pixel_values=x, labels=torch.arange(6) % 5), f"{images}{size}.safetensors")
        for name in names:
            # A ConvNeXt has a 32nd of the image's resolution at the end.
            size = 64 if _model_to_module[name] == "convnext" else 32
            for way in WAYS:
                verdict, why = compare(planish, name, way, f"{images}{size}.safetensors")
                counts[verdict] += 1
                print(f"{verdict:8} {way:7} {name:44} {why[:300]}", flush=True)
    print(counts)
    sys.exit(counts["WRONG"] > 0)


if __name__ == "__main__":
    main()
