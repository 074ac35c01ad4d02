"""Sizes after a resize of the short side, and where centre crops start, for src/data/transform.rs.

    python make_crops.py             # needs torchvision, transformers, pillow, numpy

Writes crops.json beside this file: a list of [height, width, side, crop height, crop width,
resized height, resized width, torchvision's top, left, transformers' top, left]. The values are
measured on images that the libraries resize and crop. Pixels contain their coordinates, so the first
pixel of a crop gives its position. timm uses torchvision's transforms. The two backends of
transformers must agree.
"""

import json
import pathlib
import random

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_utils import SizeDict

random.seed(0)
pil, vision = PilBackend(), TorchvisionBackend()


def both(of_pil, of_vision):
    of_pil, of_vision = [tuple(int(x) for x in found) for found in (of_pil, of_vision)]
    assert of_pil == of_vision, (of_pil, of_vision)
    return of_pil


def case(height, width, side, crop):
    image = Image.new("L", (width, height))
    levels = np.zeros((1, height, width), np.uint8)
    resized = F.resize(image, side, InterpolationMode.NEAREST).size[::-1]
    edge = SizeDict(shortest_edge=side)
    theirs = both(
        pil.resize(levels, edge, resample=0).shape[1:],
        vision.resize(torch.from_numpy(levels), edge, resample=0).shape[1:],
    )
    assert theirs == resized, (theirs, resized)
    places = np.stack(np.mgrid[0 : resized[0], 0 : resized[1]])
    size = SizeDict(height=crop[0], width=crop[1])
    torchvision = F.center_crop(torch.from_numpy(places), list(crop))[:, 0, 0]
    transformers = both(
        pil.center_crop(places, size)[:, 0, 0],
        vision.center_crop(torch.from_numpy(places), size)[:, 0, 0],
    )
    return [height, width, side, *crop, *resized, *torchvision.tolist(), *transformers]


cases = []
# All remainders of the longer side, with even and odd crops.
for side in (8, 9):
    for long in range(side, side + 14):
        for crop in ((side, side), (side - 1, side - 2)):
            cases += [case(side, long, side, crop), case(long, side, side, crop)]
# Typical sizes of image folders.
for _ in range(300):
    height, width = random.randint(1, 640), random.randint(1, 640)
    if max(height, width) > 6 * min(height, width):
        continue
    side = random.choice([32, 56, 73, 224, 232, 248, 256])
    crop = side if random.random() < 0.3 else random.randint(side // 2, side)
    cases.append(case(height, width, side, (crop, crop)))

path = pathlib.Path(__file__).with_name("crops.json")
path.write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
print(len(cases), "cases,", sum(c[7:9] != c[9:11] for c in cases), "where the offsets differ")
