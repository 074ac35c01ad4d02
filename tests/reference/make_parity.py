"""Writes parity/NAME.safetensors: small random timm ViTs and their derivatives in f64.

Run manually, not in CI (torch 2.15, timm 1.0.31):

    python tests/reference/make_parity.py

Each file holds, for one seeded model:
    model/NAME            f32  weights under timm's names
    pixel_values          f32  (N,C,H,W)
    labels                i64  (N)
    logits                f64  (N,classes)
    losses, loss          f64  cross-entropy per example, and its mean
    gradient/NAME         f64  of the mean loss
    vector/NAME           f32  standard normal
    hvp/LAYER/NAME        f64  Hessian of the mean loss in that layer's tensors alone, times the
                               layer's part of the vector; all other layers held fixed
    hvp_all/NAME          f64  the full Hessian times the whole vector
    loss_smoothed         f64  mean loss with label smoothing 0.1
    gradient_smoothed/head.weight  f64
and the architecture as JSON in the metadata entry `config`. f64 values are computed
from the f32 weights, pixels and vectors in the file, cast to f64.
"""

import json
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import GELUTanh, LayerNorm
from timm.models.vision_transformer import VisionTransformer

EXAMPLES = 5
SMOOTHING = 0.1
OUT = Path(__file__).parent / "parity"

# Arguments of VisionTransformer that differ from the common ones in `build`.
MODELS = {
    "cls": dict(img_size=28, patch_size=7, in_chans=1, num_classes=10, num_heads=4),
    "mean": dict(global_pool="avg", num_heads=3),
    "mean_norm": dict(global_pool="avg", fc_norm=False),
    "noqkvbias": dict(qkv_bias=False, norm_layer=partial(LayerNorm, eps=1e-12)),
    "layerscale": dict(init_values=0.3),
    "registers": dict(reg_tokens=3, no_embed_class=True, num_heads=4),
    "tanh": dict(act_layer=GELUTanh, mlp_ratio=1.5),
    "prenorm": dict(pre_norm=True),
    "rect": dict(img_size=(12, 8), patch_size=(6, 4), num_heads=3, mlp_ratio=1.0),
    "nocls": dict(class_token=False, global_pool="avg", img_size=8, in_chans=1, num_classes=5),
}


def build(arguments):
    common = dict(img_size=16, patch_size=4, in_chans=3, num_classes=7, embed_dim=24, depth=2,
                  num_heads=2, mlp_ratio=2.0)
    model = VisionTransformer(**(common | arguments)).eval()
    for block in model.blocks:
        block.attn.fused_attn = False  # the fused kernel has no double backward everywhere
    return model


def draw(model, generator):
    """Random weights without special values: no norm is the identity, no bias is zero."""
    normal = partial(torch.randn, generator=generator)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("gamma"):
                p.copy_(0.3 + 0.1 * normal(p.shape))
            elif "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.3 * normal(p.shape))
            elif name.endswith("bias"):
                p.copy_(0.2 * normal(p.shape))
            elif name.endswith("weight"):
                gain = 1.5 if "qkv" in name else 1.0
                p.copy_(gain * p[0].numel() ** -0.5 * normal(p.shape))
            else:  # class and register tokens, position embedding
                p.copy_(0.5 * normal(p.shape))


def layer_of(name):
    if name.startswith("blocks."):
        return "block." + name.split(".")[1]
    if name.split(".")[0] in ("norm", "fc_norm"):
        return "norm"
    return "head" if name.startswith("head.") else "embed"


def config(model):
    attn, mlp, embed = model.blocks[0].attn, model.blocks[0].mlp, model.patch_embed
    after = isinstance(model.norm, torch.nn.Identity)
    return dict(
        image_size=list(embed.img_size), patch_size=list(embed.patch_size),
        channels=model.in_chans, dim=model.embed_dim, depth=len(model.blocks),
        heads=attn.num_heads, mlp_dim=mlp.fc1.out_features, classes=model.num_classes,
        class_token=model.has_class_token, registers=model.num_reg_tokens,
        position_covers_prefix=not model.no_embed_class,
        patch_bias=embed.proj.bias is not None, qkv_bias=attn.qkv.bias is not None,
        layer_scale=hasattr(model.blocks[0].ls1, "gamma"),
        norm_pre=not isinstance(model.norm_pre, torch.nn.Identity),
        final_norm="after_pool" if after else "before_pool",
        pooling={"token": "token", "avg": "mean"}[model.global_pool],
        activation="gelu_tanh" if isinstance(mlp.act, GELUTanh) else "gelu",
        eps=(model.fc_norm if after else model.norm).eps,
    )


