"""Training steps of torch and peft from a given adapter over given batches: losses, time of a step, peak memory."""
import argparse, json, resource, statistics, time
import numpy as np, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

ap = argparse.ArgumentParser()
for name in ("model", "adapter", "ids"): ap.add_argument(name)
ap.add_argument("batch", type=int); ap.add_argument("seqlen", type=int); ap.add_argument("rate", type=float)
ap.add_argument("--timed", type=int, default=4); ap.add_argument("--threads", type=int, default=2); ap.add_argument("--method", default="lora")
a = ap.parse_args()
torch.set_num_threads(a.threads)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
if a.method == "full":
    for n, p in model.named_parameters(): p.requires_grad = ".layers." in n and p.dim() == 2
else:
    model = PeftModel.from_pretrained(model, a.adapter, is_trainable=True)
model.train()
params = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(params, lr=a.rate, weight_decay=0.0)
ids = torch.from_numpy(np.fromfile(a.ids, dtype=np.int32).astype(np.int64)).view(-1, a.batch, a.seqlen)
losses, times = [], []
for x in ids:
    t = time.perf_counter()
    loss = model(input_ids=x, labels=x).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step(); optimizer.zero_grad()
    times.append(time.perf_counter() - t); losses.append(loss.item())
print(json.dumps({"losses": " ".join(map(repr, losses)), "ms": 1000 * statistics.median(times[-a.timed:]), "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  "trainable": sum(p.numel() for p in params)}))
