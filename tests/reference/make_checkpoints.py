"""Writes checkpoints/: a small random model in every format that planish reads.

Run manually, not in CI:

    python tests/reference/make_checkpoints.py

with torch 2.15, timm 1.0.31 and transformers 5.23.0.

    NAME               the checkpoint: a file or a folder
    NAME.expected      safetensors: the model's state dict as torch has it, with `expected.pixels` (f32)
                       and `expected.logits` (f64, from the stored weights) of the library's model

To check what planish wrote from these files: python tests/reference/make_checkpoints.py FOLDER, where
FOLDER is what tests/checkpoint_formats.rs writes if PLANISH_SAVED names a folder.
"""

import argparse
import copy
import json
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, load_model, save_file, save_model
from timm.models.vision_transformer import VisionTransformer

OUT = Path(__file__).parent / "checkpoints"
SIZES = dict(img_size=8, patch_size=4, num_classes=3, embed_dim=8, depth=1, num_heads=2, mlp_ratio=1.5)
PIXELS = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def shaken(model, seed):
    """The model with all parameters moved, so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def of_timm(seed, **more):
    torch.manual_seed(seed)
    return shaken(VisionTransformer(**SIZES, **more), seed)


def of_transformers(seed):
    torch.manual_seed(seed)
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                    intermediate_size=12, image_size=8, patch_size=4, num_labels=3)
    return shaken(transformers.ViTForImageClassification(config), seed)


def logits(model):
    with torch.no_grad():
        out = copy.deepcopy(model).double()(PIXELS.double())
    return getattr(out, "logits", out)


def expect(name, model, state=None):
    """The values that planish must find under NAME."""
    state = model.state_dict() if state is None else state
    tensors = {key: value.clone().contiguous() for key, value in state.items()}
    tensors |= {"expected.pixels": PIXELS, "expected.logits": logits(model)}
    save_file(tensors, OUT / f"{name}.expected")


def stepped(model):
    """An optimizer with a state."""
    optimizer = torch.optim.SGD([model.head.bias], lr=0.1, momentum=0.9)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    optimizer.step()
    return optimizer


def settings(config):
    """timm's config.json for a model of these sizes."""
    images = dict(input_size=[3, 8, 8], mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic",
                  crop_pct=1.0, num_classes=3, first_conv="patch_embed.proj", classifier="head")
    own = dict(architecture="vit_tiny_patch16_224", num_classes=3, num_features=8,
               global_pool="token", pretrained_cfg=images, model_args=SIZES)
    (OUT / config).write_text(json.dumps(own, indent=1))


def torch_files():
    # As a training script with DistributedDataParallel writes it.
    model = of_timm(0)
    optimizer = stepped(model)
    state = OrderedDict(("module." + key, value) for key, value in model.state_dict().items())
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "epoch": 7,
                "args": argparse.Namespace(lr=0.1, name="é", sizes=(8, 8)),
                "best": np.float64(0.5), "device": torch.device("cpu"), "type": torch.float32,
                "rng": torch.get_rng_state()[:8]}, OUT / "script.pth")
    expect("script.pth", model, state)

    # The format before PyTorch 1.6.
    model = of_timm(1)
    torch.save(model.state_dict(), OUT / "legacy.pt", _use_new_zipfile_serialization=False)
    expect("legacy.pt", model)

    # timm's training script.
    model, average = of_timm(2), of_timm(3)
    torch.save({"epoch": 3, "arch": "vit_tiny", "state_dict": model.state_dict(), "version": 2,
                "optimizer": stepped(model).state_dict(), "state_dict_ema": average.state_dict(),
                "metric": 91.5}, OUT / "timm.pth.tar")
    expect("timm.pth.tar", average)

    # PyTorch Lightning, with a loss that has weights, a scalar in a callback and protocol 4.
    model = of_timm(4)
    state = {"net." + key: value for key, value in model.state_dict().items()}
    state["criterion.weight"] = torch.ones(3)
    torch.save({"epoch": 1, "state_dict": state, "hyper_parameters": {"lr": 0.1, "tags": {"a", "b"}},
                "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best": torch.tensor(0.5)}}},
               OUT / "lightning.ckpt", pickle_protocol=4)
    expect("lightning.ckpt", model, state)

    # Views of one storage, transposed matrices, other types, and parameters.
    model = of_timm(5)
    flat = torch.cat([value.reshape(-1) for value in model.state_dict().values()])
    state, at = OrderedDict(), 0
    for key, value in model.state_dict().items():
        state[key] = flat[at:at + value.numel()].view(value.shape)
        at += value.numel()
    state["blocks.0.mlp.fc1.weight"] = state["blocks.0.mlp.fc1.weight"].t().contiguous().t()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].to(memory_format=torch.channels_last)
    state["norm.weight"] = torch.nn.Parameter(state["norm.weight"].bfloat16())
    state["norm.bias"] = state["norm.bias"].half()
    state["head.weight"] = state["head.weight"].double() + 1e-12
    stored = of_timm(5).double()
    stored.load_state_dict(state)
    torch.save({"model_state_dict": state}, OUT / "views.pth")
    expect("views.pth", stored, state)


