"""Writes hvp/NAME.safetensors: reference products of torch.func for `planish hvp`.

Run manually, not in CI (torch 2.15, timm 1.0.31, transformers 5.23.0):

    python tests/reference/make_hvp.py

NAME is `timm` for the checkpoint timm-tiny/, `transformers` for layouts/transformers5/. Each file:
    pixel_values, labels                the batch
    vector0/TENSOR, vector1/TENSOR f64  standard normal, for every tensor of both blocks
    hvp/LAYER/TENSOR, ggn/LAYER/TENSOR  f64 (2, shape): products of both vectors, for LAYER
                                        `block.1` and, with its cross-terms, `block.*`
TENSOR is the name in the file. H v is jvp of grad, G v is vjp of the loss's Hessian in the logits
times jvp; H v is compared with double backward before it is written.
"""

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).parent
EXAMPLES = 5


def of_timm():
    folder = HERE / "timm-tiny"
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model, folder, "blocks."


def of_transformers():
    folder = HERE / "layouts" / "transformers5"
    model = transformers.ViTForImageClassification.from_pretrained(
        folder, attn_implementation="sdpa")  # "eager" takes its softmax in f32
    names = load_file(folder / "model.safetensors")
    prefix = {n.split("1.")[0] for n in names if ".1." in n}
    assert len(prefix) == 1, prefix
    return model, folder, prefix.pop()


def products(loss, logits, labels, at, vector):
    """H v and G v over the tensors of `at`."""
    _, product = jvp(grad(loss), (at,), (vector,))
    leaves = {n: p.clone().requires_grad_() for n, p in at.items()}
    first = torch.autograd.grad(loss(leaves), leaves.values(), create_graph=True)
    along = sum((g * v).sum() for g, v in zip(first, vector.values()))
    twice = torch.autograd.grad(along, leaves.values())
    for a, b in zip(product.values(), twice):
        assert torch.allclose(a, b, atol=1e-13), (a - b).abs().max()
    z, slope = jvp(logits, (at,), (vector,))
    p = z.softmax(1)
    seed = (p * slope - p * (p * slope).sum(1, keepdim=True)) / len(labels)
    return product, vjp(logits, at)[1](seed)[0]


def main(name, build):
    generator = torch.Generator().manual_seed(23)
    model, folder, prefix = build()
    model = model.double().eval()
    if name == "timm":
        for block in model.blocks:
            block.attn.fused_attn = False
    stored = {n: p.double() for n, p in load_file(folder / "model.safetensors").items()}
    assert {n for n, _ in model.named_parameters()} == set(stored), "names differ"
    size = 16 if name == "timm" else 8
    pixels = torch.randn((EXAMPLES, 3, size, size), generator=generator)
    classes = 4 if name == "timm" else 3
    labels = torch.randint(classes, (EXAMPLES,), generator=generator)
    out = dict(pixel_values=pixels, labels=labels)
    blocks = [n for n in stored if n.startswith(prefix)]
    draw = lambda n: torch.randn(stored[n].shape, generator=generator, dtype=torch.float64)
    vectors = [{n: draw(n) for n in blocks} for _ in range(2)]
    for k, vector in enumerate(vectors):
        out |= {f"vector{k}/{n}": v for n, v in vector.items()}
    for layer, members in [("block.1", [n for n in blocks if n.startswith(prefix + "1.")]),
                           ("block.*", blocks)]:
        def logits(part):
            found = functional_call(model, stored | part, (pixels.double(),))
            return getattr(found, "logits", found)

        found = [products(lambda part: F.cross_entropy(logits(part), labels), logits, labels,
                          {n: stored[n] for n in members}, {n: v[n] for n in members})
                 for v in vectors]
        for i, kind in enumerate(["hvp", "ggn"]):
            for n in members:
                out[f"{kind}/{layer}/{n}"] = torch.stack([f[i][n] for f in found])
    (HERE / "hvp").mkdir(exist_ok=True)
    save_file({n: t.detach().contiguous() for n, t in out.items()}, HERE / f"hvp/{name}.safetensors")
    print(name, len(members), "tensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with sdpa_kernel(SDPBackend.MATH):
        main("timm", of_timm)
        main("transformers", of_transformers)
