"""Damaged JPEG files and the pixels Pillow reads from them, for tests/damaged.rs.

    python make_damaged.py [CASES]   # needs pillow (a wheel for x86-64), safetensors, numpy

Writes damaged.safetensors next to this file. For each NAME: `NAME/file`, the file's bytes, and
`NAME/rgb` (H, W, 3), the result of `Image.open(f).convert("RGB")`. If Pillow rejects the file, there
is no `NAME/rgb`. The damage is in the scans: bytes changed, deleted or inserted, or the end truncated
except for the end marker.
"""

import io
import pathlib
import sys
import warnings

import numpy as np
import PIL
from PIL import Image, features
from safetensors.numpy import save_file

warnings.simplefilter("ignore")
cases = int(sys.argv[1]) if len(sys.argv) > 1 else 96
rng = np.random.default_rng(0)
metadata = {"pillow": PIL.__version__, "libjpeg-turbo": features.version("libjpeg_turbo")}
tensors = {}


def picture(h, w, c):
    """Smooth colour, one hard edge and noise; 8 bits."""
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 110 * np.sin((0.11 + 0.05 * k) * x + 0.17 * y + k) for k in range(c)]
    planes = np.stack(planes, -1)
    planes[h // 4 : h // 2, w // 3 : w // 2] = rng.integers(0, 256, c)
    planes += rng.normal(0, 12, planes.shape)
    return planes.round().clip(0, 255).astype(np.uint8)


def scans(data):
    """Positions of entropy-coded bytes."""
    at, places = 2, []
    while data[at : at + 2] != b"\xff\xd9":
        if data[at] == 0xFF and data[at + 1] not in (0, *range(0xD0, 0xD8)):
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        else:
            places.append(at)
            at += 1
    return places


def damaged(data, kind):
    data, places = bytearray(data), scans(data)
    at = int(rng.choice(places))
    match kind:
        case "one":
            data[at] = int(rng.integers(0, 255))
        case "some":
            for at in rng.choice(places, 4):
                data[at] = int(rng.integers(0, 255))
        case "less":
            del data[at : at + int(rng.integers(1, 6))]
        case "more":
            data[at:at] = bytes(rng.integers(0, 255, int(rng.integers(1, 6)), dtype=np.uint8))
        case "end":
            data[at:] = b"\xff\xd9"
    return bytes(data)


forms = {
    "grey": (1, {}),
    "444": (3, dict(subsampling=0)),
    "422": (3, dict(subsampling=1)),
    "420": (3, dict(subsampling=2)),
    "rgb": (3, dict(keep_rgb=True)),
    "cmyk": (4, {}),
    "restarts": (3, dict(restart_marker_blocks=2)),
    "progressive": (3, dict(progressive=True)),
}
kinds = ["one", "some", "less", "more", "end"]
refused = 0
for case in range(cases):
    form = list(forms)[case % len(forms)]
    kind = kinds[case // len(forms) % len(kinds)]
    channels, options = forms[form]
    h, w = int(rng.integers(9, 27)), int(rng.integers(9, 27))
    levels = picture(h, w, channels)
    image = Image.fromarray(levels[..., 0] if channels == 1 else levels, "CMYK" if channels == 4 else None)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=int(rng.choice([40, 75, 95])), **options)
    data = damaged(out.getvalue(), kind)
    name = f"{case:04}-{form}-{kind}"
    tensors[f"{name}/file"] = np.frombuffer(data, np.uint8)
    try:
        with Image.open(io.BytesIO(data)) as image:
            tensors[f"{name}/rgb"] = np.asarray(image.convert("RGB"))
    except OSError:
        refused += 1

save_file(tensors, pathlib.Path(__file__).with_name("damaged.safetensors"), metadata)
print(cases, "cases,", refused, "refused by Pillow,", metadata)
