"""Writes adapters/NAME/: adapters of small models as peft saves them, and peft's results in f64.

Run manually, not in CI:

    python tests/reference/make_adapters.py

with torch 2.15, transformers 5.24.0, timm 1.0.31 and peft 0.21.2.

The bases are layouts/transformers5, layouts/transformers4 and timm-tiny. Each folder holds adapter_config.json,
adapter_model.safetensors and reference.safetensors:
    pixel_values   f32  (N,C,H,W)
    labels         i64  (N)
    logits         f64  (N,classes)
    loss           f64  mean cross-entropy
    gradient/NAME  f64  of the mean loss; NAME is the name in adapter_model.safetensors
    hvp/NAME       f64  Hessian of the mean loss in the adapters' tensors alone, times a vector; entry
                        k of each of its tensors is 1 - 2 frac(k phi), with phi the inverse of the
                        golden ratio. DoRA's norm is constant in both derivatives, as peft detaches it
    merged/NAME    f64  the merged weights of the adapted modules; NAME is the name in the base's file
"""

import json
import re
import shutil
import warnings
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).parent
OUT = HERE / "adapters"
GOLDEN = 0.6180339887498949
# Names of transformers 5 in memory, and those of version 4 in a file.
TO_FILE = [(r"\.layers\.", ".encoder.layer."), (r"attention\.q_proj", "attention.attention.query"),
           (r"attention\.k_proj", "attention.attention.key"),
           (r"attention\.v_proj", "attention.attention.value"),
           (r"attention\.o_proj", "attention.output.dense"), (r"mlp\.fc1", "intermediate.dense"),
           (r"mlp\.fc2", "output.dense")]


def vector(count):
    k = torch.arange(1, count + 1, dtype=torch.float64)
    return 1 - 2 * (k * GOLDEN).frac()


def vit(base, classes=3):
    model = transformers.ViTForImageClassification.from_pretrained(
        HERE / "layouts" / base, num_labels=classes, ignore_mismatched_sizes=True)
    to_file = TO_FILE if base == "transformers4" else []
    return model, lambda model, x: model(pixel_values=x).logits, to_file


def tiny():
    folder = HERE / "timm-tiny"
    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(config["architecture"], **config["model_args"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model, lambda model, x: model(x), []


# Name: (the base, settings of peft).
ADAPTERS = {
    # Other classes than the base's, one layer, and what peft chooses for a ViT.
    "vit-lora": (lambda: vit("transformers5", classes=4), dict(
        r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], layers_to_transform=[1],
        modules_to_save=["classifier"])),
    "vit-rslora": (lambda: vit("transformers4"), dict(
        r=2, lora_alpha=3, target_modules="all-linear", use_rslora=True,
        rank_pattern={"o_proj": 3, "layers.1.mlp.fc1": 1}, alpha_pattern={"mlp.fc2": 5},
        modules_to_save=["classifier"])),
    "vit-dora": (lambda: vit("transformers4"), dict(
        r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "fc1"], use_dora=True, modules_to_save=["classifier"])),
    "timm-lora": (tiny, dict(r=3, lora_alpha=4, target_modules=["qkv", "mlp.fc2"],
                             modules_to_save=["head"])),
    "timm-dora": (tiny, dict(r=2, lora_alpha=4, target_modules=["qkv", "attn.proj", "head"],
                             use_dora=True)),
}


def main():
    for seed, (name, (base, settings)) in enumerate(ADAPTERS.items()):
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(seed)
        plain, logits_of, to_file = base()
        size = next(p for n, p in plain.named_parameters() if "proj" in n and p.ndim == 4).shape
        model = get_peft_model(plain, LoraConfig(**settings)).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "magnitude" in key:
                    parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
                elif parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        adapter = load_file(folder / "adapter_model.safetensors")
        model = model.double()
        side = 16 if "timm" in name else 8
        x, y = torch.randn(3, size[1], side, side), torch.tensor([0, 2, 1])
        # Other kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            logits = logits_of(model, x.double())
        loss = F.cross_entropy(logits, y)
        trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(trained.values()), create_graph=True)
        inside = [(k, p, g) for (k, p), g in zip(trained.items(), gradients) if "lora_" in k]
        slope = sum((g.reshape(-1) * vector(g.numel())).sum() for _, _, g in inside)
        products = torch.autograd.grad(slope, [p for _, p, _ in inside])
        in_file = lambda key: re.sub(r"\.default(?=\.|$)|\.modules_to_save(?=\.)", "", key)
        stored = lambda k: re.sub(r"(magnitude_vector)\.weight", r"\1", in_file(k))
        gradients = {stored(k): g.detach() for k, g in zip(trained, gradients)}
        assert set(gradients) == set(adapter), set(gradients) ^ set(adapter)
        changed = {re.match(r"base_model\.model\.(.*)\.lora_A", k)[1] for k in adapter if "lora_A" in k}
        merged = model.merge_and_unload().state_dict()
        reference = {"pixel_values": x, "labels": y, "logits": logits.detach(),
                     "loss": loss.detach()}
        reference |= {f"gradient/{k}": g for k, g in gradients.items()}
        reference |= {f"hvp/{stored(k)}": h for (k, _, _), h in zip(inside, products)}
        for module in changed:
            own = module
            for pattern, replacement in to_file:
                own = re.sub(pattern, replacement, own)
            reference[f"merged/{own}.weight"] = merged[f"{module}.weight"]
        save_file({k: v.contiguous() for k, v in reference.items()}, folder / "reference.safetensors")
        config = folder / "adapter_config.json"
        # The base's path on this machine.
        text = json.loads(config.read_text()) | {"base_model_name_or_path": None}
        if isinstance(text["target_modules"], list):
            text["target_modules"].sort()
        config.write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
        print(name, float(loss), sorted(changed))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    main()
