"""Writes sam.safetensors: a tiny timm ViT after a few steps of SAM and its variants, in f64.

Run manually, not in CI (torch, timm, numpy):

    python tests/reference/make_sam.py

Each update follows its paper, on torch's autograd and torch.optim.SGD; clipping is
torch.nn.utils.clip_grad_norm_. The file holds
    model/NAME            f32  weights at the start, under timm's names
    pixel_values          f32  (STEPS·B,C,H,W); step t uses images t·B to (t + 1)·B
    labels                i64  (STEPS·B)
    CASE/NAME             f64  every updated tensor, after the last step
and in its metadata `config` (the architecture), `cases` (the settings of each), `losses` (the
loss of each step at the point where its gradient was taken), and for SL-SAM `draws` (for each step a
list of draws, each with a uniform number for each tensor; only a draw of no tensor is followed by
another) and `probabilities` (after the last step). Everything is computed in f64 from the
f32 values in the file.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_parity import build, config, draw
from safetensors.torch import save_file

STEPS, B = 7, 6
MODEL = dict(img_size=8, patch_size=4, in_chans=1, num_classes=5, embed_dim=8, num_heads=2)
PLAIN = dict(rate=0.1, momentum=0.9, decay=0.0, clip=None, schedule="constant", warmup=0)
HARD = dict(rate=0.2, momentum=0.9, decay=0.01, clip=0.7, schedule="cosine", warmup=2)
CASES = {
    "sgd": dict(method="sgd", update="*", **HARD),
    "sam": dict(method="sam", update="*", rho=0.05, **PLAIN),
    "sam-hard": dict(method="sam", update="*", rho=0.3, **HARD),
    "sam-block": dict(method="sam", update="block.1", rho=0.05, **HARD),
    "asam": dict(method="asam", update="*", rho=0.5, eta=0.01, **PLAIN),
    "asam-subset": dict(method="asam", update="block.0,head", rho=1.0, eta=0.1, **HARD),
    "looksam": dict(method="looksam", update="*", rho=0.1, every=3, alpha=0.7, **PLAIN),
    "looksam-hard": dict(method="looksam", update="block.1,head", rho=0.1, every=2, alpha=0.5,
                         **HARD),
    "friendly": dict(method="friendly-sam", update="*", rho=0.1, sigma=1.0, lmbda=0.9, **PLAIN),
    "friendly-hard": dict(method="friendly-sam", update="block.1,head", rho=0.3, sigma=0.7, lmbda=0.6,
                          **HARD),
    "sl-sam": dict(method="sl-sam", update="*", rho=0.1, share=0.5, **PLAIN),
    "sl-sam-hard": dict(method="sl-sam", update="block.1,norm,head", rho=0.3, share=0.2, **HARD),
    "norm": dict(method="sam-norm", update="*", rho=0.5, **PLAIN),
    "norm-block": dict(method="sam-norm", update="block.1,norm", rho=0.5, **HARD),
}


def layer_of(name):
    if name.startswith("blocks."):
        return "block." + name.split(".")[1]
    return "norm" if name.startswith("norm.") else "head" if name.startswith("head.") else "embed"


def is_norm(name):
    return any(part in name.split(".") for part in ("norm", "norm1", "norm2"))


def rate(case, step):
    """Warm-up in steps, then a cosine to 0 over the remaining steps."""
    if step < case["warmup"]:
        return case["rate"] * (step + 1) / case["warmup"]
    if case["schedule"] == "constant":
        return case["rate"]
    part = (step - case["warmup"]) / (STEPS - case["warmup"])
    return case["rate"] * 0.5 * (1 + math.cos(math.pi * part))


def joint_norm(tensors):
    return torch.cat([t.flatten() for t in tensors]).norm()


def ascent(case, weights, gradients):
    """ε for the perturbed tensors."""
    if case["method"] == "asam":
        scale = [w.abs() + case["eta"] for w in weights]
        norm = joint_norm([t * g for t, g in zip(scale, gradients)])
        return [case["rho"] * t**2 * g / norm for t, g in zip(scale, gradients)]
    norm = joint_norm(gradients)
    return [case["rho"] * g / norm for g in gradients]


def capped(weights, total):
    """Numbers with this sum that are proportional to the weights where they are below 1."""
    p = np.zeros_like(weights)
    full = np.zeros(len(weights), bool)
    while True:
        p[full], rest = 1.0, ~full
        p[rest] = weights[rest] * (total - full.sum()) / max(weights[rest].sum(), 1e-5)
        above = rest & (p > 1.0)
        if not above.any():
            return np.clip(p, 1e-8, 1.0)
        # The largest alone, since the others may fit afterwards.
        full[np.argmax(np.where(rest, weights, -1.0))] = True


def learn(p, drawn, norms, share):
    """SL-SAM's EXP3 with rewards (norm/p)² of the drawn tensors."""
    rewards = (norms / p[drawn]) ** 2
    weights = p.copy()
    weights[drawn] *= np.exp(-0.001 * (rewards.max() - rewards) / p[drawn])
    return capped(weights, share * len(p))


