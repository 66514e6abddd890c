"""What torch computes with single operations of the forward pass, and their gradients, into test/golden/ops.

    python scripts/golden/ops.py          # needs what models.py needs

One NAME.safetensors and NAME.json for each operation. Tensors are `<case>.<name>`; `d<name>` is the gradient of sum(output * dy) (of the loss itself
for cross-entropy) at that input. Rows are tokens; heads lie side by side in a row, (tokens, heads * size).
"""
import json, os
import torch
import transformers as t
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm, eager_attention_forward
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding, apply_rotary_pos_emb
from common import MADE_BY, ROOT, TOLERANCE, generator, normal, write_json, write_tensors
from variants import gemma3_old, old_spelling

OUT = os.path.join(ROOT, "ops")


def put(name, cases, tensors):
    noise = {}
    for k in [k for k in tensors if k.endswith("@64")]:
        noise[k[:-3]] = (tensors[k[:-3]].double() - tensors.pop(k)).abs().max().item()
    write_tensors(f"{OUT}/{name}.safetensors", tensors)
    write_json(f"{OUT}/{name}.json", {"script": "scripts/golden/ops.py", "made": MADE_BY, "tolerance": TOLERANCE, "noise": max(noise.values(), default=0.0), "cases": cases})
    print(f"{name:16} {os.path.getsize(f'{OUT}/{name}.safetensors') / 1e3:6.1f} kB  noise {max(noise.values(), default=0.0):.1e}  {len(cases)} cases")


def differentiate(case, f, dy=None, **inputs):
    """Runs f on f32 and f64 inputs; stores inputs, output, dy and gradients."""
    out = {}
    for dtype in (torch.float32, torch.float64):
        xs = {k: x.detach().clone().to(dtype).requires_grad_() for k, x in inputs.items()}
        y = f(**xs)
        if dy is None and y.dim():
            dy = normal(generator(case), *y.shape)
        (y if not y.dim() else (y * dy.to(dtype)).sum()).backward()
        end = "" if dtype == torch.float32 else "@64"
        out[f"{case}.y{end}"] = y.detach()
        out.update({f"{case}.d{k}{end}": x.grad for k, x in xs.items()})
    out.update({f"{case}.{k}": x for k, x in inputs.items()})
    if dy is not None:
        out[f"{case}.dy"] = dy
    return out


def norms():
    g = generator("norms")
    x, w, b = 3 * normal(g, 5, 24) + 1, 1 + 0.5 * normal(g, 24), 0.5 * normal(g, 24)
    # a row near zero: the epsilon decides
    x[4] *= 0.03
    cases, tensors = {}, {}

    def module(make, eps, x, **parameters):
        m = make(24, eps=eps).to(x.dtype)
        # functional: the gradient reaches the parameters given
        return torch.func.functional_call(m, parameters, (x,))

    for eps in (1e-6, 1e-2):
        for kind, make, own in (("rms", LlamaRMSNorm, {"weight": w}), ("rms_plus_one", Gemma2RMSNorm, {"weight": w - 1}), ("layer", torch.nn.LayerNorm, {"weight": w, "bias": b})):
            case = f"{kind}-{eps:g}"
            cases[case] = {"kind": kind, "eps": eps}
            tensors.update(differentiate(case, lambda x, make=make, eps=eps, **p: module(make, eps, x, **p), x=x, **own))
    put("norm", cases, tensors)


HEAD = 32
FEW = list(range(8)) + [15, 31, 63, 64, 100, 500, 2047, 4095]
SHORT = [0, 1, 2, 7, 15, 31]
LONG = SHORT + [63, 99]


KEPT = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "max_position_embeddings", "original_max_position_embeddings", "rope_parameters", "layer_types")


