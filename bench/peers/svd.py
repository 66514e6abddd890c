"""torch.svd_lowrank and torch.linalg.svd on one square f32 matrix, and the error of all three results by one formula.

svd.py MATRIX N RANK U S VT: U (n, r) f32, S (r) f64, VT (r, n) f32 are ours; prints one JSON line. torch.linalg.svd runs once, unless --no-exact.
"""
import argparse, json, time
import numpy as np, torch

ap = argparse.ArgumentParser()
ap.add_argument("matrix"); ap.add_argument("n", type=int); ap.add_argument("rank", type=int)
ap.add_argument("u"); ap.add_argument("s"); ap.add_argument("vt")
ap.add_argument("--threads", type=int, default=2); ap.add_argument("--repeat", type=int, default=7)
ap.add_argument("--q", type=int, default=74); ap.add_argument("--niter", type=int, default=2)
ap.add_argument("--no-exact", action="store_true")
a = ap.parse_args()
torch.set_num_threads(a.threads)
n, r = a.n, a.rank
w = torch.from_numpy(np.fromfile(a.matrix, np.float32).reshape(n, n))
w64 = w.double()
norm = float(w64.norm())


def error(u, s, vt):
    """||W - U S V^T||_F / ||W||_F in f64."""
    return float((w64 - (u.double() * s.double()) @ vt.double()).norm()) / norm


ours = [torch.from_numpy(np.fromfile(p, t).reshape(shape)) for p, t, shape in
        ((a.u, np.float32, (n, r)), (a.s, np.float64, (r,)), (a.vt, np.float32, (r, n)))]
times, errors = [], []
for seed in range(a.repeat):
    torch.manual_seed(seed)
    t = time.perf_counter(); u, s, v = torch.svd_lowrank(w, q=a.q, niter=a.niter); times.append(time.perf_counter() - t)
    errors.append(error(u[:, :r], s[:r], v[:, :r].T))
out = {"oursError": error(*ours), "lowrankS": min(times[1:] or times), "lowrankMedianS": sorted(times)[len(times) // 2],
       "lowrankError": min(errors), "lowrankWorst": max(errors), "torch": torch.__version__}
x = torch.randn(2048, 2048)
gemm = []
for _ in range(5):
    t = time.perf_counter(); x @ x; gemm.append(time.perf_counter() - t)
out["gflops"] = 2 * 2048 ** 3 / min(gemm) / 1e9
if not a.no_exact:
    t = time.perf_counter(); u, s, vt = torch.linalg.svd(w, full_matrices=False); out["exactS"] = time.perf_counter() - t
    out["exactError"] = error(u[:, :r], s[:r], vt[:r])
print(json.dumps(out))
