"""Writes position.json: position embeddings resized by timm; and bicubic.json: grids resized by
PyTorch in f64, with and without antialiasing."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed

torch.manual_seed(0)
flat = lambda t: t.double().flatten().tolist()
cases = []
for prefix, old, new in [
    (1, (4, 4), (2, 2)),
    (1, (2, 2), (5, 5)),
    (0, (3, 3), (4, 2)),
    (2, (5, 3), (3, 7)),
    (1, (7, 7), (3, 3)),
]:
    x = torch.randn(1, prefix + old[0] * old[1], 3)
    y = resample_abs_pos_embed(x, new, old, num_prefix_tokens=prefix)
    cases.append({"prefix": prefix, "from": old, "to": new, "input": flat(x), "output": flat(y)})
Path(__file__).with_name("position.json").write_text(json.dumps(cases) + "\n")

cases = []
for antialias in False, True:
    for old, new in [((4, 4), (2, 2)), ((1, 1), (2, 3)), ((3, 3), (5, 4)), ((7, 7), (3, 5)),
                     ((5, 5), (5, 5)), ((11, 11), (4, 4)), ((2, 5), (9, 3))]:
        x = torch.randn(1, 1, *old, dtype=torch.float64)
        y = F.interpolate(x, size=new, mode="bicubic", align_corners=False, antialias=antialias)
        cases.append({"antialias": antialias, "from": old, "to": new, "input": flat(x),
                      "output": flat(y)})
Path(__file__).with_name("bicubic.json").write_text(json.dumps(cases) + "\n")
