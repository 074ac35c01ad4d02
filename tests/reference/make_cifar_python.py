"""Tiny CIFAR folders in Python's pickle format, for src/data/cifar_python_tests.rs.

    python make_cifar_python.py      # needs numpy

Writes cifar-python/: folders with files named as the published ones. `python2` has the instructions that Python 2
wrote (protocol 2, texts for bytes), as in the published archives; `protocol4` and `protocol5` are what Python 3 writes.
Image i of a file has level (7 i + 3 column + 11 f) mod 251 at a column, f being the number of the file.
"""

import pathlib
import pickle
import struct

import numpy as np

here = pathlib.Path(__file__).parent / "cifar-python"


def data(n, f, order="C"):
    i, c = np.mgrid[0:n, 0:3072]
    return np.asarray((7 * i + 3 * c + 11 * f) % 251, dtype=np.uint8, order=order)


def python2(batch):
    """The pickle that cPickle of Python 2 makes: U and T for `str`."""
    def text(s):
        s = s if isinstance(s, bytes) else s.encode()
        return b"U" + bytes([len(s)]) + s if len(s) < 256 else b"T" + struct.pack("<i", len(s)) + s

    def value(v):
        if isinstance(v, (str, bytes)):
            return text(v)
        if isinstance(v, int):
            return b"K" + bytes([v]) if v < 256 else b"M" + struct.pack("<H", v)
        if isinstance(v, list):
            return b"](" + b"".join(map(value, v)) + b"e"
        h, w = v.shape
        dtype = b"cnumpy\ndtype\n(U\x02u1K\0K\1tR(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
        return new + b"(K\1" + value(h) + value(w) + b"\x86" + dtype + b"\x89" + text(v.tobytes()) + b"tb"

    return b"\x80\2}(" + b"".join(text(k) + value(v) for k, v in batch.items()) + b"u."


def write(folder, name, batch, dump):
    (here / folder).mkdir(parents=True, exist_ok=True)
    (here / folder / name).write_bytes(dump(batch))


for folder, dump in {
    "python2": python2,
    "protocol4": lambda batch: pickle.dumps({k.encode(): v for k, v in batch.items()}, 4),
    "protocol5": lambda batch: pickle.dumps(batch, 5),
}.items():
    order = "F" if folder == "protocol4" else "C"
    for f in range(1, 6):
        batch = {"batch_label": f"training batch {f} of 5", "labels": [f % 10], "data": data(1, f, order),
                 "filenames": [f"{f}.png"]}
        write(f"{folder}/cifar-10-batches-py", f"data_batch_{f}", batch, dump)
    write(f"{folder}/cifar-10-batches-py", "test_batch", {"labels": [9, 0], "data": data(2, 6, order)}, dump)
    names = [f"name {i}" for i in range(10)]
    write(f"{folder}/cifar-10-batches-py", "batches.meta", {"num_vis": 3072, "label_names": names}, dump)

fine = {"fine_labels": [99, 4, 42], "coarse_labels": [1, 2, 3], "data": data(3, 1)}
write("fine", "train", fine, python2)
write("fine", "test", {"fine_labels": [7], "coarse_labels": [0], "data": data(1, 2)}, python2)
write("fine", "meta", {"fine_label_names": [f"fine {i}" for i in range(100)]}, python2)
# The hand-made instructions are what Python reads.
for path in [*here.glob("python2/*/*"), *here.glob("fine/*")]:
    found = pickle.loads(path.read_bytes(), encoding="latin1")
    if "data" in found:
        assert found["data"].dtype == np.uint8 and found["data"].shape[1] == 3072
