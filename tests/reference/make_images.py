"""Image files and the pixels Pillow reads from them, for tests/images.rs.

    python make_images.py            # needs pillow (with webp), torchvision, safetensors, numpy

Writes images.safetensors next to this file. For each NAME: `NAME/file`, the file's bytes;
`NAME/rgb` (H, W, 3) and `NAME/l` (H, W, 1), what `Image.open(f).convert("RGB")` and
`convert("L")` return; the optional metadata entry `NAME/whole` is the minimum length to which the
file can be truncated so that Pillow still loads it. `NAME/out` (H, W, 3) is the RGB image after
torchvision's Resize and CenterCrop, or after one Pillow resize as in transformers, with the settings
in the metadata entry NAME: `squash|short FILTER H W [SHORT] 3`.
"""

import io
import pathlib
import struct
import zlib

import numpy as np
import PIL
import torchvision
from PIL import Image, ImageFile
from safetensors.numpy import save_file
from torchvision.transforms import functional as F
from torchvision.transforms import InterpolationMode as M

assert not ImageFile.LOAD_TRUNCATED_IMAGES
rng = np.random.default_rng(0)
tensors, metadata = {}, {"pillow": PIL.__version__, "torchvision": torchvision.__version__}
FILTERS = {
    "bilinear": (Image.Resampling.BILINEAR, M.BILINEAR),
    "bicubic": (Image.Resampling.BICUBIC, M.BICUBIC),
}


def picture(h, w, c):
    """Smooth colour and one hard edge, as photographs have; 8 bits."""
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 110 * np.sin((0.11 + 0.05 * k) * x + 0.17 * y + k) for k in range(c)]
    planes = np.stack(planes, -1)
    planes[h // 4 : h // 2, w // 3 : w // 2] = rng.integers(0, 256, c)
    return planes.round().clip(0, 255).astype(np.uint8)


def opened(data, mode):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode))


def loads(data):
    try:
        opened(data, "RGB")
        return True
    except Exception:
        return False


def case(name, data, cut=False):
    rgb, grey = opened(data, "RGB"), opened(data, "L")
    tensors[f"{name}/file"] = np.frombuffer(data, np.uint8)
    tensors[f"{name}/rgb"] = rgb
    tensors[f"{name}/l"] = grey[..., None]
    if cut:
        ok = [loads(data[:n]) for n in range(len(data) + 1)]
        metadata[f"{name}/whole"] = str(ok.index(True))
        assert all(ok[ok.index(True) :])


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(samples, colour, depth, extra=b"", interlaced=False):
    """A PNG of (H, W, C) samples of 1 to 16 bits, which Pillow cannot write in every form."""
    h, w, c = samples.shape

    def rows(part):
        for row in part:
            values = row.reshape(-1)
            if depth == 16:
                line = values.astype(">u2").tobytes()
            else:
                bits = "".join(f"{v:0{depth}b}" for v in values)
                bits += "0" * (-len(bits) % 8)
                line = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
            yield b"\0" + line

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes]
    body = b"".join(b"".join(rows(part)) for part in parts if part.size)
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra
    return out + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def chunk(kind, body):
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


H, W = 17, 24
colour, grey = picture(H, W, 3), picture(H, W, 1)
rgb, l = Image.fromarray(colour), Image.fromarray(grey[..., 0])

# JPEG
case("jpeg-grey", saved(l, "JPEG", quality=85), cut=True)
for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
    for quality in (40, 75, 95):
        data = saved(rgb, "JPEG", quality=quality, subsampling=subsampling)
        case(f"jpeg-{name}-q{quality}", data, cut=quality == 75)
for size in ((1, 1), (8, 8), (33, 31), (16, 16), (5, 40), (40, 5)):
    image = Image.fromarray(picture(*size, 3))
    case(f"jpeg-420-{size[0]}x{size[1]}", saved(image, "JPEG", quality=75, subsampling=2))
case("jpeg-progressive-444", saved(rgb, "JPEG", quality=80, subsampling=0, progressive=True))
data = saved(rgb, "JPEG", quality=80, subsampling=2, progressive=True)
case("jpeg-progressive-420", data, cut=True)
case("jpeg-restarts", saved(rgb, "JPEG", quality=80, restart_marker_blocks=1), cut=True)
case("jpeg-rgb", saved(rgb, "JPEG", quality=80, keep_rgb=True))
exif = Image.Exif()
exif[0x0112] = 6
case("jpeg-exif-rotated", saved(rgb, "JPEG", quality=80, exif=exif))
thumbnail = exif.tobytes() + b"\xff\xd9\xff\xda"
case("jpeg-end-in-a-segment", saved(rgb, "JPEG", quality=80, comment=thumbnail), cut=True)
case("jpeg-bytes-after-the-end", saved(rgb, "JPEG", quality=80) + b"\0more")
cmyk = Image.fromarray(picture(H, W, 4), "CMYK")
data = saved(cmyk, "JPEG", quality=90)
case("jpeg-cmyk", data, cut=True)
at = data.index(b"\xff\xee")
assert data[at + 4 : at + 9] == b"Adobe" and data[at + 15] == 0
case("jpeg-cmyk-no-marker", data[:at] + data[at + 16 :])
case("jpeg-ycck", data[: at + 15] + b"\x02" + data[at + 16 :])

