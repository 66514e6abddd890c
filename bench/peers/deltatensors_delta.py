"""deltatensors 0.2.0: save_delta_from_paths and load_delta_from_paths at one strategy's own defaults.

    python deltatensors_delta.py BASE TUNED FOLDER --strategy int4|sparse|quantized [--threads 2]

Leaves what it restores in FOLDER as a checkpoint with the fine-tune's other files, in f32, as the package gives it. One JSON line: bytes of
the file, seconds, ||restored - tuned|| / ||tuned - base|| over all tensors.
"""
import argparse, contextlib, os, shutil, sys, time
import numpy as np, torch
import deltatensors as dt
from importlib.metadata import version
from safetensors.torch import load_file, save_file
from common import files, result

ap = argparse.ArgumentParser()
ap.add_argument("base"), ap.add_argument("tuned"), ap.add_argument("folder")
ap.add_argument("--strategy", required=True), ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
torch.set_num_threads(a.threads)

os.makedirs(a.folder, exist_ok=True)
path = os.path.join(a.folder, "delta.wdelta")
with contextlib.redirect_stdout(sys.stderr):
    t = time.perf_counter()
    dt.save_delta_from_paths(path, a.tuned, a.base, strategy=a.strategy, use_gpu=False)
    encode_s = time.perf_counter() - t
    size = os.path.getsize(path)
    t = time.perf_counter()
    restored = dt.load_delta_from_paths(path, a.base)
    restore_s = time.perf_counter() - t
os.remove(path)

load = lambda folder: {k: v for f in files(folder) for k, v in load_file(f).items()}
base, tuned = load(a.base), load(a.tuned)
error = delta = 0.0
for name, w1 in tuned.items():
    w1 = w1.double()
    error += (torch.from_numpy(restored[name]).double() - w1).square().sum().item()
    delta += (w1 - base[name].double()).square().sum().item()
save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in restored.items()}, os.path.join(a.folder, "model.safetensors"), metadata={"format": "pt"})
for f in os.listdir(a.tuned):
    if not f.endswith((".safetensors", ".index.json")) and os.path.isfile(os.path.join(a.tuned, f)):
        shutil.copy(os.path.join(a.tuned, f), a.folder)
result(bytes=size, encodeS=encode_s, restoreS=restore_s, error=(error / delta) ** 0.5, rawBytes=sum(v.numel() * v.element_size() for v in tuned.values()), version=version("deltatensors"))
