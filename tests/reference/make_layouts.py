"""Writes layouts/NAME/: small random models written by timm, transformers and torchvision, and
their derivatives in f64.

Run manually, not in CI, once for each library:

    python tests/reference/make_layouts.py
    PYTHONPATH=TF4 python tests/reference/make_layouts.py

with torch 2.15, timm 1.0.31, torchvision 0.29.2 and transformers 5.23.0 (DINOv2: 5.24.0), and then
with transformers 4.57.6 found in TF4 (pip install --target TF4). With names, it writes these layouts
only.

Each folder holds model.safetensors, the library's other files, and reference.safetensors:
    pixel_values   f32  (N,C,H,W)
    labels         i64  (N)
    logits         f64  (N,classes)
    loss           f64  mean cross-entropy
    gradient/NAME  f64  of the mean loss
    hvp/NAME       f64  Hessian of the mean loss in one planish layer's tensors alone (a Vision
                        Transformer's are `embed`, `block.i`, `norm` and `head`), times the layer's
                        part of the vector
    hvp_all/NAME   f64  the full Hessian times the whole vector
    image          u8   (H,W,C), and
    processed      f32  (C,h,w), the output of transformers' image processor; only in its folders
NAME is the name in the file. The vector is the same for all tensors and is not stored: entry k is
1 - 2 frac(k phi), with phi the inverse of the golden ratio. Weights are read back from the file, with
its rounding, and cast to f64. Products use double backward. A tensor of the file may hold several of
the model's parameters, one below the other.

transformers resizes the position embedding of DINOv2 in f32. Here it does so in f64, because `torch` in
its module is replaced by one whose `float32` is `float64`.
"""

import json
import re
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

OUT = Path(__file__).parent / "layouts"
EXAMPLES, CLASSES, GOLDEN = 3, 3, 0.6180339887498949
# "eager" attention computes its softmax in f32 for every type, so "sdpa" is used.
OLD = transformers.__version__.startswith("4.")
SMALL = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
             image_size=8, patch_size=4, num_labels=CLASSES, attn_implementation="sdpa")


def of_transformers(name, classes, **more):
    config = getattr(transformers, f"{classes[0]}Config")(**SMALL, **more)
    return getattr(transformers, classes[1])(config)


def of_dinov2(registers, image_size, **more):
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    small = {k: v for k, v in SMALL.items() if k not in ("intermediate_size", "image_size")}
    if registers:
        more = dict(num_register_tokens=registers, **more)
    config = getattr(transformers, f"{kind}Config")(**small, mlp_ratio=2, image_size=image_size,
                                                    **more)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)

    class Exact:
        float32 = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)
    sys.modules[type(model).__module__].torch = Exact()
    return model


def of_torchvision():
    from torchvision.models.vision_transformer import VisionTransformer
    return VisionTransformer(image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8,
                             mlp_dim=12, num_classes=CLASSES)


def of_tower(kind, **more):
    vision = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
                  image_size=8, patch_size=4, **more)
    text = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=5)
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision,
                                                    num_labels=CLASSES)
    config._attn_implementation = config.vision_config._attn_implementation = "sdpa"
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def of_timm(cls, **more):
    from timm.models import deit, vision_transformer
    cls = getattr(deit, cls, None) or getattr(vision_transformer, cls)
    model = cls(**(dict(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, mlp_ratio=1.5,
                        num_classes=CLASSES) | more))
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def of_named(name):
    from timm import layers
    from timm.models import vision_transformer
    modules = {n: getattr(layers, n, None) or getattr(vision_transformer, n)
               for n in ("GELUTanh", "LayerNorm", "QuickGELU", "ResPostBlock", "SwiGLUPacked")}
    _, written, more = NAMED[name]
    eps = more.get("eps", 1e-6)
    more = {k: torch.nn.SiLU if v == "SiLU" else modules.get(v, v) for k, v in more.items()
            if k != "eps"}
    return of_timm("VisionTransformer", norm_layer=partial(modules["LayerNorm"], eps=eps),
                   **(written | more))


