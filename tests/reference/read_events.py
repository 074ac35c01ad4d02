"""Reads an event file of `--tensorboard DIR` with TensorBoard's own reader, which verifies all
checksums, and prints each scalar: `python read_events.py DIR`."""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

found = EventAccumulator(sys.argv[1])
found.Reload()
tags = found.Tags()["scalars"]
if not tags:
    sys.exit(f"{sys.argv[1]}: no scalars")
for tag in tags:
    print(tag, [(e.step, e.value) for e in found.Scalars(tag)])
