"""Writes shift.safetensors and shift.json: the common corruptions, computed by public Python code.

Run manually, not in CI (imagecorruptions 1.1.2, numpy, scipy, scikit-image, OpenCV, Pillow):

    python tests/reference/make_shift.py

Images with sides above 64 pixels are corrupted by the package imagecorruptions, which has the settings
of ImageNet-C. It was written for older numpy, scipy and scikit-image; the lines under "shims" define
the names it needs. Smaller images have the settings of CIFAR-10-C, which no package provides; here they
are passed to the helpers of imagecorruptions, to OpenCV and to Pillow.

Deterministic corruptions are stored as images. For random ones, the mean and the standard deviation of
the change are computed per draw; the file has their means over draws and their spread.
"""

import json
import sys
import types
from io import BytesIO
from pathlib import Path

import numpy as np
import scipy.ndimage
import skimage.filters
from PIL import Image
from safetensors.numpy import save_file

# Shims.
np.float_ = np.float64
sys.modules["scipy.ndimage.interpolation"] = scipy.ndimage
resources = types.ModuleType("pkg_resources")
folder = Path(next(p for p in sys.path if (Path(p) / "imagecorruptions").is_dir())) / "imagecorruptions"
resources.resource_filename = lambda _, name: str(folder / name)
sys.modules["pkg_resources"] = resources
plain = skimage.filters.gaussian


def gaussian(x, sigma, multichannel=False, **rest):
    return plain(x, sigma, channel_axis=-1 if multichannel else None, **rest)


skimage.filters.gaussian = gaussian
import cv2  # noqa: E402
import imagecorruptions.corruptions as ic  # noqa: E402

DRAWS = 150
FIXED = ["defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"]
RANDOM = ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost",
          "fog", "elastic_transform"]