def rope():
    base = dict(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64)
    llama = lambda **p: t.LlamaConfig(**{**base, "max_position_embeddings": p.pop("maximum", 64)}, rope_parameters={"rope_theta": 10000.0, **p})
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=2048, maximum=8192)
    phi3 = lambda original=32, partial=1.0, **p: t.Phi3Config(**base, original_max_position_embeddings=original, rope_parameters={"rope_theta": 10000.0, "partial_rotary_factor": partial, **p})
    lists = lambda n: dict(rope_type="longrope", short_factor=[1 + 0.05 * i for i in range(n)], long_factor=[1 + 0.4 * i for i in range(n)])
    gemma = t.Gemma3TextConfig(**base, head_dim=HEAD, layer_types=["sliding_attention", "full_attention"],
                               rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})
    made = [
        ("default", llama(rope_type="default"), FEW),
        ("default-theta", llama(rope_type="default", rope_theta=500000.0), FEW),
        ("linear", llama(rope_type="linear", factor=2.5), FEW),
        ("dynamic-within", llama(rope_type="dynamic", factor=4.0), SHORT),
        ("dynamic-beyond", llama(rope_type="dynamic", factor=4.0), LONG),
        ("llama3", llama(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, maximum=131072), FEW),
        ("yarn", llama(**yarn), FEW),
        ("yarn-no-truncate", llama(**yarn, truncate=False), FEW),
        ("yarn-betas", llama(**yarn, beta_fast=16.0, beta_slow=2.0), FEW),
        ("yarn-mscale", llama(**yarn, mscale=0.707, mscale_all_dim=1.0), SHORT),
        ("yarn-attention-factor", llama(**yarn, attention_factor=1.25), SHORT),
        ("yarn-factor-null", llama(**{**yarn, "factor": None}), SHORT),
        ("yarn-one-channel", llama(**{**yarn, "original_max_position_embeddings": 4, "maximum": 16}), SHORT),
        ("longrope-short", phi3(**lists(16)), SHORT),
        ("longrope-long", phi3(**lists(16)), LONG),
        ("longrope-factor", phi3(**lists(16), factor=6.0), LONG),
        ("longrope-attention-factor", phi3(**lists(16), attention_factor=1.5), LONG),
        ("partial", phi3(rope_type="default", partial=0.5), SHORT),
        ("partial-longrope", phi3(**lists(12), partial=0.75), LONG),
        ("gemma3", gemma, FEW),
    ]
    cases, tensors = {}, {}
    for name, config, positions in made:
        kinds = ("full", "sliding") if name == "gemma3" else ("full",)
        for kind in kinds:
            case = name if len(kinds) == 1 else f"{name}-{kind}"
            cls = Gemma3RotaryEmbedding if len(kinds) == 2 else Phi3RotaryEmbedding if config.model_type == "phi3" else LlamaRotaryEmbedding
            extra = (f"{kind}_attention",) if len(kinds) == 2 else ()
            rotary = cls(config)
            cos, sin = rotary(torch.zeros(1), torch.tensor([positions]), *extra)
            half = cos.shape[-1] // 2
            buffer = f"{kind}_attention_inv_freq" if extra else "inv_freq"
            factor = getattr(rotary, f"{kind}_attention_attention_scaling") if extra else rotary.attention_scaling
            tensors.update({f"{case}.cos": cos[0, :, :half].clone(), f"{case}.sin": sin[0, :, :half].clone(), f"{case}.inverse": getattr(rotary, buffer).clone()})
            new = {"dtype": "float32", **{k: x for k, x in config.to_dict().items() if k in KEPT}}
            cases[case] = {"kind": kind, "positions": positions, "attentionFactor": float(factor), "config": new, "old": (gemma3_old if extra else old_spelling)(new)}
    g = generator("rope")
    cos, sin = tensors["partial.cos"], tensors["partial.sin"]
    wide = lambda c: torch.cat([c, c], -1)[None]
    n, heads = len(SHORT), 3
    turn = lambda x: apply_rotary_pos_emb(x.view(1, n, heads, HEAD).transpose(1, 2), x.view(1, n, heads, HEAD).transpose(1, 2), wide(cos).to(x.dtype), wide(sin).to(x.dtype))[0].transpose(1, 2).reshape(n, heads * HEAD)
    tensors.update(differentiate("partial", turn, x=normal(g, n, heads * HEAD)))
    put("rope", cases, tensors)


class Groups:
    """What eager_attention_forward asks of its module."""
    training = False

    def __init__(self, groups):
        self.num_key_value_groups = groups