def of_mixer():
    from timm.models.mlp_mixer import MlpMixer
    return MlpMixer(**MIXER, num_classes=CLASSES)


def of_convnext(v2, conv_mlp=False):
    from timm.models.convnext import ConvNeXt
    return ConvNeXt(**CONVNEXT, num_classes=CLASSES, conv_mlp=conv_mlp,
                    **(dict(use_grn=True, ls_init_value=None) if v2 else {}))


def of_transformers_convnext(v2):
    kind = "ConvNextV2" if v2 else "ConvNext"
    config = getattr(transformers, f"{kind}Config")(
        hidden_sizes=CONVNEXT["dims"], depths=CONVNEXT["depths"], image_size=32,
        num_labels=CLASSES)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


# timm's architectures with other parts: the name; the arguments in the configuration; those that the
# name implies.
NAMED = {
    "timm-postnorm": ("vit_base_patch16_rpn_224",
                      dict(class_token=False, global_pool="avg", qkv_bias=False, init_values=1e-5),
                      dict(block_fn="ResPostBlock")),
    "timm-qknorm": ("vit_tiny_patch16_224",
                    dict(qk_norm=True, reg_tokens=1, global_pool="avg", pool_include_prefix=True),
                    dict()),
    "timm-quickgelu-bf16": ("vit_base_patch32_clip_quickgelu_224", dict(pre_norm=True),
                            dict(act_layer="QuickGELU", eps=1e-5)),
    "timm-swiglu": ("vit_giant_patch14_reg4_dinov2",
                    dict(reg_tokens=2, no_embed_class=True, init_values=1e-5, mlp_ratio=3.0),
                    dict(mlp_layer="SwiGLUPacked", act_layer="SiLU")),
    "timm-siglip": ("vit_so400m_patch16_siglip_256", dict(class_token=False, global_pool="map"),
                    dict(act_layer="GELUTanh")),
    "timm-map-registers": ("vit_so150m_patch16_reg4_map_256",
                           dict(class_token=False, reg_tokens=2, global_pool="map", fc_norm=True),
                           dict()),
    "timm-map-prefix-f16": ("test_vit3", dict(class_token=False, reg_tokens=1, global_pool="map"),
                            dict(pool_include_prefix=True)),
    "timm-nonorm": ("vit_base_patch16_radio_v3", dict(reg_tokens=2, no_embed_class=True),
                    dict(final_norm=False)),
    "timm-qknorm-token": ("vit_tiny_patch16_224", dict(qk_norm=True), dict()),
}
MIXER = dict(img_size=12, patch_size=4, num_blocks=2, embed_dim=8, mlp_ratio=(0.75, 1.5))
CONVNEXT = dict(depths=[1, 2, 1, 1], dims=[4, 6, 8, 10])
VIT, DEIT = ("ViT", "ViTForImageClassification"), ("DeiT", "DeiTForImageClassification")
TEACHER = ("DeiT", "DeiTForImageClassificationWithTeacher")
# Name: (how it is made, how its names are changed for the file, stored type).
# torchvision's first version called the MLP's layers linear_1, linear_2; scripts replace `heads`.
FIRST_TORCHVISION = [(r"mlp\.0\.", "mlp.linear_1."), (r"mlp\.3\.", "mlp.linear_2."),
                     (r"heads\.head\.", "heads.0.")]
# transformers' names in files, where they are not those in memory.
SAVED_DINOV2 = [(r"attention\.([qkv])_proj", lambda m: "attention.attention." + dict(
                     q="query", k="key", v="value")[m[1]]),
                (r"attention\.o_proj", "attention.output.dense"),
                (r"mlp\.(gate|up)_proj", "mlp.weights_in"), (r"mlp\.down_proj", "mlp.weights_out")]
