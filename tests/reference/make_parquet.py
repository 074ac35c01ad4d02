"""Parquet files as Hugging Face's `datasets` and pyarrow write them, for src/data/parquet_tests.rs.

    python make_parquet.py           # needs datasets, pyarrow, pillow, numpy

Writes parquet/: `hub/data/` with train in two files and test, ClassLabel names and the columns `img` and `fine_label`;
`names.parquet` with texts as labels; `dictionary.parquet`, `v2.parquet` and `plain.parquet` with other encodings and pages. expected.json has what
`datasets` and pyarrow read: labels, and the RGB level of each image, which is of one colour.
"""

import io
import json
import pathlib

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

here = pathlib.Path(__file__).parent / "parquet"
(here / "hub/data").mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
expected = {}


def colour():
    return Image.fromarray(np.full((4, 5, 3), rng.integers(0, 256, 3), np.uint8))


def level(image):
    return np.asarray(image.convert("RGB"))[0, 0].tolist()


features = datasets.Features({
    "img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["ant", "bee", "cow"]),
    "coarse_label": datasets.ClassLabel(names=["animal", "thing"]),
})
for name, n in [("train-00000-of-00002", 5), ("train-00001-of-00002", 4), ("test-00000-of-00001", 3)]:
    data = datasets.Dataset.from_dict({"img": [colour() for _ in range(n)], "fine_label": [i % 3 for i in range(n)],
                                       "coarse_label": [1] * n}, features=features)
    path = here / f"hub/data/{name}.parquet"
    data.to_parquet(path, batch_size=2)
    back = datasets.Dataset.from_parquet(str(path), features=features, cache_dir="/tmp/planish-datasets")
    expected[f"hub/data/{name}.parquet"] = dict(labels=list(back["fine_label"]), levels=[level(i) for i in back["img"]])


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def write(name, images, labels, **options):
    rows = [{"bytes": png(i), "path": None} for i in images]
    table = pa.table({"label": labels, "image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    pq.write_table(table, here / name, **options)
    back = pq.read_table(here / name).to_pydict()
    expected[name] = dict(labels=back["label"], levels=[level(Image.open(io.BytesIO(r["bytes"]))) for r in back["image"]])


def several(n):
    return [colour() for _ in range(n)]


few = several(3)
write("names.parquet", several(4), ["dog", "cat", "dog", "emu"])
write("dictionary.parquet", [few[i % 3] for i in range(20)], [i % 4 for i in range(20)], use_dictionary=True, data_page_size=100)
write("plain.parquet", several(9), pa.array([i % 2 for i in range(9)], pa.int32()), use_dictionary=False, compression="none",
      data_page_size=150, write_batch_size=1)
write("v2.parquet", several(9), [i % 2 for i in range(9)], use_dictionary=False, data_page_version="2.0", data_page_size=150,
      write_batch_size=1, row_group_size=4)
(here / "expected.json").write_text(json.dumps(expected) + "\n")
print({k: len(v["labels"]) for k, v in expected.items()}, [(p.name, p.stat().st_size) for p in here.rglob("*.parquet")])
