"""
Goldens of the GGUF reader: test/golden/gguf/. Run by hand: python scripts/golden/gguf.py
Needs gguf 0.19.0, numpy, torch 2.13, transformers 5.23, sentencepiece 0.2.3, tokenizers.

blocks.gguf, blocks.f32.safetensors   random blocks of every type that gguf.quants.dequantize knows, and the f32 values it gives.
<arch>.gguf, models.json              tiny random transformers models written by the rules of llama.cpp's converter; for every tensor the SHA-256
                                      of the values that a reader must give, its dtype and shape, and the model's own config.json. Each file
                                      is also read by transformers' own GGUF loader, which must give the same tensors.
tokens-*.gguf, tokens.json            vocabularies alone, and the ids of some texts by the tokenizer that each was made from; for byte-level BPE
                                      scripts/golden/gguf-tokens.mjs adds what llama.cpp makes of the texts under each pre-tokenizer id.
Training text: lines of the data folder that $PITH_DATA names (wikitext2-valid.txt).
"""

import hashlib
import json
import math
import os
import shutil
import struct
import sys
import tempfile

sys.path.pop(0)  # this file has the package's name

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, "..", "..", "test", "golden", "gguf"))
SCRIPT = "scripts/golden/gguf.py"
VERSIONS = {"gguf": "0.19.0", "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "numpy": np.__version__}
rng = np.random.default_rng(20)


def write_json(name, document):
    with open(os.path.join(OUT, name), "w") as f:
        json.dump({"script": SCRIPT, "versions": VERSIONS, "tolerance": 0, **document}, f, indent=1)
        f.write("\n")


# ---- blocks -------------------------------------------------------------------------------------------------------

# bytes of a block that hold an f16 scale
F16_AT = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": []}
ROWS, COLUMNS = 4, 512


def random_blocks(name):
    """Rows 0 and 1 with scales of any sign and size, row 2 with subnormal ones, row 3 raw bytes: infinities and NaN among them."""
    elements, size = gguf.GGML_QUANT_SIZES[T[name]]
    per_row = COLUMNS // elements
    raw = rng.integers(0, 256, (ROWS, per_row, size), dtype=np.uint8)
    for at in F16_AT[name]:
        usual = rng.normal(0, 0.05, (2, per_row)).astype(np.float16)
        large = (rng.uniform(-65504, 65504, (1, per_row))).astype(np.float16)
        usual[1, : per_row // 2] = large[0, : per_row // 2]
        raw[:2, :, at : at + 2] = usual.view(np.uint8).reshape(2, per_row, 2)
        tiny = (rng.integers(-1023, 1024, (1, per_row)) * 2.0**-24).astype(np.float16)
        raw[2:3, :, at : at + 2] = tiny.view(np.uint8).reshape(1, per_row, 2)
        if name not in ("MXFP4", "NVFP4"):
            special = np.array([np.inf, -np.inf, np.nan, -0.0], dtype=np.float16)
            raw[3, :1, at : at + 2] = special[:1].view(np.uint8)
            if per_row > 1:
                raw[3, 1:2, at : at + 2] = special[2:3].view(np.uint8)
    return raw.reshape(ROWS, per_row * size)


def blocks():
    path = os.path.join(OUT, "blocks.gguf")
    writer = gguf.GGUFWriter(path, "blocks")
    values = {}
    with np.errstate(all="ignore"):
        for name in F16_AT:
            raw = random_blocks(name)
            values[name] = np.ascontiguousarray(dequantize(raw, T[name]).astype(np.float32))
            writer.add_tensor(name, raw, raw_dtype=T[name])
        halves = rng.integers(0, 65536, (2, 64), dtype=np.uint16)
        writer.add_tensor("F16", halves.view(np.float16))
        values["F16"] = halves.view(np.float16).astype(np.float32)
        words = rng.integers(0, 65536, (2, 64), dtype=np.uint16)
        writer.add_tensor("BF16", words.view(np.uint8).reshape(2, 128), raw_dtype=T.BF16)
        values["BF16"] = dequantize(words.view(np.uint8).reshape(2, 128), T.BF16)
        singles = rng.normal(0, 1, (2, 64)).astype(np.float32)
        writer.add_tensor("F32", singles)
        values["F32"] = singles
        doubles = rng.normal(0, 1e3, (2, 64))
        writer.add_tensor("F64", doubles)
        values["F64"] = doubles.astype(np.float32)
        for kind, dtype in (("I8", np.int8), ("I16", np.int16), ("I32", np.int32), ("I64", np.int64)):
            info = np.iinfo(dtype)
            ints = rng.integers(max(info.min, -(2**40)), min(info.max, 2**40), (2, 16), dtype=dtype)
            writer.add_tensor(kind, ints)
            values[kind] = ints.astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(values, os.path.join(OUT, "blocks.f32.safetensors"))


# ---- models -------------------------------------------------------------------------------------------------------

HIDDEN, FF, LAYERS, VOCAB = 64, 96, 2, 128
DECODER = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
GEMMA = {**DECODER, "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
NAMES = {
    "llama": DECODER, "qwen2": DECODER, "qwen3": DECODER, "gemma2": GEMMA, "gemma3": GEMMA,
    "phi3": {**DECODER, "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
    "gpt2": {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
             "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
    "bert": {"embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd", "embeddings.token_type_embeddings": "token_types",
             "embeddings.LayerNorm": "token_embd_norm", "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
             "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up",
             "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"},
}
PREFIX = {"gpt2": "transformer.h.", "bert": "encoder.layer."}


def stored_name(arch, hf):
    base, suffix = hf.rsplit(".", 1)
    prefix = PREFIX.get(arch, "model.layers.")
    if base.startswith(prefix):
        layer, module = base[len(prefix) :].split(".", 1)
        return f"blk.{layer}.{NAMES[arch][module]}.{suffix}"
    return f"{NAMES[arch][base]}.{suffix}"


def permute(w, heads):
    """llama.cpp, LlamaModel.permute."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(config):
    """llama.cpp, LlamaModel.generate_extra_tensors."""
    rope = config.rope_parameters
    dim = config.head_dim
    freqs = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    factor, low, high, length = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    out = []
    for freq in freqs:
        wavelen = 2 * math.pi / freq
        if wavelen < length / high:
            out.append(1)
        elif wavelen > length / low:
            out.append(factor)
        else:
            smooth = (length / wavelen - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


def encode(values, kind):
    if kind == "F32":
        return values.astype(np.float32), T.F32, values.astype(np.float32)
    if kind == "F16":
        h = values.astype(np.float16)
        return h, T.F16, h
    raw = quantize(np.ascontiguousarray(values.astype(np.float32)), T[kind])
    return raw, T[kind], dequantize(raw, T[kind])


def digest(dtype, array):
    return {"dtype": dtype, "shape": list(array.shape), "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}


def rope_keys(writer, arch, rope):
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def metadata(writer, arch, c):
    writer.add_name(f"tiny {arch}")
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(FF if arch not in ("gpt2",) else 4 * HIDDEN)
    writer.add_head_count(c.num_attention_heads)
    writer.add_context_length(getattr(c, "n_positions", None) or c.max_position_embeddings)
    if arch in ("gpt2", "bert"):
        writer.add_layer_norm_eps(getattr(c, "layer_norm_epsilon", None) or c.layer_norm_eps)
        return
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_vocab_size(VOCAB)
    rope = c.rope_parameters
    full = rope.get("full_attention", rope)
    writer.add_rope_freq_base(full["rope_theta"])
    rope_keys(writer, arch, full)
    if arch in ("llama", "phi3"):
        writer.add_rope_dimension_count(int(c.head_dim * full.get("partial_rotary_factor", 1)) if arch == "llama" else int(HIDDEN // c.num_attention_heads * full.get("partial_rotary_factor", 1)))
    if arch in ("qwen3", "gemma2", "gemma3"):
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if arch in ("gemma2", "gemma3", "phi3"):
        writer.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == "gemma3":
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)


def back(arch, hf, values, c):
    """What a reader makes of stored values: the converter's steps undone, in numpy."""
    if arch == "llama" and ("q_proj" in hf or "k_proj" in hf):
        return unpermute(values, c.num_attention_heads if "q_proj" in hf else c.num_key_value_heads)
    if arch == "gpt2" and hf.endswith("weight") and ".c_" in hf:
        return values.T
    if arch.startswith("gemma") and hf.endswith("norm.weight"):
        return values.astype(np.float32) - np.float32(1)
    return values


def forward(arch, hf, values, c):
    if arch == "llama" and ("q_proj" in hf or "k_proj" in hf):
        return permute(values, c.num_attention_heads if "q_proj" in hf else c.num_key_value_heads)
    if arch == "gpt2" and hf.endswith("weight") and ".c_" in hf:
        return values.T
    if arch.startswith("gemma") and hf.endswith("norm.weight"):
        return values + np.float32(1)
    return values


DTYPE = {T.F32: "F32", T.F16: "F16"}


def write_model(file, arch, model, kinds, types=None):
    """kinds: ggml type of a matrix by its HF name; vectors are F32."""
    c = model.config
    state = {k: v.float().numpy() for k, v in model.state_dict().items() if not k.endswith(("position_ids", "token_type_ids")) and not k.startswith("pooler")}
    tied = getattr(c, "tie_word_embeddings", False) or arch == "gpt2"
    if tied:
        state.pop("lm_head.weight", None)
    writer = gguf.GGUFWriter(os.path.join(OUT, file), arch)
    metadata(writer, arch, c)
    if types is not None:
        writer.add_file_type(types)
        writer.add_quantization_version(2)
    expected = {}
    for hf, values in state.items():
        stored = forward(arch, hf, values, c)
        raw, kind, read = encode(stored, kinds(hf) if stored.ndim > 1 else "F32")
        writer.add_tensor(stored_name(arch, hf), raw, raw_dtype=kind)
        expected[hf] = digest("F32" if arch.startswith("gemma") and hf.endswith("norm.weight") else DTYPE.get(kind, "F32"), back(arch, hf, read, c))
    rope = getattr(c, "rope_parameters", None) or {}
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(c))
    if rope.get("rope_type") == "longrope":
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"file": file, "architecture": arch, "tensors": expected, "config": json.loads(c.to_json_string(use_diff=False))}


def check_with_transformers(entry, model_class, config):
    """transformers' own loader must give what we expect of a reader."""
    if entry["architecture"] in ("bert",):
        return
    folder = tempfile.mkdtemp()
    try:
        shutil.copy(os.path.join(OUT, entry["file"]), os.path.join(folder, "m.gguf"))
        loaded = model_class.from_pretrained(folder, gguf_file="m.gguf", config=config, dtype=torch.float32)
        state = loaded.state_dict()
        for hf, want in entry["tensors"].items():
            if hf not in state:  # it takes no biases of a llama
                assert hf.endswith("bias"), hf
                continue
            got = state[hf].numpy()
            have = got.astype(np.float16) if want["dtype"] == "F16" else got
            assert digest(want["dtype"], have) == want, (entry["file"], hf)
    finally:
        shutil.rmtree(folder)


def randomized(model):
    torch.manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * 0.05)
    return model.eval()


def models():
    from transformers import (BertConfig, BertModel, Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel,
                              LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

    base = dict(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FF, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
                max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    other3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 8.0, "original_max_position_embeddings": 4096}
    long = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + 0.05 * i for i in range(8)], "long_factor": [1.0 + 1.25 * i for i in range(8)]}
    kinds = lambda hf: {"q_proj": "Q8_0", "k_proj": "Q4_1", "v_proj": "F16", "o_proj": "Q5_0", "up_proj": "Q5_1", "down_proj": "Q4_0"}.get(hf.split(".")[-2], "F32")  # noqa: E731
    f32 = lambda hf: "F32"  # noqa: E731
    made = []

    def add(file, arch, model_class, config, kinds, **more):
        entry = write_model(file, arch, randomized(model_class(config)), kinds, **more)
        check_with_transformers(entry, model_class, config)
        made.append(entry)

    add("llama.gguf", "llama", LlamaForCausalLM, LlamaConfig(**base, rms_norm_eps=1e-5, tie_word_embeddings=True, head_dim=32, rope_parameters=llama3), kinds, types=3)
    add("llama-head.gguf", "llama", LlamaForCausalLM, LlamaConfig(**{**base, "num_hidden_layers": 1}, attention_bias=True, mlp_bias=True, tie_word_embeddings=False, head_dim=32, rope_parameters=other3), lambda hf: "F16" if "mlp" in hf or "embed" in hf else "F32", types=0)
    add("qwen2.gguf", "qwen2", Qwen2ForCausalLM, Qwen2Config(**base, tie_word_embeddings=False, rope_parameters={"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 64}), lambda hf: "F16", types=1)
    add("qwen3.gguf", "qwen3", Qwen3ForCausalLM, Qwen3Config(**base, tie_word_embeddings=True, head_dim=32, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), kinds, types=7)
    add("gemma2.gguf", "gemma2", Gemma2ForCausalLM, Gemma2Config(**base, head_dim=32, query_pre_attn_scalar=32, sliding_window=32), kinds, types=7)
    add("gemma3.gguf", "gemma3", Gemma3ForCausalLM, Gemma3TextConfig(**base, head_dim=32, query_pre_attn_scalar=32, sliding_window=32, rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}), lambda hf: "Q8_0", types=7)
    add("phi3.gguf", "phi3", Phi3ForCausalLM, Phi3Config(**base, rms_norm_eps=1e-5, tie_word_embeddings=False, sliding_window=48, original_max_position_embeddings=64, rope_parameters=long), lambda hf: "F16", types=1)
    add("gpt2.gguf", "gpt2", GPT2LMHeadModel, GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=HIDDEN, n_layer=1, n_head=4, bos_token_id=1, eos_token_id=2), lambda hf: "Q8_0" if "c_attn" in hf else "F16" if "c_fc" in hf else "F32", types=1)
    add("bert.gguf", "bert", BertModel, BertConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FF, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=64), lambda hf: "F16" if "dense" in hf else "F32", types=1)
    write_json("models.json", {"models": made})


# ---- vocabularies -------------------------------------------------------------------------------------------------

TEXTS = [
    "Hello, world! It's 2024, and I've paid $1234567.89 for 42 apples.",
    "  two spaces,   three    four\t\ttabs\n\nnew\r\n lines \n",
    "WE'LL SEE: THEY'RE don't can't you'd I'M",
    "x = 3*(y+17)/2**10; if (a[0] != 0x1F) { return 'no'; } // 100%",
    "caf\u00e9 na\u00efve \u00dcber \u00bd \u00b2 \u0663\u0664 \u5317\u4eac\u5e02 \u3053\u3093\u306b\u3061\u306f 123\u4e94 \ud55c\uad6d\uc5b4",
    "emoji \U0001f600\U0001f680 and \u2014 dashes \u2026 \u201cquotes\u201d",
    "camelCaseWord HTTPServer a1b2c3 1st 2nd 10,000 3.14159 1  2   3",
    " leading and trailing ",
    "def f(n):\n    return n if n < 2 else f(n-1) + f(n-2)\n\n\n",
    "<|im_start|>user\nhi 12345<|im_end|>\n<think>so</think>",
    "a" * 40 + " " + "0" * 12,
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u0410\u0431\u0412\u0433 \u05d0\u05d1",
    "a zebra, e\u0301te\u0301 and xe\u0301 camelCaseWord.HTTPServer",
]
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def lines(count):
    with open(os.path.join(os.environ["PITH_DATA"], "wikitext2-valid.txt")) as f:
        return [line for line in f if len(line) > 80][:count]


def vocabulary_file(name, model, tokens, types, more):
    """Metadata alone: no tensors."""
    writer = gguf.GGUFWriter(os.path.join(OUT, name), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def byte_level():
    """Merges across words, digits and spaces, so that every pre-tokenizer shows; "zebra" is a token that no merge makes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    numbers = [" ".join(str(n) for n in range(k, k + 60)) + " 1000 2024 1234567 don't I'M we'll they're Can't = ( ) ** // != ;\n\n\t\t   x camelCaseWord HTTPServer e\u0301te\u0301 \u0939\u093f\u0928" for k in range(0, 600, 30)]
    text = lines(150) + numbers * 4 + TEXTS * 3
    bpe.train_from_iterator(text, trainers.BpeTrainer(vocab_size=1000, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    state = json.loads(bpe.to_str())["model"]
    tokens = [t for t, _ in sorted(state["vocab"].items(), key=lambda e: e[1])] + ["\u0120zebra", "<think>", "</think>", "[PAD1003]"]
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 6) + [USER, USER, UNUSED]

    def more(writer):
        writer.add_token_merges([" ".join(m) for m in state["merges"]])
        writer.add_tokenizer_pre("gpt-2")
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_pad_token_id(2)
        writer.add_add_bos_token(False)
        writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")

    vocabulary_file("tokens-bpe.gguf", "gpt2", tokens, types, more)
    return {}


def sentencepiece_bpe():
    import sentencepiece

    folder = tempfile.mkdtemp()
    try:
        with open(os.path.join(folder, "text"), "w") as f:
            f.writelines(line.strip() + "\n" for line in lines(400) + TEXTS[:9] * 5 if line.strip())
        # as llama's: no normalization, no extra spaces removed, bytes for what is unknown, digits alone
        sentencepiece.SentencePieceTrainer.train(
            input=os.path.join(folder, "text"), model_prefix=os.path.join(folder, "m"), model_type="bpe", vocab_size=900, byte_fallback=True, split_digits=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, minloglevel=2)
        sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "m.model"))
    finally:
        shutil.rmtree(folder)
    n = sp.vocab_size()
    kind = lambda i: UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i) else BYTE if sp.is_byte(i) else UNUSED if sp.is_unused(i) else NORMAL  # noqa: E731

    def more(writer):
        writer.add_token_scores([sp.get_score(i) for i in range(n)])
        writer.add_tokenizer_pre("default")
        writer.add_bos_token_id(sp.bos_id())
        writer.add_eos_token_id(sp.eos_id())
        writer.add_unk_token_id(sp.unk_id())
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)

    vocabulary_file("tokens-spm.gguf", "llama", [sp.id_to_piece(i) for i in range(n)], [kind(i) for i in range(n)], more)
    texts = [t for t in TEXTS if "<" not in t]
    return {"spm": [{"text": t, "ids": [sp.bos_id()] + sp.encode(t)} for t in texts]}


def word_piece():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    wp = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wp.normalizer = normalizers.BertNormalizer()
    wp.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wp.train_from_iterator(lines(200) + TEXTS, trainers.WordPieceTrainer(vocab_size=800, special_tokens=specials, show_progress=False))
    wp.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    vocab = [t for t, _ in sorted(wp.get_vocab().items(), key=lambda e: e[1])]
    # llama.cpp, BertModel.set_vocab
    phantom = lambda t: t if t in specials else t[2:] if t.startswith("##") else "\u2581" + t  # noqa: E731

    def more(writer):
        writer.add_bos_token_id(2)
        writer.add_unk_token_id(1)
        writer.add_sep_token_id(3)
        writer.add_pad_token_id(0)
        writer.add_mask_token_id(4)
        writer.add_token_type_count(2)

    vocabulary_file("tokens-wpm.gguf", "bert", [phantom(t) for t in vocab], [CONTROL if t in specials else NORMAL for t in vocab], more)
    return {"wpm": [{"text": t, "ids": wp.encode(t).ids} for t in TEXTS]}


def tokens():
    write_json("tokens.json", {"texts": TEXTS, **byte_level(), **sentencepiece_bpe(), **word_piece()})


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    parts = sys.argv[1:] or ["blocks", "models", "tokens"]
    for part in parts:
        {"blocks": blocks, "models": models, "tokens": tokens}[part]()
