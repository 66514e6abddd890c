"""GPTQ and round-to-nearest of one layer, restated in torch as the release has them (IST-DASLab/gptq, gptq.py; blocks of 128, f32), timed.

quant.py W GRAM M N OURS: raw f32 files; OURS is what pith made of the same layer. Asymmetric, groups of 128 fitted on the way, damping 0.01, scales in
f32. Prints one JSON line: least seconds, the output errors of both results by one formula in f64, and the share of values that are the same.
"""
import argparse, json, time
import numpy as np, torch

ap = argparse.ArgumentParser()
ap.add_argument("w"), ap.add_argument("gram"), ap.add_argument("m", type=int), ap.add_argument("n", type=int), ap.add_argument("ours")
ap.add_argument("--bits", type=int, default=4), ap.add_argument("--group", type=int, default=128)
ap.add_argument("--threads", type=int, default=2), ap.add_argument("--repeat", type=int, default=5)
a = ap.parse_args()
torch.set_num_threads(a.threads)
load = lambda path, shape: torch.from_numpy(np.fromfile(path, np.float32).reshape(shape))
w, h, ours = load(a.w, (a.m, a.n)), load(a.gram, (a.n, a.n)), load(a.ours, (a.m, a.n))
top = 2**a.bits - 1


def fit(x):
    """(rows, values) -> scale and zero point (rows, 1)."""
    lo, hi = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    s = (hi - lo) / top
    s = torch.where(s == 0, torch.ones_like(s), s)
    return s, torch.round(-lo / s)


def quantize(x, s, z):
    return s * (torch.clamp(torch.round(x / s) + z, 0, top) - z)


@torch.no_grad()
def gptq():
    W, H = w.clone(), h.clone()
    Q = torch.zeros_like(W)
    H.diagonal().add_(0.01 * H.diagonal().mean())
    H = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    for i1 in range(0, a.n, 128):
        i2 = min(i1 + 128, a.n)
        W1, U = W[:, i1:i2].clone(), H[i1:i2, i1:i2]
        Q1, E1 = torch.zeros_like(W1), torch.zeros_like(W1)
        for i in range(i2 - i1):
            if (i1 + i) % a.group == 0:
                s, z = fit(W[:, i1 + i : i1 + i + a.group])
            x = W1[:, i : i + 1]
            q = quantize(x, s, z)
            Q1[:, i : i + 1] = q
            e = (x - q) / U[i, i]
            W1[:, i:] -= e.matmul(U[i : i + 1, i:])
            E1[:, i : i + 1] = e
        Q[:, i1:i2] = Q1
        W[:, i2:] -= E1.matmul(H[i1:i2, i2:])
    return Q


@torch.no_grad()
def rtn():
    x = w.reshape(-1, a.group)
    return quantize(x, *fit(x)).reshape(a.m, a.n)


def least(f):
    times = []
    for _ in range(a.repeat):
        t = time.perf_counter()
        out = f()
        times.append(time.perf_counter() - t)
    return out, min(times)


def error(q):
    d, g = (q - w).double(), h.double()
    return float((((d @ g) * d).sum() / ((w.double() @ g) * w.double()).sum()).sqrt())


theirs, seconds = least(gptq)
_, rtn_seconds = least(rtn)
same = float(((theirs - ours).abs() < 1e-4 * w.abs().max()).double().mean())
print(json.dumps({"gptqS": seconds, "rtnS": rtn_seconds, "theirsError": error(theirs), "oursError": error(ours), "same": same, "torch": torch.__version__}))
