"""Gram matrices of a decoder's linear layers by torch: how close ours are, and how long torch takes for the same.

calibrate.py MODEL IDS SEQLEN STATS [--layers 0,15,29] [--threads 2]: IDS int32, sequences of SEQLEN; STATS a file of `pith calibrate`.

Torch runs the model in f32. For the blocks of --layers X^T X is added up in f64 and compared with STATS: the largest ||ours - torch|| / ||torch|| over
their modules, and the largest |ours_ij - torch_ij| / sqrt(torch_ii torch_jj). For the time X^T X is taken in f32 for every input of every block, once where
modules share it, as GPTQ's scripts do; batches of 4 sequences. One JSON line.
"""
import argparse, json, time
import numpy as np, torch, transformers
from safetensors import safe_open

ap = argparse.ArgumentParser()
ap.add_argument("model"), ap.add_argument("ids"), ap.add_argument("seqlen", type=int), ap.add_argument("stats")
ap.add_argument("--layers", default="0"), ap.add_argument("--threads", type=int, default=2), ap.add_argument("--no-time", action="store_true")
a = ap.parse_args()
torch.set_num_threads(a.threads)
transformers.logging.set_verbosity_error(), transformers.logging.disable_progress_bar()
model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
ids = torch.from_numpy(np.fromfile(a.ids, np.int32).astype(np.int64).reshape(-1, a.seqlen))
stats = safe_open(a.stats, "pt")
alias = json.loads(stats.metadata()["alias"])
chosen = [f".layers.{i}." for i in a.layers.split(",")]
linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n}


@torch.no_grad()
def run(see, names):
    hooks = [linears[n].register_forward_pre_hook(lambda _, args, n=n: see(n, args[0].reshape(-1, args[0].shape[-1]))) for n in names]
    for batch in ids.split(4):
        model.model(batch)
    for h in hooks:
        h.remove()


exact = {}


def add(n, x):
    x = x.double()
    exact[n] = exact.get(n, 0) + x.T @ x


run(add, [n for n in linears if any(c in n for c in chosen)])
frobenius, entry = 0.0, 0.0
for n, g in exact.items():
    ours = stats.get_tensor(f"{alias.get(n, n)}.inputGram").double()
    d = g.diagonal().sqrt()
    frobenius = max(frobenius, ((ours - g).norm() / g.norm()).item())
    entry = max(entry, ((ours - g).abs() / (d[:, None] * d[None])).max().item())
out = {"modules": len(exact), "frobenius": frobenius, "entry": entry, "torch": torch.__version__}
if not a.no_time:
    sums = {}

    def single(n, x):
        if n in sums:
            sums[n].addmm_(x.T, x)
        else:
            sums[n] = x.T @ x

    t = time.perf_counter()
    run(lambda n, x: None, [])
    out["forwardS"] = time.perf_counter() - t
    t = time.perf_counter()
    run(single, [n for n in linears if n not in alias])
    out["gramS"] = time.perf_counter() - t
print(json.dumps(out))
