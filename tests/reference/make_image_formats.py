"""BMP, TIFF and GIF files and the pixels Pillow reads from them, for tests/image_formats.rs.

    python make_image_formats.py     # needs pillow, safetensors, numpy

Writes image_formats.safetensors next to this file. For each NAME: `NAME/file`, the file's bytes, and `NAME/rgb`
(H, W, 3), what `Image.open(f).convert("RGB")` returns. Files without `NAME/rgb` must be refused.
"""

import io
import pathlib
import struct

import numpy as np
import PIL
from PIL import Image, TiffImagePlugin
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
tensors = {}


def picture(h, w, c):
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 110 * np.sin((0.11 + 0.05 * k) * x + 0.17 * y + k) for k in range(c)]
    planes = np.stack(planes, -1)
    planes[h // 4 : h // 2, w // 3 : w // 2] = rng.integers(0, 256, c)
    return planes.round().clip(0, 255).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def case(name, data, refused=False):
    tensors[f"{name}/file"] = np.frombuffer(data, np.uint8)
    if not refused:
        tensors[f"{name}/rgb"] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


H, W = 17, 27  # rows of no whole number of bytes or words
colour, grey = picture(H, W, 3), picture(H, W, 1)
rgb, l = Image.fromarray(colour), Image.fromarray(grey[..., 0])
rgba, cmyk = Image.fromarray(picture(H, W, 4), "RGBA"), Image.fromarray(picture(H, W, 4), "CMYK")
bits, palette = l.convert("1"), rgb.quantize(37)

# BMP
for name, image in dict(rgb=rgb, grey=l, palette=palette, bits=bits).items():
    case(f"bmp-{name}", saved(image, "BMP"))
case("bmp-rgba", saved(rgba, "BMP"))


def bmp(depth, compression, masks, rows, h, w, top_down=False, palette=b""):
    header = struct.pack("<IiiHHIIiiII", 40, w, -h if top_down else h, 1, depth, compression, len(rows),
                         2835, 2835, len(palette) // 4, 0)
    body = header + masks + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(body) + len(rows), 0, 0, 14 + len(body)) + body + rows


four = np.concatenate([colour[..., ::-1], picture(H, W, 1)], -1).tobytes()
case("bmp-32-bits", bmp(32, 0, b"", four, H, W))
case("bmp-32-bits-top-down", bmp(32, 0, b"", four, H, W, top_down=True))
case("bmp-32-bits-masks", bmp(32, 3, struct.pack("<III", 0xFF0000, 0xFF00, 0xFF), four, H, W))
nibbles = rng.integers(0, 256, H * 16, dtype=np.uint8).tobytes()
entries = rng.integers(0, 256, (16, 4), dtype=np.uint8).tobytes()
case("bmp-4-bits", bmp(4, 0, b"", nibbles, H, W, palette=entries))
case("bmp-16-bits", bmp(16, 0, b"", rng.integers(0, 256, H * 56, dtype=np.uint8).tobytes(), H, W), refused=True)
case("bmp-other-masks", bmp(32, 3, struct.pack("<III", 0xFF, 0xFF00, 0xFF0000), four, H, W), refused=True)
case("bmp-rle", bmp(8, 1, b"", b"\2\1\0\1", 1, 2, palette=entries), refused=True)
case("bmp-cut", saved(rgb, "BMP")[:-40], refused=True)

# TIFF
for name, image in dict(rgb=rgb, grey=l, bits=bits, rgba=rgba, cmyk=cmyk).items():
    case(f"tiff-{name}", saved(image, "TIFF"))
case("tiff-palette", saved(palette, "TIFF"), refused=True)
for compression in ["tiff_lzw", "tiff_adobe_deflate", "packbits"]:
    for name, image in dict(rgb=rgb, grey=l, bits=bits).items():
        case(f"tiff-{name}-{compression}", saved(image, "TIFF", compression=compression))
predictor = TiffImagePlugin.ImageFileDirectory_v2()
predictor[317] = 2
case("tiff-lzw-predictor", saved(rgb, "TIFF", compression="tiff_lzw", tiffinfo=predictor))


case("tiff-pages", saved(rgb, "TIFF", save_all=True, append_images=[l]))
wide = Image.fromarray((grey[..., 0].astype(np.uint16) * 257) >> 6)
case("tiff-16-bits-grey", saved(wide, "TIFF"))


def tiff(entries, data, big=False):
    """One strip; `entries` maps tags to lists of 16-bit values."""
    e = ">" if big else "<"
    at = 8 + 2 + 12 * (len(entries) + 2) + 4
    extra, rows = b"", []
    for tag, values in sorted({**entries, 273: None, 279: None}.items()):
        if values is None:
            rows.append((tag, 4, 1, None if tag == 273 else struct.pack(e + "I", len(data))))
        elif len(values) <= 2:
            packed = struct.pack(e + f"{len(values)}H", *values)
            rows.append((tag, 3, len(values), packed.ljust(4, b"\0")))
        else:
            rows.append((tag, 3, len(values), struct.pack(e + "I", at + len(extra))))
            extra += struct.pack(e + f"{len(values)}H", *values)
    out = (b"MM" if big else b"II") + struct.pack(e + "HIH", 42, 8, len(rows))
    for tag, kind, n, value in rows:
        out += struct.pack(e + "HHI", tag, kind, n) + (value or struct.pack(e + "I", at + len(extra)))
    return out + b"\0\0\0\0" + extra + data


def image(samples, photometric, depth, **more):
    """Uncompressed samples (H, W, C) of 8 or 16 bits."""
    h, w, c = samples.shape
    data = samples.astype(">u2" if depth == 16 else np.uint8).tobytes()
    names = dict(extra=338, orientation=274, fill=266, planes=284, format=339, map=320)
    tags = {256: [w], 257: [h], 258: [depth] * c, 259: [1], 262: [photometric], 277: [c], 278: [h]}
    return tiff({**tags, **{names[k]: v for k, v in more.items()}}, data, big=True)


deep = rng.integers(0, 65536, (H, W, 3))
case("tiff-16-bits-rgb", image(deep, 2, 16))
case("tiff-16-bits-grey-big-endian", image(deep[..., :1] >> 7, 1, 16))
case("tiff-white-is-zero", image(grey, 0, 8))
case("tiff-grey-alpha", image(picture(H, W, 2), 1, 8, extra=[2]), refused=True)
case("tiff-rgba-unspecified", image(picture(H, W, 4), 2, 8, extra=[0]), refused=True)
case("tiff-white-is-zero-bits", tiff({256: [16], 257: [4], 258: [1], 259: [1], 262: [0], 277: [1], 278: [4]},
                                     bytes([3, 5, 250, 17, 0, 255, 128, 1])))
case("tiff-premultiplied", image(picture(H, W, 4), 2, 8, extra=[1]), refused=True)
case("tiff-rotated", image(colour, 2, 8, orientation=[6]), refused=True)
case("tiff-planes", image(colour, 2, 8, planes=[2]), refused=True)
case("tiff-float", saved(Image.fromarray(grey[..., 0].astype(np.float32)), "TIFF"), refused=True)
case("tiff-32-bits", saved(Image.fromarray(grey[..., 0].astype(np.int32)), "TIFF"), refused=True)
case("tiff-jpeg", saved(rgb, "TIFF", compression="jpeg"), refused=True)
case("tiff-cut", saved(rgb, "TIFF")[: len(saved(rgb, "TIFF")) // 2], refused=True)
case("tiff-lzw-cut", image(colour, 2, 8)[:-9], refused=True)

# GIF
case("gif-palette", saved(palette, "GIF"))
case("gif-grey", saved(l, "GIF"))
case("gif-bits", saved(bits, "GIF"))
case("gif-interlaced", saved(palette, "GIF", interlace=1))
case("gif-transparent", saved(palette, "GIF", transparency=3))
other = Image.fromarray(picture(H, W, 3)[::-1].copy()).quantize(20)
case("gif-animated", saved(palette, "GIF", save_all=True, append_images=[other], duration=9))


def gif(frame, colours, canvas, at=(0, 0), transparent=None):
    """A frame in a part of the canvas, by Pillow's own encoder for the data."""
    one = Image.fromarray(frame, "P")
    one.putpalette(colours)
    data = saved(one, "GIF", interlace=0, optimize=False)
    body = data[data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1)) + 10 :]
    size = max(1, (len(colours) // 3 - 1).bit_length()) - 1
    table = colours.ljust(3 * 2 ** (size + 1), b"\0")
    out = b"GIF89a" + struct.pack("<HHBBB", canvas[1], canvas[0], 0x80 | size, 0, 0) + table
    if transparent is not None:
        out += b"\x21\xf9\4" + struct.pack("<BHBB", 1, 0, transparent, 0)
    h, w = frame.shape
    return out + b"\x2c" + struct.pack("<HHHHB", at[1], at[0], w, h, 0) + body


part = rng.integers(0, 256, (5, 7), dtype=np.uint8)
table = rng.integers(0, 256, 768, dtype=np.uint8).tobytes()
case("gif-part", gif(part, table, (11, 13), (2, 3)))
case("gif-part-transparent", gif(part, table, (11, 13), (2, 3), transparent=9))
case("gif-outside", gif(part, table, (4, 4)), refused=True)
case("gif-cut", saved(palette, "GIF")[:-60], refused=True)

save_file(tensors, pathlib.Path(__file__).with_name("image_formats.safetensors"), {"pillow": PIL.__version__})
print(len(tensors), "tensors", [name for name in tensors if name.endswith("/file") and name[:-4] + "rgb" not in tensors])