MODELS = {
    "transformers4": (lambda: of_transformers("vit", VIT), [], torch.float32),
    "transformers4-bf16": (lambda: of_transformers("vit", VIT, qkv_bias=False), [],
                           torch.bfloat16),
    "transformers4-deit": (lambda: of_transformers("deit", DEIT), [], torch.float32),
} if OLD else {
    "transformers5": (lambda: of_transformers("vit", VIT, hidden_act="gelu_new",
                                              layer_norm_eps=1e-5), [], torch.float32),
    "transformers5-f16": (lambda: of_transformers("vit", VIT), [], torch.float16),
    "transformers5-teacher": (lambda: of_transformers("deit", TEACHER), [], torch.float32),
    "torchvision": (of_torchvision, [], torch.float32),
    "torchvision-first-bf16": (of_torchvision, FIRST_TORCHVISION, torch.bfloat16),
    "torchvision-linear-f16": (of_torchvision, [(r"heads\.head\.", "heads.")], torch.float16),
    "timm-distilled": (lambda: of_timm("VisionTransformerDistilled"), [], torch.float32),
    "timm-distilled-f16": (lambda: of_timm("VisionTransformerDistilled"), [], torch.float16),
    "timm-bf16": (lambda: of_timm("VisionTransformer"), [], torch.bfloat16),
    "timm-mixer": (of_mixer, [], torch.float32),
    "timm-mixer-bf16": (of_mixer, [], torch.bfloat16),
    "timm-convnext": (lambda: of_convnext(False), [], torch.float32),
    "timm-convnextv2": (lambda: of_convnext(True), [], torch.float32),
    "timm-convnextv2-conv": (lambda: of_convnext(True, conv_mlp=True), [], torch.float32),
    "transformers5-convnext": (lambda: of_transformers_convnext(False), [], torch.float32),
    "transformers5-convnextv2-bf16": (lambda: of_transformers_convnext(True), [],
                                      torch.bfloat16),
    # The position embedding has 3×3 patches; images have 2×2.
    "transformers5-dinov2": (lambda: of_dinov2(0, 12), [], torch.float32),
    "transformers5-dinov2-saved": (lambda: of_dinov2(0, 8, use_swiglu_ffn=True), SAVED_DINOV2,
                                   torch.float32),
    "transformers5-dinov2-registers": (lambda: of_dinov2(3, 20), SAVED_DINOV2, torch.float32),
    "transformers5-dinov2-registers-bf16": (
        lambda: of_dinov2(2, 4, use_swiglu_ffn=True, qkv_bias=False, layer_norm_eps=1e-5), [],
        torch.bfloat16),
}
if not OLD:
    MODELS |= {
        "transformers5-clip": (lambda: of_tower("CLIP"), [], torch.float32),
        "transformers5-clip-gelu-f16": (lambda: of_tower("CLIP", hidden_act="gelu"), [],
                                        torch.float16),
        "transformers5-siglip": (lambda: of_tower("Siglip"), [], torch.float32),
    }
    MODELS |= {name: (partial(of_named, name), [],
                      {"bf16": torch.bfloat16, "-f16": torch.float16}.get(name[-4:], torch.float32))
               for name in NAMED}
# Height and width of the images, where they are not 8.
SIDES = {"mixer": 12, "convnext": 32}


NORM = r"norm|ln_|\.ln\.|stem\.1|downsample\.0|downsampling_layer\.0"


