"""Tiny random models of every architecture and what transformers computes with them, into test/golden/models.

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0
    python scripts/golden/models.py [NAME ...]

Each folder: config.json and model.safetensors as a user has them; golden.safetensors, the outputs; golden.json, inputs, tolerance, what the
loaded model says of itself (`resolved`), and `noise`: how far f32 is from f64 in torch (norms, softmax and rotary tables stay f32 there).
Every golden is computed by the model as it loads from the folder, with no tensor missing or left over. A variant must show what it is for:
each `contrast` is the output's largest change when that setting is another, far above the tolerance.
Tensors: `logits` or `last_hidden_state`; `hidden.0` goes into the first block (embeddings, scaled), `hidden.i` comes out of the i-th; `grad.<weight>` and
`grad.hidden.0` are gradients of `loss`, the mean cross-entropy over all pairs of a token and the next one that are both real.
Rows of masked positions are zero in the outputs and mean nothing.
"""
import copy, dataclasses, json, os, shutil, sys, tempfile
import torch
from safetensors.torch import load_file
from common import MADE_BY, ROOT, TOLERANCE, generator, max_difference, normal, write_json, write_tensors
from variants import S, V, VARIANTS

# a contrast must be this many times the tolerance
VISIBLE = 10


@torch.no_grad()
def randomise(model, name):
    """Weights that make scores, gates and logits of order one to ten; gains and biases away from 1 and 0."""
    g = generator(name)
    gemma = "gemma" in model.config.model_type
    tied = model.get_output_embeddings() is not None and getattr(model.config, "tie_word_embeddings", False)
    # sorted: the numbers do not depend on the order in which the class makes its modules
    for key, p in sorted(model.named_parameters()):
        r = normal(g, *p.shape)
        if p.dim() == 1:
            gain = key.endswith("weight")
            p.copy_((0 if not gain or gemma else 1) + 0.3 * r)
        elif any(part in key for part in ("embed_tokens", "wte", "word_embeddings")):
            p.copy_((0.5 if tied or gemma else 1.0) * r)
        elif any(part in key for part in ("embed_positions", "wpe", "position_embeddings", "token_type", "cls_token")):
            p.copy_(0.5 * r)
        else:
            # Conv1D keeps (in, out); every other matrix (out, in, ...)
            inputs = p.shape[0] if model.config.model_type == "gpt2" and p.dim() == 2 and "lm_head" not in key else p[0].numel()
            sharp = 1.8 if any(part in key for part in ("q_proj", "k_proj", "query", "key", "qkv_proj", "c_attn")) else 1.2
            p.copy_(sharp * r / inputs**0.5)


def text_inputs(v):
    g = generator("text")
    ids = torch.randint(3, V - 3, (2, S), generator=g)
    mask = torch.ones(2, S, dtype=torch.long)
    pad = 7
    if v.inputs == "left":
        mask[1, :pad] = 0
    elif v.inputs in ("right", "bert"):
        mask[1, -pad:] = 0
    ids = torch.where(mask == 1, ids, torch.zeros_like(ids))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = {"input_ids": ids, "attention_mask": mask}
    if v.inputs == "bert":
        out["token_type_ids"] = (torch.arange(S) >= 25).long().expand(2, S) * mask
    elif v.model.config_class.model_type != "opt":
        out["position_ids"] = positions
    return out


def inputs_of(v):
    g = generator("inputs")
    if v.inputs == "pixels":
        return {"pixel_values": normal(g, 2, 3, 16, 16)}
    if v.inputs == "mel":
        return {"input_features": normal(g, 2, 8, 40), "decoder_input_ids": torch.randint(3, V - 3, (2, 24), generator=g)}
    return text_inputs(v)


def cast(inputs, dtype):
    return {k: x.to(dtype) if x.is_floating_point() else x for k, x in inputs.items()}


