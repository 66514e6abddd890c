"""Adapters that Python's peft wrote itself, merged by pith and by peft: LoRA, rsLoRA, DoRA, patterns, embeddings, Conv1D, saved modules.

    peft_variants.py WORKFOLDER [--node node] [--tolerance 1e-6]

Makes tiny random Llama and GPT-2 checkpoints and adapters with random parameters, merges each with `pith adapter fuse --dtype f32`
and compares every tensor with peft's merge_and_unload(): error = max|ours - peft's| / max|peft's|. One JSON line; exit code 1 on a miss.
"""
import argparse, glob, json, os, shutil, subprocess, sys
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from peft import LoraConfig, get_peft_model

ap = argparse.ArgumentParser()
ap.add_argument("work"); ap.add_argument("--node", default="node"); ap.add_argument("--tolerance", type=float, default=1e-6)
a = ap.parse_args()
BIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bin", "run.js")
torch.manual_seed(0)

LLAMA = LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                    tie_word_embeddings=False, attention_bias=True)
GPT2 = GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=4)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS = {
    "lora": (LLAMA, dict(r=4, lora_alpha=12, target_modules=LINEAR)),
    "rslora": (LLAMA, dict(r=5, lora_alpha=7, use_rslora=True, target_modules=LINEAR)),
    "dora": (LLAMA, dict(r=4, lora_alpha=8, use_dora=True, target_modules=LINEAR)),
    "patterns": (LLAMA, dict(r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*": 7}, alpha_pattern={"^model.layers.0.self_attn.k_proj": 3})),
    "embeddings": (LLAMA, dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "q_proj", "lm_head"])),
    "dora-embeddings": (LLAMA, dict(r=4, lora_alpha=8, use_dora=True, target_modules=["embed_tokens", "q_proj"])),
    "modules-to-save": (LLAMA, dict(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["lm_head", "norm", "input_layernorm"])),
    "bias": (LLAMA, dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], bias="all")),
    "lora-bias": (LLAMA, dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_bias=True)),
    "gpt2-conv1d": (GPT2, dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)),
    "gpt2-dora": (GPT2, dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_dora=True)),
}

results, ok = {}, True
for name, (config, kwargs) in VARIANTS.items():
    folder = os.path.join(a.work, name)
    shutil.rmtree(folder, ignore_errors=True)
    base, adapter, merged = (os.path.join(folder, x) for x in ("base", "adapter", "merged"))
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", inference_mode=False, **kwargs))
    with torch.no_grad():
        for key, p in peft.named_parameters():
            if "lora_" in key or "modules_to_save" in key or (kwargs.get("bias") == "all" and key.endswith("bias")):
                p.add_(0.2 * torch.randn_like(p)) if "magnitude" in key else p.copy_(0.2 * torch.randn_like(p))
    peft.save_pretrained(adapter)
    run = subprocess.run([a.node, BIN, "adapter", "fuse", base, adapter, "--out", merged, "--dtype", "f32", "--quiet"], capture_output=True, text=True)
    if run.returncode != 0:
        results[name] = run.stderr.strip()
        ok = False
        continue
    theirs = peft.merge_and_unload().state_dict()
    ours = {}
    for f in glob.glob(os.path.join(merged, "*.safetensors")):
        ours.update(load_file(f))
    loaded = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).state_dict()
    worst = max(((loaded[k] - v).abs().max() / v.abs().max().clamp_min(1e-30)).item() for k, v in theirs.items() if k in loaded)
    missing = [k for k in theirs if k not in loaded]
    results[name] = {"worst": worst, "compared": len(theirs) - len(missing), "missing": missing}
    ok = ok and worst <= a.tolerance and not missing
print(json.dumps({"ok": ok, "variants": results}))
sys.exit(0 if ok else 1)