def draw(model, generator):
    """Random weights without special values: no norm is the identity, no bias is zero."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            normal = torch.randn(p.shape, generator=generator)
            if "grn" in name:
                p.copy_(0.4 * normal)
            elif re.search(r"gamma|layer_scale", name):
                p.copy_(0.5 + 0.2 * normal)
            elif re.search(NORM, name) and name.endswith("weight"):
                p.copy_(1 + 0.3 * normal)
            elif name.endswith("bias"):
                p.copy_(0.2 * normal)
            elif name.endswith("weight"):
                p.copy_(1.3 * p[0].numel() ** -0.5 * normal)
            else:  # tokens, position embedding
                p.copy_(0.5 * normal)


def convnext_layer(name):
    """The layers of ConvNeXt: `stem`, `stages.i.downsample`, `stages.i.blocks.j`, `norm`, `head`."""
    block = re.search(r"stages\.(\d+)\.(?:blocks|layers)\.(\d+)", name)
    if block:
        return "stages.%s.blocks.%s" % block.groups()
    down = re.search(r"stages\.(\d+)\.downsampl", name)
    if down:
        return "stages.%s.downsample" % down.group(1)
    if re.match(r"head\.norm|convnext(v2)?\.layernorm", name):
        return "norm"
    return "head" if re.match(r"head|classifier", name) else "stem"


def layer_of(name):
    block = re.search(r"(?:blocks|layers?)\.(?:encoder_layer_)?(\d+)", name)
    if block:
        return "block." + block.group(1)
    if re.match(r"(norm|fc_norm|(vit|deit|dinov2\w*)\.layernorm|encoder\.ln|.*post_layernorm)\.",
                name):
        return "norm"
    if name.startswith("attn_pool."):
        return "pool"
    return "head" if re.match(r"head|classifier|\w+_classifier", name) else "embed"


def vector(shape):
    k = torch.arange(1, shape.numel() + 1, dtype=torch.float64)
    return (1 - 2 * (k * GOLDEN).frac()).reshape(shape)


def products(gradient, parameters, vectors, names):
    inner = sum((gradient[n] * vectors[n]).sum() for n in names)
    return dict(zip(names, torch.autograd.grad(inner, [parameters[n] for n in names],
                                               retain_graph=True)))


def write(name, seed):
    make, changes, dtype = MODELS[name]
    generator = torch.Generator().manual_seed(seed)
    model = make().eval()
    draw(model, generator)
    folder = OUT / name
    side = next((side for family, side in SIDES.items() if family in name), 8)
    folder.mkdir(parents=True, exist_ok=True)

    def own(key):
        for pattern, new in changes:
            key = re.sub(pattern, new, key)
        return key

    def in_file(tensors):
        """Tensors under the names of the file; those of one name below each other."""
        out = {}
        for n, tensor in tensors.items():
            out.setdefault(own(n), []).append(tensor)
        return {n: parts[0] if len(parts) == 1 else torch.cat(parts) for n, parts in out.items()}

    def in_memory(tensors):
        """The inverse."""
        out, taken = {}, {}
        for n, p in model.named_parameters():
            at = taken.get(own(n), 0)
            out[n] = tensors[own(n)][at:at + len(p)]
            taken[own(n)] = at + len(p)
        return out

    if OLD:  # as saved, in the order of saving
        model.to(dtype).save_pretrained(folder)
    else:    # transformers 5 saves the old names: the new ones come from its own state_dict
        state = in_file(model.state_dict())
        state = {k: v.to(dtype).contiguous() for k, v in state.items()}
        if changes is SAVED_DINOV2:
            model.save_pretrained(folder)
            saved = load_file(folder / "model.safetensors")
            assert saved.keys() == state.keys() and all(v.equal(state[k]) for k, v in saved.items())
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if name.startswith("timm-mixer") or name.startswith("timm-convnext"):
        mixer = name.startswith("timm-mixer")
        cfg = dict(input_size=[3, side, side], crop_pct=0.9, interpolation="bicubic",
                   mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        # timm's larger architectures write their MLPs as linear layers.
        size = "_atto" if name.endswith("-conv") else "_tiny"
        kind = "mixer_b16_224" if mixer else name.split("-")[1] + size
        arguments = MIXER if mixer else CONVNEXT
        text = dict(architecture=kind, num_classes=CLASSES, global_pool="avg",
                    model_args=arguments, pretrained_cfg=cfg)
        (folder / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    elif name.startswith("timm"):
        pooled = dict(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, mlp_ratio=1.5)
        kind = "deit_tiny_distilled" if "distilled" in name else "vit_tiny"
        cfg = dict(input_size=[3, 8, 8], crop_pct=0.9, interpolation="bicubic",
                   mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        kind, more, _ = NAMED.get(name, (f"{kind}_patch16_224", {}, {}))
        text = dict(architecture=kind, num_classes=CLASSES,
                    global_pool=more.get("global_pool", "token"), model_args=pooled | more,
                    pretrained_cfg=cfg)
        (folder / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    if name.startswith("transformers"):
        model.config.id2label = {0: "cat", 1: "dog", 2: "bird"}
        model.config.save_pretrained(folder)
        kind = "DeiT" if "deit" in name or "teacher" in name else "ViT"
        kind = "ConvNext" if "convnext" in name else kind
        kind = "Bit" if "dinov2" in name else kind
        processor = getattr(transformers, f"{kind}ImageProcessor")
        more = dict(size={"height": 8, "width": 8}, image_mean=[0.4, 0.5, 0.6],
                    image_std=[0.2, 0.25, 0.3])
        if kind == "ConvNext":  # resized to 32 / 0.875 on the short side, then cropped
            more |= dict(size={"shortest_edge": 32}, crop_pct=0.875)
        kind = "CLIP" if "clip" in name else "Siglip" if "siglip" in name else kind
        processor = getattr(transformers, f"{kind}ImageProcessor")
        if kind == "DeiT":  # squashed to 12×14, then cropped
            more |= dict(size={"height": 12, "width": 14}, crop_size={"height": 8, "width": 8})
        if kind in ("Bit", "CLIP"):  # 10 pixels on the short side, then cropped
            more |= dict(size={"shortest_edge": 10}, crop_size={"height": 8, "width": 8},
                         do_center_crop=True, resample=3)
        processor = processor(**more)
        processor.save_pretrained(folder)
        image = torch.randint(256, (17, 23, 3), generator=generator, dtype=torch.uint8)
        picture = Image.fromarray(image.numpy())
        images = dict(image=image,
                      processed=processor(images=picture, return_tensors="pt").pixel_values[0])
    else:
        images = {}
    stored = load_file(folder / "model.safetensors")
    model = model.double()
    parameters = {n: p.double().clone().requires_grad_() for n, p in in_memory(stored).items()}
    assert stored.keys() == {own(n) for n in parameters}
    vectors = in_memory({n: vector(p.shape) for n, p in stored.items()})
    pixels = torch.randn(EXAMPLES, 3, side, side, generator=generator)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    logits = torch.func.functional_call(model, parameters, (pixels.double(),))
    logits = getattr(logits, "logits", logits)
    loss = F.cross_entropy(logits, labels)
    gradient = torch.autograd.grad(loss, parameters.values(), create_graph=True, allow_unused=True)
    # Parameters that the classifier does not use have none.
    gradient = {n: g for n, g in zip(parameters, gradient) if g is not None}
    names = list(gradient)
    out = dict(pixel_values=pixels, labels=labels, logits=logits, loss=loss) | images
    out |= {f"gradient/{n}": g for n, g in in_file(gradient).items()}
    product = in_file(products(gradient, parameters, vectors, names))
    out |= {f"hvp_all/{n}": h for n, h in product.items()}
    layers = {}
    for n in names:
        layers.setdefault(convnext_layer(n) if "convnext" in name else layer_of(n), []).append(n)
    vit, optional = {"embed", "block.0", "block.1", "head"}, {"norm", "pool"}
    assert "convnext" in name or set(layers) - optional == vit, layers.keys()
    for members in layers.values():
        product = in_file(products(gradient, parameters, vectors, members))
        out |= {f"hvp/{n}": h for n, h in product.items()}
    out = {k: v.detach().contiguous().clone() for k, v in out.items()}
    save_file(out, folder / "reference.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:24} {size:7} bytes  loss {loss.item():.4f}  logits ±{logits.std().item():.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no double backward
        for seed, name in enumerate(MODELS):
            if len(sys.argv) < 2 or name in sys.argv[1:]:
                write(name, seed)
