"""Does Python's peft load adapters, and do its merged weights equal ours?

    peft_check.py BASE ADAPTER [MERGED] [--tolerance 1e-6]

Loads BASE in f32 with transformers and ADAPTER with peft; warnings about keys count as failures, so do tensors of the file that no
parameter took. MERGED (a checkpoint folder by `pith adapter fuse --dtype f32`): every tensor of merge_and_unload() is compared,
error = max|ours - peft's| / max|peft's|. One JSON line on stdout; exit code 1 when something is wrong.
"""
import argparse, glob, json, os, sys, warnings
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from peft import PeftModel
from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict

ap = argparse.ArgumentParser()
ap.add_argument("base"); ap.add_argument("adapter"); ap.add_argument("merged", nargs="?")
ap.add_argument("--tolerance", type=float, default=1e-6)
ap.add_argument("--unmerged", action="store_true", help="compare logits of the adapter unmerged with those of MERGED instead of weights")
a = ap.parse_args()

model = AutoModelForCausalLM.from_pretrained(a.base, dtype=torch.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    peft = PeftModel.from_pretrained(model, a.adapter)
text = [str(w.message) for w in caught]
complaints = [t for t in text if "missing" in t.lower() or "unexpected" in t.lower() or "mismatch" in t.lower()]
weights = load_peft_weights(a.adapter, device="cpu")
result = set_peft_model_state_dict(peft, dict(weights))
unexpected = list(result.unexpected_keys)
missing = [k for k in result.missing_keys if "lora_" in k or "modules_to_save" in k]
report = {"adapter": a.adapter, "tensors": len(weights), "missing": missing, "unexpected": unexpected, "complaints": complaints}
ok = not (missing or unexpected or complaints)
if a.merged and a.unmerged:
    ids = torch.arange(1, 33).reshape(1, -1)
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(a.merged, dtype=torch.float32)(ids).logits
        theirs = peft.eval()(ids).logits
    report["logitError"] = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    ok = ok and report["logitError"] <= a.tolerance
elif a.merged:
    merged = peft.merge_and_unload().state_dict()
    ours = {}
    for f in sorted(glob.glob(os.path.join(a.merged, "*.safetensors"))):
        ours.update(load_file(f))
    worst, name = 0.0, ""
    compared = 0
    for k, w in ours.items():
        v = merged[k].float()
        e = ((w.float() - v).abs().max() / max(v.abs().max().item(), 1e-30)).item()
        compared += 1
        if e > worst:
            worst, name = e, k
    report.update({"compared": compared, "worst": worst, "worstTensor": name})
    ok = ok and worst <= a.tolerance and compared > 0
report["ok"] = ok
print(json.dumps(report))
sys.exit(0 if ok else 1)
