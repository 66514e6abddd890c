"""mergekit-extract-lora, timed as a process, and the residual of every tensor that its adapter covers.

residual = ||What - W1||_F / ||W1 - W0||_F, What = W0 + scaling * B A. `unrounded`: What in f32 (mergekit's favour);
`fused`: What rounded to the tensor's dtype, which is what a merged model holds.
`--adapter DIR`: only measures an adapter that is there already, by the same formula.
"""
import argparse, glob, json, os, re, shutil, subprocess, sys, time
from importlib.metadata import version
import torch
from safetensors import safe_open

ap = argparse.ArgumentParser()
ap.add_argument("base"); ap.add_argument("tuned"); ap.add_argument("work")
ap.add_argument("--adapter"); ap.add_argument("--rank", type=int, default=32); ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
torch.set_num_threads(a.threads)


def tensors(path):
    out = {}
    for f in sorted(glob.glob(os.path.join(path, "*.safetensors"))):
        h = safe_open(f, "pt")
        out.update({k: h for k in h.keys()})
    return out


def of(pattern, module, default):
    return next((v for k, v in pattern.items() if re.match(rf"(.*\.)?({k})$", module)), default)


out = a.adapter or os.path.join(a.work, "adapter")
wall = 0
if not a.adapter:
    shutil.rmtree(out, ignore_errors=True)
    program = os.path.join(os.path.dirname(sys.executable), "mergekit-extract-lora")
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads), MKL_NUM_THREADS=str(a.threads), HF_HUB_OFFLINE="1")
    t = time.perf_counter()
    subprocess.run([program, "--model", a.tuned, "--base-model", a.base, "--out-path", out, "--max-rank", str(a.rank), "--quiet"],
                   check=True, env=env, stdout=sys.stderr)
    wall = time.perf_counter() - t

config = json.load(open(os.path.join(out, "adapter_config.json")))
adapter, base, tuned = tensors(out), tensors(a.base), tensors(a.tuned)
residuals = {}
for key in sorted(k for k in adapter if k.endswith(".lora_A.weight")):
    module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    name = module + ".weight"
    A = adapter[key].get_tensor(key).float()
    B = adapter[key].get_tensor(key.replace("lora_A", "lora_B")).float()
    r = A.shape[0]
    alpha = of(config.get("alpha_pattern", {}), module, config["lora_alpha"])
    rank = of(config.get("rank_pattern", {}), module, config["r"])
    w0, w1 = base[name].get_tensor(name), tuned[name].get_tensor(name)
    what = w0.float() + (alpha / rank) * (B @ A)
    norm = (w1.float() - w0.float()).double().norm().item()
    if norm == 0:
        continue
    residuals[name] = {"rank": r, "unrounded": (what - w1.float()).double().norm().item() / norm,
                       "fused": (what.to(w0.dtype).float() - w1.float()).double().norm().item() / norm}
size = sum(os.path.getsize(f) for f in glob.glob(os.path.join(out, "*.safetensors")))
if not a.adapter:
    shutil.rmtree(out)
print(json.dumps({"version": version("mergekit"), "wallS": wall, "bytes": size, "encodeS": wall, "restoreS": 0, "tensors": residuals}))