def picture(h, w):
    """Smooth colours, sharp edges, black, white and fine texture."""
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    rgb = np.stack([0.5 + 0.5 * np.sin(9 * x), 0.5 + 0.5 * np.cos(7 * y + 3 * x), x * y + 0.2], axis=2)
    rgb[h // 3:h // 2, w // 4:w // 2] = [0.9, 0.1, 0.1]
    rgb[: h // 6, : w // 6] = 0
    rgb[-(h // 6):, -(w // 6):] = 1
    rgb += 0.08 * np.random.default_rng(3).standard_normal(rgb.shape)
    return np.uint8(np.clip(rgb, 0, 1) * 255)


def large(name, image, severity):
    image = Image.fromarray(image)
    return np.uint8(np.asarray(getattr(ic, name)(image, severity)))


def trimmed(x, factor):
    out = ic.clipped_zoom(x, factor)
    top, left = (out.shape[0] - x.shape[0]) // 2, (out.shape[1] - x.shape[1]) // 2
    return out[top:top + x.shape[0], left:left + x.shape[1]]


def small(name, image, severity):
    """CIFAR-10-C's settings (hendrycks/robustness, make_cifar_c.py)."""
    pick = lambda *settings: settings[severity - 1]
    x, n = image / 255.0, image.shape[0]
    random = np.random
    if name == "gaussian_noise":
        x = x + random.normal(size=x.shape, scale=pick(.04, .06, .08, .09, .10))
    elif name == "shot_noise":
        c = pick(500, 250, 100, 75, 50)
        x = random.poisson(x * c) / c
    elif name == "impulse_noise":
        x = ic.sk.util.random_noise(x, mode="s&p", amount=pick(.01, .02, .03, .05, .07))
    elif name == "defocus_blur":
        radius, sigma = pick((.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1))
        kernel = ic.disk(radius, sigma)
        x = np.stack([cv2.filter2D(x[:, :, d], -1, kernel) for d in range(3)], axis=2)
    elif name == "glass_blur":
        sigma, d, times = pick((.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2))
        y = np.uint8(gaussian(x, sigma, multichannel=True) * 255)
        for _ in range(times):
            for h in range(n - d, d, -1):
                for w in range(n - d, d, -1):
                    dx, dy = random.randint(-d, d, size=(2,))
                    y[h, w] = y[h + dy, w + dx]
        x = gaussian(y / 255.0, sigma, multichannel=True)
    elif name == "motion_blur":
        radius, sigma = pick((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
        x = ic._motion_blur(x, radius, sigma, random.uniform(-45, 45))
    elif name == "zoom_blur":
        factors = np.arange(1, pick(1.06, 1.11, 1.16, 1.21, 1.26), 0.01)
        x = (x + sum(trimmed(x, z) for z in factors)) / (len(factors) + 1)
    elif name == "snow":
        c = pick((.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9), (.15, .3, 1.75, .55, 10, 4, .9),
                 (.25, .3, 2.25, .6, 12, 6, .85), (.3, .3, 1.25, .65, 14, 12, .8))
        layer = trimmed(random.normal(size=x.shape[:2] + (1,), loc=c[0], scale=c[1]), c[2])
        layer[layer < c[3]] = 0
        layer = ic._motion_blur(np.clip(layer[..., 0], 0, 1), c[4], c[5], random.uniform(-135, -45))
        grey = cv2.cvtColor(np.float32(x), cv2.COLOR_RGB2GRAY)[..., None]
        x = c[6] * x + (1 - c[6]) * np.maximum(x, grey * 1.5 + 0.5)
        layer = layer[..., None]
        x = x + layer + np.rot90(layer, k=2)
    elif name == "frost":
        kept, share = pick((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45))
        file = ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"][random.randint(5)]
        layer = cv2.resize(cv2.imread(str(folder / "frost" / file)), (0, 0), fx=.2, fy=.2)
        top, left = random.randint(0, layer.shape[0] - n), random.randint(0, layer.shape[1] - n)
        x = kept * x + share * layer[top:top + n, left:left + n, ::-1] / 255.0
    elif name == "fog":
        c, decay = pick((.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75))
        top = x.max()
        x = (x + c * ic.plasma_fractal(32, decay)[:n, :n, None]) * top / (top + c)
    elif name == "brightness":
        hsv = ic.sk.color.rgb2hsv(x)
        hsv[:, :, 2] = np.clip(hsv[:, :, 2] + pick(.05, .1, .15, .2, .3), 0, 1)
        x = ic.sk.color.hsv2rgb(hsv)
    elif name == "contrast":
        mean = x.mean(axis=(0, 1), keepdims=True)
        x = (x - mean) * pick(.75, .5, .4, .3, .15) + mean
    elif name == "elastic_transform":
        a, b, c = pick((0, 0, .08), (.05, .2, .07), (.08, .06, .06), (.1, .04, .05), (.1, .03, .03))
        centre, arm = n // 2, n // 3
        corners = np.float32([[centre + arm, centre + arm], [centre + arm, centre - arm],
                              [centre - arm, centre - arm]])
        moved = np.float32(corners + random.uniform(-c * n, c * n, size=(3, 2)))
        x = cv2.warpAffine(np.float32(x), cv2.getAffineTransform(corners, moved), (n, n),
                           borderMode=cv2.BORDER_REFLECT_101)
        field = lambda: gaussian(random.uniform(-1, 1, size=(n, n)), b * n, mode="reflect",
                                 truncate=3) * a * n
        dx, dy = field(), field()
        rows, columns = np.mgrid[0:n, 0:n]
        x = np.stack([scipy.ndimage.map_coordinates(x[..., d], [rows + dy, columns + dx], order=1,
                                                    mode="reflect") for d in range(3)], axis=2)
    elif name == "pixelate":
        c = int(n * pick(.95, .9, .85, .75, .65))
        return np.asarray(Image.fromarray(image).resize((c, c), Image.BOX).resize((n, n), Image.BOX))
    elif name == "jpeg_compression":
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=pick(80, 65, 58, 50, 40))
        return np.asarray(Image.open(file))
    return np.uint8(np.clip(x, 0, 1) * 255)


if __name__ == "__main__":
    tensors, spreads = {}, {}
    for size, corrupt, image in [("large", large, picture(40, 72)), ("small", small, picture(32, 32))]:
        tensors[size] = image
        for severity in [1, 3, 5]:
            for name in FIXED:
                out = corrupt(name, image, severity)
                assert out.shape == image.shape, name
                tensors[f"{size}/{name}/{severity}"] = np.ascontiguousarray(out)
            for name in RANDOM:
                np.random.seed(severity)
                found = []
                for _ in range(DRAWS):
                    change = np.float64(corrupt(name, image.copy(), severity)) - image
                    found.append([change.mean(), change.std()])
                found = np.array(found)
                key = f"{size}/{name}/{severity}"
                spreads[key] = dict(mean=found.mean(axis=0).tolist(), spread=found.std(axis=0).tolist())
                print(key, np.round(found.mean(axis=0), 2), np.round(found.std(axis=0), 2))
    here = Path(__file__).parent
    save_file(tensors, here / "shift.safetensors")
    (here / "shift.json").write_text(json.dumps(dict(draws=DRAWS, changes=spreads)) + "\n")