def folders():
    # A folder of timm.models.save_for_hf without safe_serialization.
    folder = fresh("timm-bin")
    model = of_timm(6)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    settings("timm-bin/config.json")
    expect("timm-bin", model)

    model = of_transformers(7)
    folder = fresh("transformers-shards")
    model.save_pretrained(folder, max_shard_size="3KB")
    assert (folder / "model.safetensors.index.json").exists()
    expect("transformers-shards", model, load_shards(folder))

    folder = fresh("transformers-bin-shards")
    model = of_transformers(8)
    save_torch_state_dict(model.state_dict(), folder, max_shard_size="3KB", safe_serialization=False,
                          filename_pattern="pytorch_model{suffix}.bin")
    assert (folder / "pytorch_model.bin.index.json").exists()
    model.config.save_pretrained(folder)
    expect("transformers-bin-shards", model)

    # Two names of one tensor.
    folder = fresh("tied")
    torch.manual_seed(9)
    model = shaken(timm.models.deit.VisionTransformerDistilled(**SIZES), 9)
    model.head_dist = model.head
    save_model(model, folder / "model.safetensors")
    settings("tied/config.json")
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] = "deit_tiny_distilled_patch16_224"
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    expect("tied", model)


def fresh(name):
    shutil.rmtree(OUT / name, ignore_errors=True)
    (OUT / name).mkdir(parents=True)
    return OUT / name


def load_shards(folder):
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def google():
    """Google's names and arrangement; timm's own loader reads the file into the reference model."""
    source = {key: value.numpy() for key, value in of_timm(10).state_dict().items()}
    out = {"cls": source["cls_token"], "embedding/bias": source["patch_embed.proj.bias"],
           "embedding/kernel": source["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
           "Transformer/posembed_input/pos_embedding": source["pos_embed"],
           "Transformer/encoder_norm/scale": source["norm.weight"],
           "Transformer/encoder_norm/bias": source["norm.bias"],
           "head/kernel": source["head.weight"].T, "head/bias": source["head.bias"]}
    block, own = "Transformer/encoderblock_0/", "blocks.0."
    for norm, name in [("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")]:
        out[f"{block}{norm}/scale"] = source[f"{own}{name}.weight"]
        out[f"{block}{norm}/bias"] = source[f"{own}{name}.bias"]
    attention = block + "MultiHeadDotProductAttention_1/"
    weights = np.split(source[own + "attn.qkv.weight"], 3)
    biases = np.split(source[own + "attn.qkv.bias"], 3)
    for name, weight, bias in zip(["query", "key", "value"], weights, biases):
        out[f"{attention}{name}/kernel"] = weight.T.reshape(8, 2, 4)
        out[f"{attention}{name}/bias"] = bias.reshape(2, 4)
    out[attention + "out/kernel"] = source[own + "attn.proj.weight"].T.reshape(2, 4, 8)
    out[attention + "out/bias"] = source[own + "attn.proj.bias"]
    for layer, name in [("Dense_0", "fc1"), ("Dense_1", "fc2")]:
        out[f"{block}MlpBlock_3/{layer}/kernel"] = source[f"{own}mlp.{name}.weight"].T
        out[f"{block}MlpBlock_3/{layer}/bias"] = source[f"{own}mlp.{name}.bias"]
    out = {"opt/target/" + key: np.ascontiguousarray(value) for key, value in out.items()}
    out["opt/state/step"] = np.array(3, dtype=np.int32)
    np.savez(OUT / "google.npz", **out)
    # jax.nn.gelu is the tanh approximation by default.
    model = VisionTransformer(**SIZES, act_layer="gelu_tanh").eval()
    model.load_pretrained(str(OUT / "google.npz"), prefix="opt/target/")
    expect("google.npz", model)


def check(folder):
    """Loads what planish saved without training; the logits must be the same."""
    for expected in sorted(OUT.glob("*.expected")):
        name = expected.name.removesuffix(".expected")
        saved = Path(folder) / name.replace(".", "-")
        want = load_file(expected)["expected.logits"]
        if name.startswith("transformers"):
            model = transformers.ViTForImageClassification.from_pretrained(saved).eval()
        elif name == "tied":
            # timm.create_model looks for both heads; this is what reads a file of save_model.
            model = timm.models.deit.VisionTransformerDistilled(**SIZES).eval()
            model.head_dist = model.head
            load_model(model, saved / "model.safetensors")
        elif name in ["timm-bin", "google.npz"]:
            model = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
        else:
            state = load_file(saved / "model.safetensors")
            state = {key.removeprefix("module.").removeprefix("net."): value
                     for key, value in state.items() if not key.startswith("criterion.")}
            model = VisionTransformer(**SIZES).eval().double()
            model.load_state_dict(state)
        print(name, (logits(model) - want).abs().max().item())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        check(sys.argv[1])
    else:
        OUT.mkdir(exist_ok=True)
        torch_files()
        folders()
        google()