# PNG
case("png-rgb", saved(rgb, "PNG"), cut=True)
case("png-grey", saved(l, "PNG"))
case("png-grey-alpha", saved(Image.fromarray(picture(H, W, 2), "LA"), "PNG"))
case("png-rgba", saved(Image.fromarray(picture(H, W, 4), "RGBA"), "PNG"))
palette = rgb.quantize(37)
case("png-palette", saved(palette, "PNG"), cut=True)
case("png-palette-4", saved(rgb.quantize(11), "PNG"))
case("png-palette-2", saved(rgb.quantize(4), "PNG"))
case("png-palette-1", saved(rgb.quantize(2), "PNG"))
case("png-palette-clear-entry", saved(palette, "PNG", transparency=3))
case("png-palette-alphas", saved(palette, "PNG", transparency=bytes(range(0, 37 * 5, 5))))
case("png-1-bit", saved(l.convert("1"), "PNG"))
case("png-2-bit", png(grey >> 6, 0, 2))
case("png-4-bit", png(grey >> 4, 0, 4))
case("png-grey-trns", saved(l, "PNG", transparency=int(grey[0, 0, 0])))
case("png-rgb-trns", saved(rgb, "PNG", transparency=tuple(int(v) for v in colour[0, 0])))


def wide(c):
    return picture(H, W, c).astype(np.uint16) * 256 + rng.integers(0, 256, (H, W, c))


case("png-16-grey", png(wide(1), 0, 16), cut=True)
case("png-16-grey-dark", png(wide(1) >> 7, 0, 16))
case("png-16-rgb", png(wide(3), 2, 16))
case("png-16-grey-alpha", png(wide(2), 4, 16))
case("png-16-rgba", png(wide(4), 6, 16))
case("png-16-rgb-trns", png(wide(3), 2, 16, chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))))
case("png-interlaced", png(colour, 2, 8, interlaced=True), cut=True)
case("png-gamma", png(colour, 2, 8, chunk(b"gAMA", struct.pack(">I", 100000))))
case("png-exif-rotated", saved(rgb, "PNG", exif=exif))

# WebP
rgba = Image.fromarray(picture(H, W, 4), "RGBA")
case("webp-lossless", saved(rgb, "WEBP", lossless=True), cut=True)
case("webp-lossless-alpha", saved(rgba, "WEBP", lossless=True))
case("webp-lossless-alpha-exact", saved(rgba, "WEBP", lossless=True, exact=True))
case("webp-lossy", saved(rgb, "WEBP", quality=75), cut=True)
case("webp-lossy-95", saved(rgb, "WEBP", quality=95))
case("webp-lossy-alpha", saved(rgba, "WEBP", quality=80))
case("webp-lossy-odd", saved(Image.fromarray(picture(33, 31, 3)), "WEBP", quality=80))
other = Image.fromarray(picture(H, W, 3)[::-1].copy())
data = saved(rgb, "WEBP", lossless=True, save_all=True, append_images=[other], duration=9)
case("webp-animated", data)


def shown(name, data, filter, size, short=None):
    """The file after the preprocessing."""
    tensors[f"{name}/file"] = np.frombuffer(data, np.uint8)
    pillow, vision = FILTERS[filter]
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if short is None:
        out, how = image.resize((size[1], size[0]), pillow), f"squash {filter} {size[0]} {size[1]}"
    else:
        out = F.center_crop(F.resize(image, short, vision), list(size))
        how = f"short {filter} {size[0]} {size[1]} {short}"
    tensors[f"{name}/out"] = np.asarray(out)
    metadata[name] = how + " 3"


for filter in FILTERS:
    for h, w in ((37, 53), (53, 37), (41, 41)):
        image = Image.fromarray(picture(h, w, 3))
        lossless, lossy = saved(image, "PNG"), saved(image, "JPEG", quality=75)
        # torchvision's 256 → 224, timm's floor(224/0.9) = 248 → 224, in small.
        shown(f"down-{filter}-{h}x{w}", lossless, filter, (21, 21), 24)
        shown(f"down-odd-{filter}-{h}x{w}", lossless, filter, (22, 21), 27)
        shown(f"up-{filter}-{h}x{w}", lossless, filter, (40, 40), 44)
        shown(f"squash-{filter}-{h}x{w}", lossless, filter, (24, 24))
        shown(f"jpeg-down-{filter}-{h}x{w}", lossy, filter, (21, 21), 24)
        shown(f"jpeg-up-{filter}-{h}x{w}", lossy, filter, (40, 40), 44)

save_file(tensors, pathlib.Path(__file__).with_name("images.safetensors"), metadata)
