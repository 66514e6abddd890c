"""What transformers computes with a checkpoint in f32, and how long it takes: the peer of pith's forward pass.

    python logits.py MODEL --tokens 64 --out F.safetensors [--text FILE | --ids FILE] [--hidden]
    python logits.py MODEL --time
    python logits.py MODEL --ppl FILE --window 512 --max-tokens 65536

--out    input_ids and logits (decoders) or last_hidden_state and the normalised mean (encoders); --hidden adds hidden.0, the embeddings, and
         hidden.i after the i-th block (a decoder's last one after its final norm). Tokens: of the text, of a JSON list of numbers, or seeded random ones. Attention as the formulas say (eager).
--time   forward passes of 2,048 tokens, as one sequence and as four of 512 (or what the model's positions allow); the best of --repeat, after one run.
--ppl    windows of equal length without overlap from the text's first token on; mean over window - 1 predictions each.
Time and perplexity use torch's fast attention. One JSON line each.
"""
import argparse, json, math, time
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("--tokens", type=int, default=64), ap.add_argument("--out"), ap.add_argument("--text"), ap.add_argument("--ids"), ap.add_argument("--hidden", action="store_true")
ap.add_argument("--time", action="store_true"), ap.add_argument("--repeat", type=int, default=3), ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--ppl"), ap.add_argument("--window", type=int, default=512), ap.add_argument("--max-tokens", type=int)
a = ap.parse_args()
torch.set_num_threads(a.threads)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

config = AutoConfig.from_pretrained(a.model)
decoder = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or [])
about = {"model": a.model, "torch": torch.__version__, "transformers": transformers.__version__, "threads": a.threads}


def load(attention):
    started = time.perf_counter()
    cls = AutoModelForCausalLM if decoder else AutoModel
    model, info = cls.from_pretrained(a.model, dtype=torch.float32, attn_implementation=attention, output_loading_info=True)
    # a decoder with random weights has figures too: they would mean nothing
    missing = [k for k in info["missing_keys"] if not k.startswith("pooler.")]
    assert not missing, f"not in the checkpoint: {missing}"
    return model.eval(), time.perf_counter() - started


def tokenized(path, limit=None):
    text = open(path, encoding="utf-8").read()
    ids = AutoTokenizer.from_pretrained(a.model)(text, truncation=False)["input_ids"]
    return torch.tensor(ids[:limit])


def some_tokens(n):
    if a.text:
        ids = tokenized(a.text, n)
    elif a.ids:
        ids = torch.tensor(json.load(open(a.ids)))[:n]
    else:
        ids = torch.randint(0, config.vocab_size, (n,), generator=torch.Generator().manual_seed(0))
    return ids


@torch.no_grad()
def write_outputs():
    model, load_s = load("eager")
    ids = some_tokens(a.tokens)
    started = time.perf_counter()
    o = model(input_ids=ids[None], output_hidden_states=a.hidden)
    forward_s = time.perf_counter() - started
    out = {"input_ids": ids.int()}
    if decoder:
        out["logits"] = o.logits[0]
    else:
        out["last_hidden_state"] = o.last_hidden_state[0]
        out["sentence_embedding"] = torch.nn.functional.normalize(o.last_hidden_state[0].mean(0), dim=-1)
    if a.hidden:
        out.update({f"hidden.{i}": h[0] for i, h in enumerate(o.hidden_states)})
    save_file({k: v.contiguous().clone() for k, v in out.items()}, a.out, metadata={"format": "pt"})
    print(json.dumps({**about, "tokens": len(ids), "out": a.out, "loadS": load_s, "forwardS": forward_s}), flush=True)


@torch.no_grad()
def time_forward():
    model, load_s = load("sdpa")
    longest = getattr(config, "max_position_embeddings", 2048)
    for length in sorted({min(2048, longest), min(512, longest)}, reverse=True):
        ids = some_tokens(2048)
        ids = ids[: len(ids) // length * length].view(-1, length)
        model(input_ids=ids)
        times = []
        for _ in range(a.repeat):
            started = time.perf_counter()
            model(input_ids=ids)
            times.append(time.perf_counter() - started)
        print(json.dumps({**about, "shape": list(ids.shape), "loadS": load_s, "forwardS": min(times), "allS": times, "tokensPerSecond": ids.numel() / min(times)}), flush=True)


@torch.no_grad()
def perplexity():
    model, load_s = load("sdpa")
    ids = tokenized(a.ppl, a.max_tokens)
    windows = len(ids) // a.window
    assert windows > 0, f"{len(ids)} tokens are no window of {a.window}"
    started, nll = time.perf_counter(), 0.0
    for x in ids[: windows * a.window].view(windows, a.window):
        logits = model(input_ids=x[None]).logits[0, :-1]
        nll += torch.nn.functional.cross_entropy(logits, x[1:], reduction="sum").item()
    seconds, predictions = time.perf_counter() - started, windows * (a.window - 1)
    print(json.dumps({**about, "ppl": math.exp(nll / predictions), "nll": nll / predictions, "tokens": windows * a.window, "predictions": predictions, "window": a.window,
                      "loadS": load_s, "seconds": seconds, "tokensPerSecond": windows * a.window / seconds}), flush=True)


if a.out:
    write_outputs()
if a.time:
    time_forward()
if a.ppl:
    perplexity()
