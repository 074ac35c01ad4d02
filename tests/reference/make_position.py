"""Writes position.json: position embeddings resized by timm."""

import json
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed

torch.manual_seed(0)
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
    flat = lambda t: t.double().flatten().tolist()
    cases.append({"prefix": prefix, "from": old, "to": new, "input": flat(x), "output": flat(y)})
Path(__file__).with_name("position.json").write_text(json.dumps(cases) + "\n")
