"""Writes remedies/: a model's figures along moves of its layers, by timm and PyTorch.

Run manually, not in CI (torch 2.15, timm 1.0.31, scipy 1.17):

    python tests/reference/make_remedies.py

tuned/, pretrained/           checkpoints like timm-tiny/, with LayerScale factors near 1
images.safetensors            pixel_values (N,C,H,W), labels (N)
moves.json                    for each move and α: NLL, NLL at the best temperature, accuracy
"""

import json
import shutil
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar

HERE = Path(__file__).parent
OUT = HERE / "remedies"
torch.manual_seed(0)
tuned = load_file(HERE / "timm-tiny/model.safetensors")
for n, t in tuned.items():
    if n.endswith("gamma"):
        tuned[n] = 0.5 + torch.rand_like(t)
before = {n: t + 0.5 * max(t.std(correction=0), 0.1) * torch.randn_like(t) for n, t in tuned.items()}
for name, weights in [("tuned", tuned), ("pretrained", before)]:
    (OUT / name).mkdir(parents=True, exist_ok=True)
    save_file(weights, OUT / name / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(HERE / "timm-tiny/config.json", OUT / name / "config.json")

model = timm.create_model(f"local-dir:{OUT / 'tuned'}", pretrained=True).double().eval()
side = model.patch_embed.img_size
images = torch.randn(150, model.patch_embed.proj.in_channels, *side).half()
w, w0 = ({n: t.double() for n, t in d.items()} for d in (tuned, before))


def logits(weights):
    with torch.no_grad():
        return torch.func.functional_call(model, weights, (images.double(),))


# Most labels are those of the mean of both models, so that moves help and a temperature exists.
middle = logits({n: 0.5 * (w[n] + w0[n]) for n in w})
labels = (middle + 0.3 * middle.std() * torch.randn_like(middle)).argmax(1)
save_file({"pixel_values": images, "labels": labels}, OUT / "images.safetensors")


def figures(z):
    nll = lambda t: F.cross_entropy(z / t, labels).item()
    best = minimize_scalar(lambda u: nll(torch.tensor(u).exp().item()), bounds=(-6, 6), method="bounded",
                           options={"xatol": 1e-10})
    return {"nll": nll(1.0), "calibrated_nll": best.fun, "top1": (z.argmax(1) == labels).double().mean().item()}


def layer(name):
    if name.startswith("blocks."):
        return f"block.{name.split('.')[1]}"
    return {"norm": "norm", "fc_norm": "norm", "head": "head"}.get(name.split(".")[0], "embed")


depth = len(model.blocks)
order = ["embed", *(f"block.{i}" for i in range(depth)), "norm", "head"]
last = len(order) - 1
cases = {"start": figures(logits(w))}


def add(name, share, target, grid):
    """`share`: from α and a tensor's name to how far it moves."""
    points = []
    for alpha in grid:
        moved = {n: w[n] + share(alpha, n) * (target(n) - w[n]) for n in w}
        points.append({"alpha": alpha, **figures(logits(moved))})
    cases[name] = points


toward = [i / 10 for i in range(1, 11)]
for i, one in enumerate(order):
    add(f"toward {one}", lambda a, n: a * (layer(n) == one), lambda n: w0[n], toward)
    if 0 < i < last:
        first = order[: i + 1]
        add(f"toward embed … {one}", lambda a, n: a * (layer(n) in first), lambda n: w0[n], toward)
        rest = order[i:]
        add(f"toward {one} … head", lambda a, n: a * (layer(n) in rest), lambda n: w0[n], toward)
    product = lambda n: n.endswith(".weight") and w[n].dim() > 1
    if one != "norm":
        decay = [i / 20 for i in range(1, 11)]
        add(f"decay {one}", lambda a, n: a * (layer(n) == one and product(n)), lambda n: 0 * w[n], decay)
add("toward all layers", lambda a, n: a, lambda n: w0[n], toward)
lines = lambda a, n: a * (1 - order.index(layer(n)) / last)
add("toward LiNeS", lines, lambda n: w0[n], toward)
(OUT / "moves.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")
