"""Writes test/golden/eval.json: figures of the shipped models on test/fixtures/eval, from transformers and lm-evaluation-harness.

    pip install lm-eval==0.4.13 transformers==5.23.0
    python scripts/golden/eval.py

gptq and llama.cpp: log probabilities of transformers in f32 over windows as GPTQ's opt_eval and llama-perplexity cut them; the latter's figures
by its formulas (tools/perplexity/perplexity.cpp: mean_and_uncertainty, covariance, percentile) in f64. lm-eval: HFLM's own loglikelihood_rolling and
loglikelihood, its own metrics. Tolerance: relative, of every figure; standard errors too.
"""
import json, math, os
import importlib.metadata
import numpy as np
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte, mean, mean_stderr, weighted_perplexity
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

transformers.logging.set_verbosity_error(), transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
SEQLEN = 64
tokenizer = AutoTokenizer.from_pretrained(os.path.join(root, "examples/tiny/base"))
models = {name: AutoModelForCausalLM.from_pretrained(os.path.join(root, "examples/tiny", name), dtype=torch.float32).eval() for name in ["base", "tuned"]}
lines = lambda name: [json.loads(line) for line in open(os.path.join(root, "test/fixtures/eval", name), encoding="utf-8")]
texts = [f"Question: {r['question']}\nAnswer: {r['answer']}\n" for r in lines("rows.jsonl")]


@torch.no_grad()
def log_probabilities(name, window):
    return torch.log_softmax(models[name](input_ids=window[None]).logits[0].double(), -1)


def mean_and_uncertainty(values):
    n, f = len(values), float(np.mean(values))
    df = float(np.sum(values**2) / n - f * f)
    return f, math.sqrt(df / (n - 1)) if df > 0 and n > 10 else 0.0


def percentile(values, fraction):
    p = fraction * (len(values) - 1)
    i = int(p)
    return float((1 - (p - i)) * values[i] + (p - i) * values[min(i + 1, len(values) - 1)])


def perplexity(nll):
    f, df = mean_and_uncertainty(nll)
    return {"ppl": math.exp(f), "stderr": math.exp(f) * df, "tokens": len(nll)}


def compared(windows, first):
    """Of base and tuned over the tokens from `first` on: perplexities, and how far the tuned one's distributions are from the base's."""
    nll, kld, same = {"base": [], "tuned": []}, [], []
    for w in windows:
        p, q = log_probabilities("base", w)[first - 1 : -1], log_probabilities("tuned", w)[first - 1 : -1]
        for name, x in (("base", p), ("tuned", q)):
            nll[name].append(-x.gather(1, w[first:, None])[:, 0].numpy())
        kld.append((p.exp() * (p - q)).sum(-1).numpy())
        same.append((p.argmax(-1) == q.argmax(-1)).numpy())
    nll = {k: np.concatenate(v) for k, v in nll.items()}
    kld, same = np.concatenate(kld), np.concatenate(same)
    (f, df), (g, dg) = mean_and_uncertainty(nll["tuned"]), mean_and_uncertainty(nll["base"])
    n = len(kld)
    cov = (np.sum(nll["tuned"] * nll["base"]) / n - f * g) / (n - 1)
    delta = np.exp(-nll["tuned"]) - np.exp(-nll["base"])
    mse, mse_unc = mean_and_uncertainty(delta**2)
    s = np.sort(kld)
    agreement = float(same.mean())
    return {
        "base": perplexity(nll["base"]),
        "tuned": perplexity(nll["tuned"]),
        "kld": {
            "mean": mean_and_uncertainty(kld)[0], "stderr": mean_and_uncertainty(kld)[1], "min": float(s[0]), "max": float(s[-1]),
            "median": percentile(s, 0.5), "p90": percentile(s, 0.9), "p95": percentile(s, 0.95), "p99": percentile(s, 0.99), "p999": percentile(s, 0.999),
            "topTokenAgreement": agreement, "topTokenStderr": math.sqrt(agreement * (1 - agreement) / (n - 1)),
            "meanDeltaP": float(delta.mean()), "rmsDeltaP": math.sqrt(mse), "rmsDeltaPStderr": 0.5 / math.sqrt(mse) * mse_unc,
            "pplReference": math.exp(g), "pplReferenceStderr": math.exp(g) * dg,
            "pplRatio": math.exp(f - g), "pplRatioStderr": math.exp(f - g) * math.sqrt(df * df + dg * dg - 2 * cov), "correlation": float(cov / (df * dg)),
        },
    }


