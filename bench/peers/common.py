"""What the peer scripts share: tensor data of a checkpoint, repeats, the result line.

A peer codes the data of every tensor, in the order of the tuned file, as one buffer; headers and side files are left out, in its favour.
"""
import argparse, glob, hashlib, json, os, time
import numpy as np


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("base"); ap.add_argument("tuned"); ap.add_argument("work")
    ap.add_argument("--threads", type=int, default=2); ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--level", type=int, default=19)
    return ap.parse_args()


def files(path):
    return [path] if os.path.isfile(path) else sorted(glob.glob(os.path.join(path, "*.safetensors")))


def header(raw):
    n = int.from_bytes(raw[:8], "little")
    tensors = json.loads(raw[8:8 + n]); tensors.pop("__metadata__", None)
    return 8 + n, {k: tuple(v["data_offsets"]) for k, v in tensors.items()}


def tensors(path):
    out = {}
    for f in files(path):
        raw = open(f, "rb").read()
        start, spans = header(raw)
        for name, (a, b) in sorted(spans.items(), key=lambda s: s[1]):
            out[name] = memoryview(raw)[start + a:start + b]
    return out


def names(path):
    """Tensor names in the order of their data."""
    out = []
    for f in files(path):
        with open(f, "rb") as h:
            n = int.from_bytes(h.read(8), "little")
            spans = header(n.to_bytes(8, "little") + h.read(n))[1]
        out += sorted(spans, key=lambda k: spans[k])
    return out


def data(path, order):
    """All tensor bytes in one buffer, in the given order; without a copy where the file has that order already."""
    if len(files(path)) == 1 and names(path) == order:
        with open(files(path)[0], "rb") as h:
            h.seek(8 + int.from_bytes(h.read(8), "little"))
            return h.read()
    views = tensors(path)
    return b"".join(views[n] for n in order)


def xor(a, b):
    return np.bitwise_xor(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)).tobytes()


def since_start():
    """Seconds since this process was started: the interpreter and its imports (Linux; 0 elsewhere)."""
    try:
        ticks = int(open("/proc/self/stat").read().rsplit(") ", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return 0.0


def sha(b):
    return hashlib.sha256(b).hexdigest()


def timed(repeat, f):
    """Best wall time of several, and the last result."""
    best = float("inf")
    for _ in range(repeat):
        t = time.perf_counter(); out = f(); best = min(best, time.perf_counter() - t)
    return best, out


def write(path, b):
    with open(path, "wb") as f:
        f.write(b)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def bench(a, encode, decode, out="peer.bin"):
    """encode(base, tuned) -> bytes and decode(blob, base) -> bytes, both timed with reading and writing of files."""
    start_s = since_start()
    order = names(a.tuned)
    blob_file, back_file = os.path.join(a.work, out), os.path.join(a.work, out + ".back")
    base_of = (lambda: data(a.base, order)) if a.base != "none" else (lambda: None)
    encode_s, _ = timed(a.repeat, lambda: write(blob_file, encode(base_of(), data(a.tuned, order))))
    restore_s, _ = timed(a.repeat, lambda: write(back_file, decode(read(blob_file), base_of())))
    ok = sha(read(back_file)) == sha(data(a.tuned, order))
    size = os.path.getsize(blob_file)
    os.remove(blob_file); os.remove(back_file)
    return {"bytes": size, "encodeS": encode_s, "restoreS": restore_s, "startS": start_s, "exact": ok}


def result(**fields):
    print(json.dumps(fields))
