"""Embeddings of texts by transformers in f32, pooled as 1_Pooling/config.json and modules.json say: the peer of pith's text encoders.

    python embeddings.py MODEL TEXTS.json --out F.safetensors [--batch 32] [--threads 2]

TEXTS.json: a list of strings. Writes `embeddings` (texts, channels) and prints one JSON line. The steps are sentence-transformers' (tokenize with
max_seq_length, mean, cls or max over the tokens that are not masked, length 1 where Normalize is listed), without that package.
"""
import argparse, json, os, time
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("model"), ap.add_argument("texts"), ap.add_argument("--out", required=True)
ap.add_argument("--batch", type=int, default=32), ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
torch.set_num_threads(a.threads)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def read(name):
    path = os.path.join(a.model, name)
    return json.load(open(path)) if os.path.exists(path) else None


modules = read("modules.json") or []
pooling = read("1_Pooling/config.json") or {"pooling_mode_mean_tokens": True}
normalize = any(m["type"].endswith("Normalize") for m in modules)
tokenizer = AutoTokenizer.from_pretrained(a.model)
limit = (read("sentence_bert_config.json") or {}).get("max_seq_length") or tokenizer.model_max_length
model = AutoModel.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa").eval()
texts = [t.strip() for t in json.load(open(a.texts))]
# like lengths together: less padding
order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
out, tokens, started, cpu = [None] * len(texts), 0, time.perf_counter(), time.process_time()
with torch.no_grad():
    for k in range(0, len(order), a.batch):
        at = order[k : k + a.batch]
        x = tokenizer([texts[i] for i in at], padding=True, truncation=True, max_length=limit, return_tensors="pt")
        h = model(**x).last_hidden_state
        mask = x["attention_mask"][..., None].float()
        parts = []
        if pooling.get("pooling_mode_cls_token"):
            parts.append(h[:, 0])
        if pooling.get("pooling_mode_max_tokens"):
            parts.append(h.masked_fill(mask == 0, -1e9).max(1).values)
        if pooling.get("pooling_mode_mean_tokens", True):
            parts.append((h * mask).sum(1) / mask.sum(1))
        y = torch.cat(parts, 1)
        y = torch.nn.functional.normalize(y, dim=1) if normalize else y
        tokens += int(mask.sum())
        for i, v in zip(at, y):
            out[i] = v
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
save_file({"embeddings": torch.stack(out).contiguous()}, a.out, metadata={"format": "pt"})
print(json.dumps({"model": a.model, "torch": torch.__version__, "transformers": transformers.__version__, "texts": len(texts), "tokens": tokens, "seconds": seconds, "cpuSeconds": cpu}))
