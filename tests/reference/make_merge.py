"""Writes merge.json: merged weights of three models and their common start, by torch."""

import itertools
import json
from pathlib import Path

import torch

torch.manual_seed(0)
w0 = torch.randn(24, dtype=torch.float64)
shared = torch.randn(24, dtype=torch.float64)
models = [w0 + 0.5 * shared + 0.5 * torch.randn(24, dtype=torch.float64) for _ in range(3)]
w0, *models = [w.float().double() for w in [w0, *models]]
mean = torch.stack(models).mean(0)
pairs = itertools.combinations([w - w0 for w in models], 2)
cos = torch.stack([torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in pairs]).mean()
k = len(models)
t = k * cos / ((k - 1) * cos + 1)
out = {
    "inputs": [w.tolist() for w in [w0, *models]],
    "average": mean.tolist(),
    "interpolated": torch.lerp(w0, models[0], 0.3).tolist(),
    "stock": (t * mean + (1 - t) * w0).tolist(),
}
Path(__file__).with_name("merge.json").write_text(json.dumps(out) + "\n")
