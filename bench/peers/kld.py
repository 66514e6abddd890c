"""KL divergence of checkpoints to a reference, mean over tokens, in nats.

    python kld.py REFERENCE GSM8K.jsonl --from 1500 CHECKPOINT [CHECKPOINT ...]

Text: rows from the given one on, `Question: q\nAnswer: a\n` joined, 12 windows of 256 tokens. One JSON line per checkpoint.
"""
import argparse, json
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("reference"), ap.add_argument("data"), ap.add_argument("checkpoints", nargs="*")
ap.add_argument("--from", dest="first", type=int, default=1500)
ap.add_argument("--windows", type=int, default=12), ap.add_argument("--length", type=int, default=256)
a = ap.parse_intermixed_args()

rows = [json.loads(line) for line in open(a.data)][a.first :]
text = "".join(f"Question: {r['question']}\nAnswer: {r['answer']}\n" for r in rows)
ids = AutoTokenizer.from_pretrained(a.reference)(text)["input_ids"][: a.windows * a.length]
assert len(ids) == a.windows * a.length, f"only {len(ids)} tokens from row {a.first} on"
ids = torch.tensor(ids).view(a.windows, a.length)


@torch.no_grad()
def log_probabilities(path):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return torch.log_softmax(torch.cat([model(x[None]).logits[0] for x in ids]).double(), -1)


reference = log_probabilities(a.reference)
for path in a.checkpoints:
    q = log_probabilities(path)
    kl = (reference.exp() * (reference - q)).sum(-1)
    top = (reference.argmax(-1) == q.argmax(-1)).double().mean()
    print(json.dumps({"checkpoint": path, "kld": kl.mean().item(), "topTokenAgreement": top.item(), "tokens": kl.numel()}), flush=True)