def forward(v, model, inputs):
    """Outputs by name, rows of masked positions zeroed."""
    blocks = {}
    hooks = []
    if v.hidden:
        layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
        first = lambda _, args, kwargs: blocks.update({"hidden.0": kwargs.get("hidden_states", args[0] if args else None)})
        hooks.append(layers[0].register_forward_pre_hook(first, with_kwargs=True))
        for i, layer in enumerate(layers):
            save = lambda _, args, out, i=i: blocks.update({f"hidden.{i + 1}": out[0] if isinstance(out, tuple) else out})
            hooks.append(layer.register_forward_hook(save))
    o = model(**inputs)
    for h in hooks:
        h.remove()
    if hasattr(o, "logits"):
        out = {"logits": o.logits, **blocks}
    else:
        out = {"last_hidden_state": o.last_hidden_state, "pooler_output": o.pooler_output}
    if hasattr(o, "encoder_last_hidden_state"):
        out["encoder_last_hidden_state"] = o.encoder_last_hidden_state
    mask = inputs.get("attention_mask")
    if mask is not None:
        if v.pool:
            kept = mask[..., None].to(o.last_hidden_state.dtype)
            mean = (o.last_hidden_state * kept).sum(1) / kept.sum(1)
            out["sentence_embedding"] = torch.nn.functional.normalize(mean, dim=-1)
        out = {k: x * mask[..., None].to(x.dtype) if x.dim() == 3 else x for k, x in out.items()}
    return out


def rows_of(inputs):
    """The batch as sequences of their own without padding, and where each lies in it."""
    mask = inputs.get("attention_mask")
    if mask is None:
        return [(inputs, None)]
    kept = [row.nonzero()[:, 0] for row in mask]
    return [({k: x[i : i + 1, at] for k, x in inputs.items()}, (i, at)) for i, at in enumerate(kept)]


def exact_forward(v, model, inputs):
    """The same in f64, without padding (a row that sees nothing is not a number there), put where it belongs in the batch."""
    parts = [(forward(v, model, x), at) for x, at in rows_of(inputs)]
    if parts[0][1] is None or len(inputs["attention_mask"]) == 1:
        return parts[0][0]
    out = {}
    for part, (i, at) in parts:
        for k, x in part.items():
            if x.dim() == 3:
                out.setdefault(k, torch.zeros(len(parts), S, x.shape[2], dtype=x.dtype))[i, at] = x[0]
            else:
                out.setdefault(k, torch.zeros(len(parts), x.shape[1], dtype=x.dtype))[i] = x[0]
    return out


def summed_loss(model, inputs):
    """Cross-entropy summed over all pairs of a token and the next one that are both real, and their number."""
    logits = model(**inputs).logits[:, :-1]
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    real = (mask[:, 1:] * mask[:, :-1]).bool()
    return torch.nn.functional.cross_entropy(logits[real], ids[:, 1:][real], reduction="sum"), int(real.sum())


def gradients(v, model, inputs, rows):
    """Mean loss, its gradients at chosen weights and at the input of block 0. `rows`: as `rows_of` gives them."""
    model.zero_grad()
    kept = []
    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers

    def keep(_, args, kwargs):
        x = kwargs.get("hidden_states", args[0] if args else None)
        x.retain_grad()
        kept.append(x)

    hook = layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    sums = [summed_loss(model, x) for x, _ in rows]
    hook.remove()
    loss = sum(s for s, _ in sums) / sum(n for _, n in sums)
    loss.backward()
    parameters = dict(model.named_parameters())
    at_input = torch.zeros(*inputs["input_ids"].shape, kept[0].shape[-1], dtype=kept[0].dtype)
    for x, (_, at) in zip(kept, rows):
        if at is None:
            at_input = x.grad * inputs["attention_mask"][..., None]
        else:
            at_input[at[0], at[1]] = x.grad[0]
    return loss.item(), {"grad.hidden.0": at_input, **{f"grad.{k}": parameters[k].grad.clone() for k in v.gradients}}


def load(v, folder):
    cls = v.load or v.model
    if v.loadable is not None:
        with tempfile.TemporaryDirectory() as other:
            shutil.copy(f"{folder}/model.safetensors", other)
            with open(f"{other}/config.json", "w") as f:
                json.dump(v.loadable(json.load(open(f"{folder}/config.json"))), f)
            return load(dataclasses.replace(v, loadable=None), other)
    model, info = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    left = [k for k in info["unexpected_keys"] if k not in v.ignored]
    assert not info["missing_keys"] and not left and not info["mismatched_keys"], (v.name, info)
    return model.eval()


