"""The pruning methods' equations in torch, f32, on the weights and Gram matrices of a file.

prune.py LAYERS OUT --layer NAME [--methods magnitude,wanda,..] [--ratio 0.5] [--repeat 3] [--threads 2] [--double]
LAYERS: NAME.weight (m, n) and NAME.inputGram (n, n), f32. OUT gets METHOD.mask (1 keeps) and METHOD.weight. Prints one JSON line: seconds
of each method, best of the repeats, copies of the inputs not counted.
With --double all is in f64: it shows how much of a mask is decided by rounding alone.
Selection is by topk or kthvalue, which take a fifth of the time of the sorts in the papers' own code.
"""
import argparse, json, time
import torch
from safetensors import safe_open
from safetensors.torch import save_file

ap = argparse.ArgumentParser()
ap.add_argument("layers"); ap.add_argument("out")
ap.add_argument("--layer", required=True); ap.add_argument("--methods", default="magnitude,wanda,sparsegpt,admm,admm-wanda")
ap.add_argument("--ratio", type=float, default=0.5); ap.add_argument("--repeat", type=int, default=3)
ap.add_argument("--threads", type=int, default=2); ap.add_argument("--double", action="store_true")
a = ap.parse_args()
torch.set_num_threads(a.threads)


def keep_layer(scores, ratio):
    """Mask of all but the floor(ratio m n) smallest."""
    k = int(ratio * scores.numel())
    return scores > torch.kthvalue(scores.flatten(), k).values if k > 0 else torch.ones_like(scores, dtype=torch.bool)


def keep_rows(scores, ratio):
    """Mask of all but the floor(ratio n) smallest of each row."""
    k = int(ratio * scores.shape[1])
    gone = torch.topk(scores, k, dim=1, largest=False, sorted=False).indices
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, gone, False)


def magnitude(w, g):
    mask = keep_layer(w.abs(), a.ratio)
    return w.masked_fill_(~mask, 0), mask


def wanda(w, g):
    """Sun et al., 2023: |W_ij| ||x_j||, within each row."""
    mask = keep_rows(w.abs() * g.diagonal().sqrt(), a.ratio)
    return w.masked_fill_(~mask, 0), mask


def sparsegpt(w, h, damping=0.01, block=128):
    """Frantar, Alistarh, 2023, algorithm 1: blocks of 128, the mask of a block from w^2 / U_ii^2."""
    m, n = w.shape
    dead = h.diagonal() == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h.diagonal().add_(damping * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    keep = torch.ones(m, n, dtype=torch.bool)
    for i1 in range(0, n, block):
        i2 = min(n, i1 + block)
        w1, u1 = w[:, i1:i2].clone(), u[i1:i2, i1:i2]
        err = torch.zeros_like(w1)
        k1 = keep_layer(w1 ** 2 / u1.diagonal() ** 2, a.ratio)
        for i in range(i2 - i1):
            e = (w1[:, i] * ~k1[:, i]) / u1[i, i]
            w1[:, i:] -= torch.outer(e, u1[i, i:])
            err[:, i] = e
        w[:, i1:i2] = w1 * k1
        keep[:, i1:i2] = k1
        w[:, i2:] -= err @ u[i1:i2, i2:]
    return w, keep


def admm(w, g, mask=None, iterations=20, mask_iterations=15, damping=0.1, rho=1.0):
    """Boza, 2024, algorithms 1 and 2, on rows: V = W D; the mask given, or tightened by the cubic schedule."""
    d = g.diagonal().sqrt() + 1e-8
    g = g / d / d[:, None]
    g.diagonal().add_(damping * g.diagonal().mean())
    v = w * d
    t = v @ g
    g.diagonal().add_(rho)
    p = torch.cholesky_inverse(torch.linalg.cholesky(g))
    if mask == "wanda":
        mask, fixed = keep_rows(v.abs(), a.ratio), True
    else:
        fixed = False
    u = torch.zeros_like(v)
    for i in range(1, iterations + 1):
        s = v + u
        if not fixed and i <= mask_iterations:
            mask = keep_layer(s.abs(), a.ratio - a.ratio * (1 - i / mask_iterations) ** 3)
        z = s * mask
        u += v - z
        v = (t + rho * (z - u)) @ p
    return (v + u) * mask / d, mask


METHODS = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt, "admm": admm, "admm-wanda": lambda w, g: admm(w, g, "wanda")}

with safe_open(a.layers, "pt") as f:
    w, g = f.get_tensor(a.layer + ".weight"), f.get_tensor(a.layer + ".inputGram")
if a.double:
    w, g = w.double(), g.double()
seconds, out = {}, {}
with torch.no_grad():
    for name in a.methods.split(","):
        best = float("inf")
        for _ in range(a.repeat):
            wc, gc = w.clone(), g.clone()
            s = time.perf_counter()
            pruned, mask = METHODS[name](wc, gc)
            best = min(best, time.perf_counter() - s)
        seconds[name] = best
        out[name + ".weight"], out[name + ".mask"] = pruned.contiguous(), mask.to(torch.uint8).contiguous()
save_file(out, a.out)
print(json.dumps({"seconds": seconds, "torch": torch.__version__}))
