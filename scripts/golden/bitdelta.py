"""A diff of BitDelta's release, restated from github.com/FasterDecoding/BitDelta (bitdelta/diff.py and the packing of
binary_gemm_kernel.py, commit ecbee1e) with torch, and the model that its load_diff makes of base and diff.

    python scripts/golden/bitdelta.py        writes test/golden/bitdelta: base, diff and merged of each storage type
"""
import os
import torch
from common import MADE_BY, ROOT, generator, write_json, write_tensors

OUT = os.path.join(ROOT, "bitdelta")
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
CODED = {"model.layers.0.self_attn.q_proj": (40, 64), "model.layers.0.mlp.down_proj": (33, 96)}
# rows of the fine-tune; the base has two less of the vocabulary's
WHOLE = {"model.embed_tokens": (22, 64), "model.layers.0.input_layernorm": (64,), "lm_head": (22, 64)}
# one step of distillation moves the scale away from the mean
TRAINED = 1.0625


def pack(signs):
    """(n, m) of 0 and 1 -> (n / 32, m): word (i, j) holds rows 32 i to 32 i + 31 of column j, the first in its lowest bit."""
    n, m = signs.shape
    bits = signs.to(torch.int64).view(n // 32, 32, m) << torch.arange(32)[None, :, None]
    return bits.sum(1).to(torch.int32)


def unpack(words):
    bits = (words.to(torch.int64)[:, None, :] >> torch.arange(32)[None, :, None]) & 1
    return bits.reshape(-1, words.shape[1])


def models(name, dtype):
    g = generator(f"bitdelta {name}")
    base, tuned = {}, {}
    for path, shape in {**CODED, **WHOLE}.items():
        w = torch.randn(*shape, generator=g) * 0.05
        d = torch.randn(*shape, generator=g) * 0.002
        d.view(-1)[::7] = 0   # no difference counts as plus
        base[path] = (w[:-2] if shape[0] == 22 else w).to(dtype)
        tuned[path] = (w.to(dtype).float() + d).to(dtype)
    return base, tuned


def diff_of(base, tuned):
    out = {}
    for path in CODED:
        diff = tuned[path] - base[path]
        mask = torch.ones_like(diff)
        mask[diff < 0] = 0
        out[path + ".mask"] = pack(mask.bool().T)
        out[path + ".coeff"] = diff.float().abs().mean() * TRAINED
    return {**out, **{path + ".weight": tuned[path] for path in WHOLE}}


def load(base, diff):
    out = {}
    for path, w in base.items():
        if path + ".mask" in diff:
            delta = (unpack(diff[path + ".mask"]) * 2 - 1) * diff[path + ".coeff"]
            w = w.clone().add_(delta.T.to(w.dtype))
        elif path + ".weight" in diff:
            w = diff[path + ".weight"].to(w.dtype)
        out[path + ".weight"] = w
    return out


os.makedirs(OUT, exist_ok=True)
for name, dtype in TYPES.items():
    base, tuned = models(name, dtype)
    diff = diff_of(base, tuned)
    write_tensors(os.path.join(OUT, f"{name}.base.safetensors"), {k + ".weight": v for k, v in base.items()})
    write_tensors(os.path.join(OUT, f"{name}.diff.safetensors"), diff)
    write_tensors(os.path.join(OUT, f"{name}.merged.safetensors"), load(base, diff))
note = {"script": "scripts/golden/bitdelta.py", "torch": MADE_BY["torch"], "tolerance": 0, "cases": {n: str(d) for n, d in TYPES.items()}}
write_json(os.path.join(OUT, "cases.json"), note)