def attention():
    cases, tensors = {}, {}
    made = {
        "gqa": dict(heads=4, kv=2),
        "mha-scale": dict(heads=2, kv=2, scale=0.7),
        "mqa-window": dict(heads=3, kv=1, window=5),
        "softcap": dict(heads=2, kv=1, softcap=2.0),
        "window-softcap": dict(heads=4, kv=2, window=4, softcap=1.5),
        "padding-left": dict(heads=2, kv=1, hide=[0, 1, 2]),
        "bidirectional": dict(heads=2, kv=2, causal=False, hide=[10, 11]),
        "cross": dict(heads=2, kv=2, causal=False, queries=5),
    }
    keys, size = 12, 8
    for case, c in made.items():
        g = generator(f"attention-{case}")
        heads, kv, queries, hide = c["heads"], c["kv"], c.get("queries", keys), c.get("hide", [])
        causal, window, scale, softcap = c.get("causal", True), c.get("window"), c.get("scale", size**-0.5), c.get("softcap")
        seen = torch.ones(queries, keys, dtype=torch.bool)
        i, j = torch.arange(queries)[:, None], torch.arange(keys)[None]
        if causal:
            seen &= j <= i
        if window is not None:
            seen &= j > i - window
        seen[:, hide] = False
        rows = seen.any(1)

        def run(q, k, v):
            split = lambda x, n: x.view(1, -1, n, size).transpose(1, 2)
            mask = torch.zeros(queries, keys, dtype=q.dtype).masked_fill(~seen, -1e9)[None, None]
            y, _ = eager_attention_forward(Groups(heads // kv), split(q, heads), split(k, kv), split(v, kv), mask, scaling=scale, softcap=softcap)
            # rows that see nothing mean nothing
            return y.reshape(queries, heads * size) * rows[:, None]

        tensors.update(differentiate(case, run, q=2 * normal(g, queries, heads * size), k=2 * normal(g, keys, kv * size), v=normal(g, keys, kv * size)))
        cases[case] = {"heads": heads, "kvHeads": kv, "size": size, "causal": causal, "window": window, "scale": scale, "softcap": softcap, "hiddenKeys": hide, "emptyRows": (~rows).nonzero()[:, 0].tolist()}
    put("attention", cases, tensors)


def activations():
    g = generator("activations")
    x = torch.cat([torch.linspace(-8, 8, 65), torch.tensor([-40.0, -12.0, 1e-4, -1e-4, 12.0, 40.0]), 2 * normal(g, 25)])
    names = ["silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2", "tanh"]
    tensors = {}
    for name in names:
        tensors.update(differentiate(name, lambda x, name=name: ACT2FN[name](x), x=x))
    put("activation", {n: {"activation": n} for n in names}, tensors)
    gated, cases = {}, {}
    for name in ("silu", "gelu", "gelu_pytorch_tanh"):
        case = f"gated-{name}"
        cases[case] = {"activation": name}
        gated.update(differentiate(case, lambda gate, up, name=name: ACT2FN[name](gate) * up, gate=2 * normal(g, 6, 20), up=normal(g, 6, 20)))
    put("gated", cases, gated)
    z = torch.linspace(-6, 6, 241, dtype=torch.float64)
    put("erf", {"erf": {"absolute": 1e-14}}, {"erf.x": z, "erf.y": torch.erf(z)})


def cross_entropy():
    g = generator("cross-entropy")
    cases, tensors = {}, {}
    for case, c in {"plain": {}, "ignored": {"ignored": [0, 3, 8]}, "softcap": {"softcap": 4.0}, "large": {"factor": 40.0}}.items():
        targets = torch.randint(0, 37, (9,), generator=g)
        for i in c.get("ignored", []):
            targets[i] = -100
        cap = c.get("softcap")
        f = lambda logits: torch.nn.functional.cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), targets)
        tensors.update(differentiate(case, f, logits=c.get("factor", 3.0) * normal(g, 9, 37)))
        cases[case] = {"targets": targets.tolist(), "ignoreIndex": -100, "softcap": cap, "reduction": "mean over the targets that count"}
    put("cross-entropy", cases, tensors)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    for make in (norms, rope, attention, activations, cross_entropy):
        make()