def train(start, pixels, labels, call, case, record):
    wanted = case["update"].split(",")
    own = [n for n in start if "*" in wanted or layer_of(n) in wanted]
    moved = [n for n in own if is_norm(n)] if case["method"] == "sam-norm" else own
    assert moved
    weights = {n: torch.nn.Parameter(p.clone()) for n, p in start.items()}
    optimizer = torch.optim.SGD([weights[n] for n in own], lr=1.0, momentum=case["momentum"],
                                weight_decay=case["decay"])
    across, average, losses = None, None, []
    p = np.full(len(own), case.get("share", 1.0))
    uniform = np.random.default_rng(len(own))
    record["draws"] = []
    for step in range(STEPS):
        x, y = pixels[step * B:(step + 1) * B], labels[step * B:(step + 1) * B]

        def gradient(at, names):
            loss = F.cross_entropy(call(at, x), y)
            return loss.item(), list(torch.autograd.grad(loss, [at[n] for n in names]))

        if case["method"] == "sl-sam":
            draws = []
            while not draws or not (draws[-1] < p).any():
                draws.append(uniform.random(len(own)))
            record["draws"].append([dict(zip(own, draw)) for draw in draws])
            drawn = np.flatnonzero(draws[-1] < p)
            part = [own[i] for i in drawn]
        else:
            part = own
        moved = part if case["method"] == "sl-sam" else moved
        look = case["method"] == "looksam"
        if case["method"] == "sgd" or (look and step % case["every"]):
            loss, g = gradient(weights, own)
            if look:
                factor = case["alpha"] * joint_norm(g) / joint_norm(across)
                g = [a + factor * b for a, b in zip(g, across)]
        else:
            _, here = gradient(weights, moved)
            along = here
            if case["method"] == "friendly-sam" and average is None:
                average = here
            elif case["method"] == "friendly-sam":
                before, l = average, case["lmbda"]
                average = [l * m + (1 - l) * g for m, g in zip(before, here)]
                along = [g - case["sigma"] * m for m, g in zip(average, here)]
                if case["sigma"] == 1.0:
                    # The authors' code: the average without the current gradient.
                    other = [g - m for m, g in zip(before, here)]
                    cosine = sum((a * b).sum() for a, b in zip(along, other))
                    assert abs(cosine / joint_norm(along) / joint_norm(other) - 1) < 1e-12
            epsilon = ascent(case, [weights[n].detach() for n in moved], along)
            there = {n: p.detach().clone() for n, p in weights.items()}
            for n, e in zip(moved, epsilon):
                there[n] += e
            loss, g = gradient({n: w.requires_grad_() for n, w in there.items()}, part)
            if case["method"] == "sl-sam":
                p = learn(p, drawn, np.array([t.norm().item() for t in here]), case["share"])
            if look:
                cosine = sum((a * b).sum() for a, b in zip(here, g))
                cosine = cosine / (joint_norm(here) * joint_norm(g))
                length = joint_norm(g) * cosine / joint_norm(here)
                across = [b - length * a for a, b in zip(here, g)]
                assert abs(sum((a * b).sum() for a, b in zip(here, across))) < 1e-12
        losses.append(loss)
        # Tensors without a gradient keep their weights and momentum.
        for n in own:
            weights[n].grad = None
        for n, t in zip(part, g):
            weights[n].grad = t.clone()
        if case["clip"]:
            torch.nn.utils.clip_grad_norm_([weights[n] for n in part], case["clip"])
        optimizer.param_groups[0]["lr"] = rate(case, step)
        optimizer.step()
    record["probabilities"] = dict(zip(own, p))
    return {n: weights[n].detach() for n in own}, losses


def main():
    generator = torch.Generator().manual_seed(3)
    model = build(MODEL)
    draw(model, generator)
    c = config(model)
    pixels = torch.randn(STEPS * B, c["channels"], *c["image_size"], generator=generator)
    labels = torch.randint(c["classes"], (STEPS * B,), generator=generator)
    out = {f"model/{n}": p.detach().clone() for n, p in model.named_parameters()}
    out |= {"pixel_values": pixels, "labels": labels}
    model = model.double()
    start = {n: p.detach() for n, p in model.named_parameters()}
    call = lambda p, x: torch.func.functional_call(model, p, (x,))
    losses, records = {}, {}
    for name, case in CASES.items():
        records[name] = {}
        after, losses[name] = train(start, pixels.double(), labels, call, case, records[name])
        moved = joint_norm([after[n] - start[n] for n in after]).item()
        print(f"{name:13} moved {moved:.3f}  losses {losses[name][0]:.4f} … {losses[name][-1]:.4f}")
        out |= {f"{name}/{n}": t for n, t in after.items()}
    out = {k: v.contiguous().clone() for k, v in out.items()}
    metadata = {"config": json.dumps(c), "cases": json.dumps(CASES), "losses": json.dumps(losses)}
    bandits = {n: r for n, r in records.items() if CASES[n]["method"] == "sl-sam"}
    for key in "draws", "probabilities":
        metadata[key] = json.dumps({name: record[key] for name, record in bandits.items()})
    path = Path(__file__).with_name("sam.safetensors")
    save_file(out, path, metadata=metadata)
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