def hvp(gradient, parameters, vector, names):
    """Double backward: derivative of ⟨gradient, vector⟩ over `names`, in those same tensors."""
    product = sum((gradient[n] * vector[n]).sum() for n in names)
    result = torch.autograd.grad(product, [parameters[n] for n in names], retain_graph=True)
    return dict(zip(names, result))


def check_hvp(loss_of, parameters, vector, product):
    """Checks the double backward against a central difference of the gradient."""
    step, ends = 1e-5, []
    for sign in (1, -1):
        moved = {n: (p + sign * step * vector[n]).detach().requires_grad_()
                 for n, p in parameters.items()}
        ends.append(torch.autograd.grad(loss_of(moved), list(moved.values())))
    flat = lambda tensors: torch.cat([t.flatten() for t in tensors])
    difference = (flat(ends[0]) - flat(ends[1])) / (2 * step)
    exact = flat(product.values())
    error = ((difference - exact).norm() / exact.norm()).item()
    assert error < 1e-5, f"double backward and central difference differ by {error:.1e}"
    return error


def attention_entropy(model, pixels):
    """Mean entropy of the first block's attention over log T: 1 is uniform, 0 is one-hot."""
    kept = []
    hook = model.blocks[0].attn.attn_drop.register_forward_hook(lambda m, i, o: kept.append(o))
    model(pixels)
    hook.remove()
    a = kept[0]
    return (-(a * a.log()).sum(-1).mean() / torch.tensor(a.shape[-1]).log()).item()


def write(name, seed):
    generator = torch.Generator().manual_seed(seed)
    model = build(MODELS[name])
    draw(model, generator)
    c = config(model)
    pixels = torch.randn(EXAMPLES, c["channels"], *c["image_size"], generator=generator)
    labels = torch.randint(c["classes"], (EXAMPLES,), generator=generator)
    out = {f"model/{n}": p.detach().clone() for n, p in model.named_parameters()}
    vector32 = {n: torch.randn(p.shape, generator=generator)
                for n, p in model.named_parameters()}
    out |= {f"vector/{n}": v for n, v in vector32.items()}
    out |= {"pixel_values": pixels, "labels": labels}

    model = model.double()
    x = pixels.double()
    vector = {n: v.double() for n, v in vector32.items()}
    parameters = dict(model.named_parameters())
    names = list(parameters)
    call = lambda p: torch.func.functional_call(model, p, (x,))

    logits = call(parameters)
    losses = F.cross_entropy(logits, labels, reduction="none")
    loss = losses.mean()
    gradient = dict(zip(names, torch.autograd.grad(loss, parameters.values(), create_graph=True)))
    full = hvp(gradient, parameters, vector, names)
    error = check_hvp(lambda p: F.cross_entropy(call(p), labels), parameters, vector, full)

    out |= {"logits": logits, "losses": losses, "loss": loss}
    out |= {f"gradient/{n}": g for n, g in gradient.items()}
    out |= {f"hvp_all/{n}": h for n, h in full.items()}
    for layer in dict.fromkeys(map(layer_of, names)):
        own = [n for n in names if layer_of(n) == layer]
        product = hvp(gradient, parameters, vector, own)
        out |= {f"hvp/{layer}/{n}": h for n, h in product.items()}

    smoothed = F.cross_entropy(call(parameters), labels, label_smoothing=SMOOTHING)
    out["loss_smoothed"] = smoothed
    out["gradient_smoothed/head.weight"] = torch.autograd.grad(smoothed, model.head.weight)[0]

    spread, entropy = logits.std().item(), attention_entropy(model, x)
    assert 0.5 < spread < 2 and entropy < 0.95, (name, spread, entropy)
    out = {k: v.detach().contiguous().clone() for k, v in out.items()}
    save_file(out, OUT / f"{name}.safetensors", metadata={"config": json.dumps(c)})
    size = (OUT / f"{name}.safetensors").stat().st_size
    print(f"{name:11} {size:7} bytes  loss {loss.item():.4f}  logits ±{spread:.2f}  "
          f"attention entropy {entropy:.2f}  Hv against differences {error:.0e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    for seed, name in enumerate(MODELS):
        write(name, seed)
