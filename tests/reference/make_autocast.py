"""Writes autocast.json: the errors of PyTorch's own bf16 on the models of parity/.

Run manually, not in CI (torch 2.15):

    python tests/reference/make_autocast.py

For each file of parity/: the errors of the loss, and of logits and gradient in norm, under
torch.autocast("cpu", torch.bfloat16) with f32 weights, relative to the f64 values in the file.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from make_parity import MODELS, OUT, build
from safetensors.torch import load_file


def error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def main():
    results = {}
    for name in sorted(MODELS):
        file = load_file(OUT / f"{name}.safetensors")
        model = build(MODELS[name]).float()
        own = dict(model.named_parameters())
        model.load_state_dict({key: file[f"model/{key}"] for key in own})
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(file["pixel_values"])
        loss = F.cross_entropy(logits.float(), file["labels"])
        loss.backward()
        flat = [(p.grad.flatten(), file[f"gradient/{key}"].flatten()) for key, p in own.items()]
        results[name] = {
            "logits": error(logits.detach(), file["logits"]),
            "loss": error(loss.detach(), file["loss"]),
            "gradient": error(torch.cat([g for g, _ in flat]), torch.cat([e for _, e in flat])),
        }
    target = Path(__file__).parent / "autocast.json"
    target.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