def resolved(v, model):
    """What the loaded model says of itself, for the config's reader."""
    out = {}
    text = getattr(model, "model", model)
    text = getattr(text, "language_model", text)
    rotary = getattr(text, "rotary_emb", None)
    layers = getattr(text, "layers", None)
    if rotary is None or layers is None:
        return out
    attention = [layer.self_attn for layer in layers]
    config = text.config
    out["headDim"] = attention[0].head_dim
    out["kvHeads"] = config.num_key_value_heads
    out["scales"] = [a.scaling for a in attention]
    windowed = lambda i, a: config.sliding_window if not hasattr(config, "layer_types") or config.layer_types[i] == "sliding_attention" else None
    out["windows"] = [windowed(i, a) if hasattr(config, "sliding_window") else None for i, a in enumerate(attention)]
    by_type = {k.removesuffix("_inv_freq").removesuffix("_attention"): b for k, b in rotary.named_buffers() if k.endswith("inv_freq") and "original" not in k}
    for kind, frequencies in by_type.items():
        kind = "full" if kind in ("", "inv_freq") else kind
        factor = rotary.attention_scaling if kind == "full" and not hasattr(rotary, "full_attention_attention_scaling") else getattr(rotary, f"{kind}_attention_attention_scaling")
        out[f"rope.{kind}"] = {"inverseFrequencies": frequencies.tolist(), "attentionFactor": float(factor)}
    return out


def contrasts(v, model, inputs, out):
    """The largest change of the outputs under each override of the config."""
    found = []
    for override in v.contrast:
        config = copy.deepcopy(model.config)
        for k, x in override.items():
            setattr(config, k, copy.deepcopy(x))
        other = type(model)(config).eval()
        other.load_state_dict(model.state_dict())
        # the class may not honour `attn_implementation` of a copied config
        other.set_attn_implementation("eager")
        change = max_difference({k: out[k] for k in out}, forward(v, other, inputs))
        assert change > VISIBLE * TOLERANCE, f"{v.name}: {override} changes the output by {change} only"
        found.append({"instead": override, "change": change})
    return found


def save(v, folder):
    """The checkpoint as a user has it."""
    shutil.rmtree(folder, ignore_errors=True)
    model = v.model(v.config).eval()
    randomise(model, v.name)
    model.save_pretrained(folder)
    for extra in ("generation_config.json",):
        if os.path.exists(f"{folder}/{extra}"):
            os.remove(f"{folder}/{extra}")
    stored = load_file(f"{folder}/model.safetensors")
    if v.tensors is not None:
        stored = v.tensors(stored)
    write_tensors(f"{folder}/model.safetensors", stored)
    config = json.load(open(f"{folder}/config.json"))
    if v.rewrite is not None:
        config = v.rewrite(config)
    with open(f"{folder}/config.json", "w") as f:
        f.write(json.dumps(config, indent=1) + "\n")


def make(v):
    folder = os.path.join(ROOT, "models", v.name)
    save(v, folder)
    model = load(v, folder)
    inputs = inputs_of(v)
    with torch.no_grad():
        out = forward(v, model, inputs)
        facts = resolved(v, model)
        changes = contrasts(v, model, inputs, out)
        exact = exact_forward(v, copy.deepcopy(model).double(), cast(inputs, torch.float64))
    noise = max_difference(out, exact)
    golden = {k: x for k, x in out.items()}
    extra = {}
    if v.gradients:
        loss, grads = gradients(v, model, inputs, [(inputs, None)])
        _, exact_grads = gradients(v, copy.deepcopy(model).double(), inputs, rows_of(inputs))
        golden.update(grads)
        extra = {"loss": loss, "gradientNoise": max_difference(grads, exact_grads)}
    tensors = {k: x for k, x in inputs.items() if x.is_floating_point()}
    write_tensors(f"{folder}/golden.safetensors", {**golden, **{f"input.{k}": x for k, x in tensors.items()}})
    write_json(f"{folder}/golden.json", {
        "script": "scripts/golden/models.py", "made": MADE_BY, "class": (v.load or v.model).__name__, "tolerance": TOLERANCE, "noise": noise,
        "largest": {k: x.abs().max().item() for k, x in golden.items()}, **extra, "notes": v.notes, "contrasts": changes, "resolved": facts,
        **{k: x.tolist() for k, x in inputs.items() if not x.is_floating_point()},
    })
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    largest = golden[next(iter(golden))].abs().max().item()
    print(f"{v.name:30} {size / 1e3:7.1f} kB  noise {noise:.1e}  largest {largest:5.2f}  " + " ".join(f"{c['change']:.2g}" for c in changes), flush=True)
    return size


if __name__ == "__main__":
    chosen = sys.argv[1:]
    print(f"{sum(make(v) for v in VARIANTS if not chosen or v.name in chosen) / 1e6:.2f} MB")
