"""Statistics of linear layers' inputs and gradients, into test/golden/calibrate.

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0
    python scripts/golden/calibrate.py [NAME ...]

NAME.json: the token ids of every sequence, the mean loss, and `noise`: how far the same in f32 is from the f64 that is stored (norms, softmax and
rotary tables stay f32 in torch). NAME.safetensors, by module as docs/formats/statistics.md defines them: `inputSqNorm`, `inputAbsMean`, `fisherRow`
whole; of `inputGram`, `fisherA` and `fisherB` the product with the vector cos(0.7 i + 0.3) (`...Probe`) and the Frobenius norm (`...Norm`).
Every sequence runs alone, without padding. Fisher factors come from a power iteration in f64 until they stand still.
"""
import copy, os, sys
import torch, transformers
from common import MADE_BY, ROOT, generator, write_json, write_tensors

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/tiny")
TEXT = "The castle was built in the 12th century by the bishops of the town , and burned twice . Only its northern tower , which is 31 metres high , stands today ; "
TEXT += "visitors may climb it in summer . A bell of 1492 hangs in it . In the war of 1809 the tower served as a store for powder , and the town kept a guard there ."
# folder, lengths of the sequences, blocks whose Kronecker factors are stored
CASES = {
    "tiny": (f"{EXAMPLES}/base", [48, 48, 31, 48, 17], [1]),
    **{m: (f"{ROOT}/models/{m}", [24, 24, 9, 24, 1, 15], [0, 1]) for m in ("gpt2", "opt-post-norm", "gemma2", "phi3")},
}


def layers_of(model):
    for inner in (getattr(model, "transformer", None), getattr(getattr(model, "model", None), "decoder", None), getattr(model, "model", None)):
        for name in ("h", "layers"):
            if inner is not None and hasattr(inner, name):
                return getattr(inner, name)


def linears_of(model):
    """name -> (module, block, whether its weight lies as (in, out)), of the blocks only."""
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    names = {m: n for n, m in model.named_modules()}
    return {names[m]: (m, i, not isinstance(m, torch.nn.Linear)) for i, layer in enumerate(layers_of(model)) for m in layer.modules() if isinstance(m, kinds)}


def sequences_of(name, folder, lengths):
    if name != "tiny":
        return [torch.randint(0, 48, (n,), generator=generator(f"calibrate {i}")) for i, n in enumerate(lengths)]
    ids = torch.tensor(transformers.AutoTokenizer.from_pretrained(folder)(TEXT).input_ids)
    starts = torch.randint(0, len(ids) - max(lengths), (len(lengths),), generator=generator("calibrate"))
    return [ids[s : s + n] for s, n in zip(starts.tolist(), lengths)]


def pair(g):
    """Leading pair of A -> mean_t G_t A G_t^T: ||A|| = 1, B with the scale."""
    a = torch.eye(g.shape[2], dtype=g.dtype) / g.shape[2] ** 0.5
    for _ in range(20000):
        b = torch.einsum("tij,jk,tlk->il", g, a, g) / len(g)
        new = torch.einsum("tij,il,tlk->jk", g, b / b.norm(), g)
        new /= new.norm()
        change, a = (new - a).norm(), new
        if change < 1e-10:
            break
    return a, torch.einsum("tij,jk,tlk->il", g, a, g) / len(g)


def probed(name, x):
    x = x.double()
    v = torch.cos(0.7 * torch.arange(x.shape[1], dtype=x.dtype) + 0.3)
    return {f"{name}Probe": x @ v, f"{name}Norm": x.norm()}


def statistics(model, sequences, blocks):
    linears = linears_of(model)
    inputs, grads = {n: [] for n in linears}, {n: [] for n in linears}
    hooks = [m.register_forward_pre_hook(lambda _, args, n=n: inputs[n].append(args[0].detach().reshape(-1, args[0].shape[-1]).clone())) for n, (m, _, _) in linears.items()]
    losses = []
    for s in sequences:
        model.zero_grad()
        logits = model(input_ids=s[None]).logits[0]
        if len(s) > 1:
            loss = torch.nn.functional.cross_entropy(logits[:-1], s[1:])
            loss.backward()
            losses.append(loss.item())
        for n, (m, _, across) in linears.items():
            g = torch.zeros_like(m.weight) if len(s) < 2 else m.weight.grad.clone()
            grads[n].append(g.T if across else g)
    for h in hooks:
        h.remove()
    out = {}
    for n, (_, block, _) in linears.items():
        x, g = torch.cat(inputs[n]), torch.stack(grads[n])
        out[f"{n}.inputSqNorm"] = (x**2).sum(0)
        out[f"{n}.inputAbsMean"] = x.abs().mean(0)
        out.update(probed(f"{n}.inputGram", x.T @ x))
        out[f"{n}.fisherRow"] = (g**2).sum((0, 2))
        if block in blocks:
            a, b = pair(g)
            out.update({**probed(f"{n}.fisherA", a), **probed(f"{n}.fisherB", b)})
    return sum(losses) / len(losses), out


def relative(a, b):
    """Largest error of a statistic by its norm; of a product by the norm that its matrix gives a random vector of that length."""
    size = lambda k: b[k.replace("Probe", "Norm")].norm() * 0.5**0.5 if k.endswith("Probe") else b[k].norm()
    return max(((a[k].double() - b[k]).norm() / size(k)).item() for k in b)


def make(name):
    folder, lengths, blocks = CASES[name]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    sequences = sequences_of(name, folder, lengths)
    loss, exact = statistics(copy.deepcopy(model).double(), sequences, blocks)
    single_loss, single = statistics(model, sequences, [])
    of = lambda part: {k: x for k, x in exact.items() if part in k and k in single}
    noise = {"loss": abs(single_loss - loss), "inputs": relative(single, of(".input")), "gradients": relative(single, of(".fisherRow"))}
    target = os.path.join(ROOT, "calibrate")
    os.makedirs(target, exist_ok=True)
    write_tensors(f"{target}/{name}.safetensors", {k: x.float() for k, x in exact.items()})
    write_json(f"{target}/{name}.json", {
        "script": "scripts/golden/calibrate.py", "made": {**MADE_BY, "dtype": "float64"}, "tolerance": {"inputs": 1e-5, "gradients": 1e-4, "kronecker": 5e-4}, "noise": noise,
        "loss": loss, "kroneckerBlocks": blocks, "sequences": [s.tolist() for s in sequences],
    })
    print(name, os.path.getsize(f"{target}/{name}.safetensors"), loss, noise, flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        make(name)
