"""Tar shards as webdataset writes and reads them, for src/data/webdataset_tests.rs.

    python make_webdataset.py        # needs webdataset, pillow, numpy

Writes webdataset/: numbered labels (`cls`) in train-00000{0,1}.tar and val-000000.tar with `classes.txt`, and named labels
(`json`) in named/part-0.tar. expected.json has, for each pattern, what webdataset reads: labels and the RGB level of each
image, which is of one colour.
"""

import json
import pathlib

import numpy as np
import webdataset as wds
from PIL import Image

here = pathlib.Path(__file__).parent / "webdataset"
(here / "named").mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)


def colour():
    return Image.fromarray(np.full((4, 5, 3), rng.integers(0, 256, 3), np.uint8))


def write(pattern, samples, count):
    with wds.ShardWriter(str(here / pattern), maxcount=count, verbose=0) as sink:
        for sample in samples:
            sink.write(sample)


write("train-%06d.tar", [{"__key__": f"a/x{i:03}", "png": colour(), "cls": i % 3, "txt": "caption"} for i in range(7)], 4)
write("val-%06d.tar", [{"__key__": f"{i:03}", "input.png": colour(), "cls": 2 - i} for i in range(3)], 9)
names = ["dog", "cat", "dog", "emu"]
write("named/part-%d.tar", [{"__key__": f"{i}", "png": colour(), "json": {"id": i, "label": n}}
                            for i, n in enumerate(names)], 9)
(here / "classes.txt").write_text("ant\nbee\ncow\n")

expected = {}
for pattern in ["train-{000000..000001}.tar", "val-000000.tar", "named/part-0.tar"]:
    labels, levels = [], []
    for sample in wds.WebDataset(str(here / pattern), shardshuffle=False, empty_check=False).decode("rgb8"):
        image = sample.get("png", sample.get("input.png"))
        levels.append(image[0, 0].tolist())
        labels.append(sample["cls"] if "cls" in sample else sample["json"]["label"])
    expected[pattern] = dict(labels=labels, levels=levels)
(here / "expected.json").write_text(json.dumps(expected) + "\n")
print(expected)
