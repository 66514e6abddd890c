"""gguf 0.19.0: `dequantize` of blocks to f32, and of every tensor of a file.  gguf_decode.py BLOCKS.gguf FILE.gguf|none

One JSON line: for each tensor of BLOCKS (repeated to 4 Mi elements) SHA-256 of the values and the best of three times; seconds for all of FILE.
"""
import hashlib, json, sys, time

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

ELEMENTS = 1 << 22


def best(call):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        out = call()
        times.append(time.perf_counter() - start)
    return out, min(times)


types = {}
with np.errstate(all="ignore"):
    for t in GGUFReader(sys.argv[1]).tensors:
        data = np.asarray(t.data)
        if data.dtype != np.uint8:
            continue
        # the first two rows: numbers without NaN, whose bits are the machine's
        rows = data[:2]
        elements = int(t.shape[0]) * 2
        raw = np.tile(rows, (ELEMENTS // elements, 1))
        out, seconds = best(lambda: dequantize(raw, t.tensor_type))
        types[t.name] = {"sha256": hashlib.sha256(out.tobytes()).hexdigest(), "seconds": seconds}
    total = None
    if sys.argv[2] != "none":
        reader = GGUFReader(sys.argv[2])
        _, total = best(lambda: [dequantize(t.data, t.tensor_type) for t in reader.tensors] and None)
print(json.dumps({"types": types, "fileSeconds": total}))