ids = torch.tensor(tokenizer("".join(texts))["input_ids"])
windows = list(ids[: len(ids) // SEQLEN * SEQLEN].view(-1, SEQLEN))
# one line end at the end of a file is dropped there
cpp = torch.tensor(tokenizer("".join(texts)[:-1])["input_ids"])
cpp_windows = list(cpp[: len(cpp) // SEQLEN * SEQLEN].view(-1, SEQLEN).clone())
assert tokenizer("x")["input_ids"][0] != tokenizer.bos_token_id, "the tokenizer adds no BOS"


def harness(name):
    lm = HFLM(pretrained=models[name], tokenizer=tokenizer, backend="causal", max_length=SEQLEN, batch_size=1, device="cpu")
    ask = lambda kind, args: [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(args)]
    rolling = lm.loglikelihood_rolling(ask("loglikelihood_rolling", [(t,) for t in texts]), disable_tqdm=True)
    words = [len(__import__("re").split(r"\s+", t)) for t in texts]
    size = [len(t.encode("utf-8")) for t in texts]
    lm_long = HFLM(pretrained=models[name], tokenizer=tokenizer, backend="causal", batch_size=1, device="cpu")
    questions = [choices(r) for r in lines("choices.jsonl")]
    pairs = [(q, " " + c) for q, cs, _ in questions for c in cs]
    lls = iter(ll for ll, _ in lm_long.loglikelihood(ask("loglikelihood", pairs), disable_tqdm=True))
    scored = [(np.array([next(lls) for _ in cs]), cs, gold) for _, cs, gold in questions]
    right = lambda length: [float(np.argmax(ll / length(cs)) == gold) for ll, cs, gold in scored]
    rows = {"acc": right(lambda cs: 1.0), "accNorm": right(lambda cs: np.array([float(len(c)) for c in cs])), "accBytes": right(lambda cs: np.array([float(len(c.encode("utf-8"))) for c in cs]))}
    return {
        "units": {"wordPpl": weighted_perplexity(list(zip(rolling, words))), "bytePpl": weighted_perplexity(list(zip(rolling, size))), "bitsPerByte": bits_per_byte(list(zip(rolling, size))), "words": sum(words), "bytes": sum(size)},
        "logLikelihoods": [[float(v) for v in ll] for ll, _, _ in scored],
        "choices": {k: v for name, values in rows.items() for k, v in ((name, mean(values)), (f"{name}Stderr", mean_stderr(values)))},
    }


def choices(r):
    """As lm-eval's ARC task writes them (tasks/arc/arc_easy.yaml)."""
    query = r["query"] if "query" in r else f"Question: {r['question']}\nAnswer:"
    if isinstance(r["choices"], dict):
        return query, r["choices"]["text"], r["choices"]["label"].index(r["answerKey"])
    return query, r["choices"], int(next(r[k] for k in ("gold", "answer", "label") if k in r))


out = {
    "madeBy": {"script": "scripts/golden/eval.py", "tolerance": 2e-5, **{p: importlib.metadata.version(p) for p in ("torch", "transformers", "lm_eval")}},
    "seqlen": SEQLEN,
    "gptq": compared(windows, 1),
    "llama.cpp": compared(cpp_windows, SEQLEN // 2 + 1),
    "lm-eval": {name: harness(name) for name in models},
}
with open(os.path.join(root, "test/golden/eval.json"), "w", encoding="utf-8") as f:
    f.write(json.dumps(out, indent=1) + "\n")
