"""KL divergence of checkpoints to a reference, mean over tokens, in nats.

    python kld.py REFERENCE GSM8K.jsonl --from 1500 [--inner] CHECKPOINT [CHECKPOINT ...]
    python kld.py REFERENCE GSM8K.jsonl --from 1500 -          paths on stdin, one a line, each answered at once

Text: rows from the given one on, `Question: q\nAnswer: a\n` joined, 12 windows of 256 tokens. --inner leaves out the last place of a window, whose next
token is another's: what `pith eval --reference` counts. One JSON line per checkpoint.
"""
import argparse, json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("reference"), ap.add_argument("data"), ap.add_argument("checkpoints", nargs="*")
ap.add_argument("--from", dest="first", type=int, default=1500)
ap.add_argument("--windows", type=int, default=12), ap.add_argument("--length", type=int, default=256), ap.add_argument("--inner", action="store_true")
ap.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
a = ap.parse_intermixed_args()
if a.threads > 0:
    torch.set_num_threads(a.threads)

rows = [json.loads(line) for line in open(a.data)][a.first :]
text = "".join(f"Question: {r['question']}\nAnswer: {r['answer']}\n" for r in rows)
ids = AutoTokenizer.from_pretrained(a.reference)(text)["input_ids"][: a.windows * a.length]
assert len(ids) == a.windows * a.length, f"only {len(ids)} tokens from row {a.first} on"
ids = torch.tensor(ids).view(a.windows, a.length)


@torch.no_grad()
def log_probabilities(path):
    """(length, vocabulary) f64 of each window, one at a time."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for x in ids:
        yield torch.log_softmax(model(x[None]).logits[0][: -1 if a.inner else None].double(), -1)


reference = list(log_probabilities(a.reference))
paths = (line.rstrip("\n") for line in sys.stdin) if a.checkpoints == ["-"] else a.checkpoints
for path in paths:
    kl, top = [], []
    for p, q in zip(reference, log_probabilities(path)):
        kl.append((p.exp() * (p - q)).sum(-1))
        top.append((p.argmax(-1) == q.argmax(-1)).double())
    kl, top = torch.cat(kl), torch.cat(top)
    print(json.dumps({"checkpoint": path, "kld": kl.mean().item(), "topTokenAgreement": top.mean().item(), "tokens": kl.numel()}), flush=True)
