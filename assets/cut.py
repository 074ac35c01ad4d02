"""Cuts a run of images out of gzipped IDX files: cut.py SOURCE TARGET PREFIX FROM TO.

Only the header's count changes; images and labels keep their bytes and their order.
"""

import gzip
import os
import struct
import sys

source, target, prefix, first, last = sys.argv[1:]
first, last = int(first), int(last)
os.makedirs(target, exist_ok=True)
for name, header in ((f"{prefix}-images-idx3-ubyte.gz", 16), (f"{prefix}-labels-idx1-ubyte.gz", 8)):
    with gzip.open(os.path.join(source, name)) as file:
        data = file.read()
    count = struct.unpack(">I", data[4:8])[0]
    size = (len(data) - header) // count
    body = data[header + first * size : header + last * size]
    head = data[:4] + struct.pack(">I", last - first) + data[8:header]
    with open(os.path.join(target, name), "wb") as file:
        # No time stamp, so that the same input gives the same bytes.
        file.write(gzip.compress(head + body, 9, mtime=0))
