"""Images resized by Pillow and torchvision, for tests/resize.rs.

    python make_pillow.py            # needs pillow, torchvision, safetensors, numpy

Writes pillow.safetensors next to this file. Each case is a pair of u8 tensors (H, W, C):
`NAME/in`, and `NAME/out`, the levels that the model gets. The case's settings are in the
metadata entry NAME: `squash|short FILTER H W [SHORT] CHANNELS`. The tensors `norm/in`
(levels 0 to 255) and `norm/out` (torchvision's ToTensor and Normalize with ImageNet's statistics)
hold the normalisation.
"""

import pathlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from safetensors.numpy import save_file
from torchvision.transforms import functional as F
from torchvision.transforms import InterpolationMode as M

rng = np.random.default_rng(0)
FILTERS = {
    "nearest": (Image.Resampling.NEAREST, M.NEAREST),
    "bilinear": (Image.Resampling.BILINEAR, M.BILINEAR),
    "bicubic": (Image.Resampling.BICUBIC, M.BICUBIC),
}


def picture(h, w, c):
    """Smooth colour, hard edges and noise, to test blurring, ringing and aliasing."""
    y, x = np.mgrid[0:h, 0:w]
    planes = []
    for k in range(c):
        plane = 127 + 120 * np.sin(0.2 * (k + 1) * x + 0.13 * y)
        plane[h // 4 : h // 2, w // 3 : w // 2] = 255 * (k % 2)
        noise = rng.integers(0, 256, (h, w))
        planes.append(np.where(y > 2 * h // 3, noise, plane))
    return np.stack(planes, -1).round().clip(0, 255).astype(np.uint8)


tensors, metadata = {}, {"pillow": PIL.__version__, "torchvision": torchvision.__version__}


def case(name, image, channels, filter, size, short=None):
    """`image` as PIL sees it, turned grey or RGB first, as loaders do."""
    pil = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    pil = pil.convert("L" if channels == 1 else "RGB")
    pillow, vision = FILTERS[filter]
    if short is None:
        out = pil.resize((size[1], size[0]), pillow)
        settings = f"squash {filter} {size[0]} {size[1]} {channels}"
    else:
        out = F.center_crop(F.resize(pil, short, vision), list(size))
        settings = f"short {filter} {size[0]} {size[1]} {short} {channels}"
    out = np.asarray(out)
    tensors[f"{name}/in"] = image
    tensors[f"{name}/out"] = out.reshape(*size, channels)
    metadata[name] = settings


colour, tall, small = picture(45, 61, 3), picture(53, 37, 3), picture(9, 11, 3)
grey = picture(28, 28, 1)
for filter in FILTERS:
    case(f"shrink-{filter}", colour, 3, filter, (16, 16))
    case(f"shrink-a-little-{filter}", colour, 3, filter, (40, 50))
    case(f"enlarge-{filter}", small, 3, filter, (32, 24))
    case(f"enlarge-grey-{filter}", grey, 1, filter, (40, 33))
    case(f"grey-to-rgb-{filter}", grey, 3, filter, (20, 20))
    case(f"rgb-to-grey-{filter}", tall, 1, filter, (24, 24))
    case(f"short-wide-{filter}", colour, 3, filter, (21, 21), 24)
    case(f"short-tall-{filter}", tall, 3, filter, (28, 27), 32)
    case(f"short-enlarge-{filter}", small, 3, filter, (16, 16), 19)
case("identity", grey, 1, "bicubic", (28, 28))
case("crop-only", colour, 3, "bicubic", (32, 40), 45)

levels = torch.arange(256, dtype=torch.uint8)
mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
image = levels.repeat(3, 1, 1).permute(1, 2, 0).contiguous().numpy()
tensors["norm/in"] = image
tensors["norm/out"] = F.normalize(F.to_tensor(image), mean, std).numpy()

save_file(tensors, pathlib.Path(__file__).with_name("pillow.safetensors"), metadata)
