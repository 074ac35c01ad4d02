"""Writes hessian.safetensors: the dense Hessian and Gauss-Newton matrix of a tiny ViT, in f64.

Run manually, not in CI (torch 2.15, timm 1.0.31):

    python tests/reference/make_hessian.py

Beside the model, pixels and labels as in make_parity.py:
    hessian       f64  (P(P+1)/2) upper triangle, row by row, of the second derivatives of the mean
                       cross-entropy in all parameters, flattened in timm's order, row
                       after row (with vmap, as in `torch.func.hessian` of torch 2.15, the matrix is
                       not symmetric on this model)
    gauss_newton  f64  the same of (1/N) Σ Jᵀ (diag(p) − ppᵀ) J, J by reverse mode
Entries of metadata: `config` as in make_parity.py, `order` the parameters' names.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.autograd.functional import hessian
from torch.autograd.functional import jacobian as jacobian_of
from torch.func import functional_call

from make_parity import OUT, build, config, draw

EXAMPLES = 4


def main():
    generator = torch.Generator().manual_seed(11)
    model = build(dict(img_size=4, patch_size=2, in_chans=1, num_classes=3, embed_dim=4,
                       num_heads=2, mlp_ratio=1.0))
    draw(model, generator)
    pixels = torch.randn((EXAMPLES, 1, 4, 4), generator=generator)
    labels = torch.randint(3, (EXAMPLES,), generator=generator)
    single = {n: p.detach().clone() for n, p in model.named_parameters()}
    model, x = model.double(), pixels.double()
    names = list(single)
    sizes = [single[n].numel() for n in names]
    start = torch.cat([single[n].double().flatten() for n in names])

    def logits(w):
        parts = zip(names, w.split(sizes))
        return functional_call(model, {n: p.view(single[n].shape) for n, p in parts}, (x,))

    second = hessian(lambda w: F.cross_entropy(logits(w), labels), start)
    jacobian = jacobian_of(logits, start)  # (N, C, P)
    p = logits(start).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    gauss_newton = torch.einsum("ncp,ncd,ndq->pq", jacobian, middle, jacobian) / EXAMPLES
    assert torch.allclose(second, second.T, atol=1e-12)
    rows, columns = torch.triu_indices(len(start), len(start))
    out = {f"model/{n}": p for n, p in single.items()}
    out |= dict(pixel_values=pixels, labels=labels,
                hessian=second[rows, columns].detach().contiguous(),
                gauss_newton=gauss_newton[rows, columns].detach().contiguous())
    metadata = dict(config=json.dumps(config(model)), order=json.dumps(names))
    save_file(out, OUT.parent / "hessian.safetensors", metadata)
    print(len(start), "parameters; eigenvalues of H from", torch.linalg.eigvalsh(second)[0].item(),
          "to", torch.linalg.eigvalsh(second)[-1].item())


if __name__ == "__main__":
    main()
