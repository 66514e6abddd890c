"""The variants of every architecture: config, what is saved how, and what must not change the result unseen.

Sizes are small on purpose: width 32, one or two layers, 48 tokens of vocabulary; the text is 40 tokens, so windows of 12 and original
lengths of 16 are left behind.
"""
from dataclasses import dataclass, field
from typing import Any, Callable
import torch
import transformers as t

S = 40   # tokens of a sequence
V = 48   # vocabulary


@dataclass
class Variant:
    name: str
    config: Any
    model: Any                      # the class that is saved
    load: Any = None                # the class that the golden is computed with
    inputs: str = "left"            # left, right: padding of the second sequence; none; bert, pixels, mel
    contrast: list = field(default_factory=list)   # config overrides that must change the output
    rewrite: Callable = None        # config.json's dict -> the dict that is stored
    tensors: Callable = None        # stored tensors -> stored tensors
    ignored: list = field(default_factory=list)    # stored tensors that transformers does not use
    loadable: Callable = None       # stored config.json -> one that transformers can load, where it refuses the stored one
    pool: bool = False              # mean pooling and normalisation of the last hidden state
    hidden: bool = False            # hidden states after each block
    gradients: tuple = ()           # weights whose gradients are stored
    notes: list = field(default_factory=list)


LLAMA = dict(vocab_size=V, hidden_size=32, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
# heads of 16: eight frequencies
ROPE = dict(LLAMA, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)


def llama(name, contrast=(), base=LLAMA, rewrite=None, **kw):
    extra = {k: kw.pop(k) for k in ("inputs", "tensors", "hidden", "gradients", "notes", "ignored", "load") if k in kw}
    return Variant(name, t.LlamaConfig(**{**base, **kw}), t.LlamaForCausalLM, contrast=list(contrast), rewrite=rewrite, **extra)


def scaled(name, parameters, contrast=(), **kw):
    """A llama of one layer with scaled rotary embeddings."""
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": parameters["rope_theta"]}}
    return llama(name, [plain, *contrast], base=ROPE, rope_parameters=dict(parameters), **kw)


def old_spelling(c):
    """The config as transformers 4 writes it."""
    c = dict(c)
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.40.0"
    for new in ("layer_types", "_sliding_window_pattern"):
        c.pop(new, None)
    rope = c.pop("rope_parameters", None)
    if rope is None:
        return c
    if "full_attention" in rope:
        c["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    rope = dict(rope)
    c["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if "partial_rotary_factor" in rope:
        c["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    c["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    return c


YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 2.0, "beta_slow": 0.25}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


def without(suffix):
    return lambda ts: {k: v for k, v in ts.items() if not k.endswith(suffix)}


def with_inv_freq(ts):
    return {**ts, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}


def with_other_head(ts):
    g = torch.Generator().manual_seed(7)
    return {**ts, "lm_head.weight": 0.5 * torch.randn(V, 32, generator=g)}


def head_only(ts):
    ts = dict(ts)
    ts["lm_head.weight"] = ts.pop("model.embed_tokens.weight")
    return ts


LLAMA_GRADIENTS = tuple(f"model.layers.{i}.{m}.weight" for i in (0, 1) for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "input_layernorm")) + ("model.norm.weight", "model.embed_tokens.weight")
PARTIAL_NOTE = ("LlamaConfig takes partial_rotary_factor but LlamaModel does not honour it: with rope_type default all channels turn, with a scaled type the "
                "forward pass fails on shapes; so there is no llama variant of it (phi3-partial has it)")

VARIANTS = [
    llama("llama", hidden=True, gradients=LLAMA_GRADIENTS, notes=[PARTIAL_NOTE]),
    llama("llama-tied", tie_word_embeddings=True, num_hidden_layers=1),
    llama("llama-biases", attention_bias=True, mlp_bias=True, num_hidden_layers=1, inputs="right"),
    llama("llama-head-dim", head_dim=12, num_key_value_heads=4, num_hidden_layers=1, rms_norm_eps=1e-2, contrast=[{"rms_norm_eps": 1e-6}]),
    llama("llama-old", rewrite=old_spelling, tensors=with_inv_freq, num_hidden_layers=1, tie_word_embeddings=False,
          ignored=["model.layers.0.self_attn.rotary_emb.inv_freq"],
          rope_parameters={"rope_type": "default", "rope_theta": 500.0}, contrast=[{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}]),
    llama("llama-tied-other-head", tie_word_embeddings=True, num_hidden_layers=1, tensors=with_other_head,
          notes=["tie_word_embeddings is true and a different lm_head.weight is stored: transformers 5 uses the stored head"]),
    llama("llama-head-only", tie_word_embeddings=True, num_hidden_layers=1, tensors=head_only,
          notes=["only lm_head.weight is stored: the embedding is taken from it"]),
    scaled("llama-linear", {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5}),
    scaled("llama-linear-old", {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5}, rewrite=old_spelling),
    scaled("llama-dynamic", {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 4.0}, max_position_embeddings=16, inputs="none",
           notes=["frequencies follow the longest sequence of the batch: 40 tokens, beyond max_position_embeddings 16"]),
    scaled("llama-llama3", LLAMA3),
    scaled("llama-llama3-old", LLAMA3, rewrite=old_spelling),
    scaled("llama-yarn", YARN, [{"rope_parameters": {**YARN, "truncate": False}}]),
    scaled("llama-yarn-old", YARN, rewrite=old_spelling),
    scaled("llama-yarn-no-truncate", {**YARN, "truncate": False}),
    scaled("llama-yarn-mscale", {**YARN, "mscale": 1.0, "mscale_all_dim": 0.4}, [{"rope_parameters": YARN}]),
    scaled("llama-yarn-attention-factor", {**YARN, "attention_factor": 0.8}, [{"rope_parameters": YARN}]),
    Variant("mistral", t.MistralConfig(**LLAMA, sliding_window=12), t.MistralForCausalLM, contrast=[{"sliding_window": None}, {"sliding_window": 11}]),
    Variant("mistral-no-window", t.MistralConfig(**{**LLAMA, "num_hidden_layers": 1}, sliding_window=None), t.MistralForCausalLM, inputs="right"),
    Variant("qwen2", t.Qwen2Config(**{**LLAMA, "num_hidden_layers": 1}), t.Qwen2ForCausalLM),
    Variant("qwen2-sliding", t.Qwen2Config(**LLAMA, use_sliding_window=True, sliding_window=12, max_window_layers=1), t.Qwen2ForCausalLM,
            contrast=[{"layer_types": ["full_attention"] * 2}, {"layer_types": ["sliding_attention"] * 2}]),
    Variant("qwen2-sliding-old", t.Qwen2Config(**LLAMA, use_sliding_window=True, sliding_window=12, max_window_layers=1), t.Qwen2ForCausalLM,
            rewrite=old_spelling, contrast=[{"layer_types": ["full_attention"] * 2}, {"layer_types": ["sliding_attention"] * 2}]),
    Variant("qwen3", t.Qwen3Config(**LLAMA, head_dim=12, attention_bias=True, use_sliding_window=True, sliding_window=12, max_window_layers=1), t.Qwen3ForCausalLM,
            contrast=[{"layer_types": ["full_attention"] * 2}]),
    Variant("qwen3-tied", t.Qwen3Config(**{**LLAMA, "num_hidden_layers": 1}, head_dim=8, tie_word_embeddings=True), t.Qwen3ForCausalLM),
]

GEMMA2 = dict(LLAMA, head_dim=12, query_pre_attn_scalar=24, sliding_window=12, attn_logit_softcapping=3.0, final_logit_softcapping=5.0)
GEMMA3 = dict(LLAMA, head_dim=12, query_pre_attn_scalar=24, sliding_window=12)
GEMMA3_ROPE = {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}
swapped = {"full_attention": GEMMA3_ROPE["sliding_attention"], "sliding_attention": GEMMA3_ROPE["full_attention"]}
GEMMA3_TYPES = ["sliding_attention", "full_attention"]
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)


def gemma3_old(c):
    c = old_spelling(c)
    # published files say rope_type, and transformers does not read `type` here
    if c["rope_scaling"] is not None:
        c["rope_scaling"] = {("rope_type" if k == "type" else k): x for k, x in c["rope_scaling"].items()}
    return {**c, "sliding_window_pattern": 2}


VARIANTS += [
    Variant("gemma2", t.Gemma2Config(**GEMMA2), t.Gemma2ForCausalLM, hidden=True,
            gradients=tuple(f"model.layers.{i}.{m}.weight" for i in (0, 1) for m in ("self_attn.q_proj", "mlp.down_proj", "post_feedforward_layernorm"))
            + ("model.norm.weight", "model.embed_tokens.weight"),
            contrast=[{"attn_logit_softcapping": None}, {"final_logit_softcapping": None}, {"query_pre_attn_scalar": 12}, {"layer_types": ["full_attention"] * 2}]),
    Variant("gemma2-old", t.Gemma2Config(**{**GEMMA2, "num_hidden_layers": 1, "attn_logit_softcapping": None, "final_logit_softcapping": None}), t.Gemma2ForCausalLM,
            rewrite=old_spelling, contrast=[{"layer_types": ["full_attention"]}]),
    Variant("gemma3-text", t.Gemma3TextConfig(**GEMMA3, layer_types=GEMMA3_TYPES, rope_parameters=GEMMA3_ROPE), t.Gemma3ForCausalLM,
            contrast=[{"layer_types": ["full_attention"] * 2}, {"rope_parameters": swapped}]),
    Variant("gemma3-text-old", t.Gemma3TextConfig(**GEMMA3, layer_types=GEMMA3_TYPES, rope_parameters=GEMMA3_ROPE), t.Gemma3ForCausalLM, rewrite=gemma3_old,
            contrast=[{"layer_types": ["full_attention"] * 2}, {"rope_parameters": swapped}]),
    Variant("gemma3-multimodal", t.Gemma3Config(text_config=t.Gemma3TextConfig(**{**GEMMA3, "num_hidden_layers": 1}, layer_types=["full_attention"], rope_parameters=GEMMA3_ROPE).to_dict(),
            vision_config=t.SiglipVisionConfig(**VISION).to_dict(), mm_tokens_per_image=4, image_token_index=45, boi_token_index=46, eoi_token_index=47),
            t.Gemma3ForConditionalGeneration, inputs="none", notes=["text alone; the vision tower's tensors are stored and not used"]),
    Variant("phi3", t.Phi3Config(**LLAMA, sliding_window=12), t.Phi3ForCausalLM, contrast=[{"sliding_window": None}]),
    Variant("phi3-partial", t.Phi3Config(**{**ROPE, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.75}}), t.Phi3ForCausalLM,
            contrast=[{"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 1.0}}]),
]


def longrope(name, original, rewrite=None, loadable=None, notes=(), **extra):
    dims = 8
    rope = {"rope_type": "longrope", "rope_theta": 1000.0, "short_factor": [1 + 0.1 * i for i in range(dims)], "long_factor": [1.5 + 0.5 * i for i in range(dims)], **extra}
    config = t.Phi3Config(**{**ROPE, "max_position_embeddings": 128, "original_max_position_embeddings": original, "rope_parameters": rope})
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 1.0}}
    return Variant(name, config, t.Phi3ForCausalLM, inputs="none", contrast=[plain], rewrite=rewrite, loadable=loadable, notes=list(notes))


def phi3_early(kind):
    def rewrite(c):
        c = old_spelling(c) if "rope_parameters" in c else c
        rope = c["rope_scaling"]
        return {**c, "rope_scaling": {"type": kind, "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}}
    return rewrite


SU_NOTE = "transformers 5.23 refuses a file that says su (a missing key); computed with the same file saying longrope"


GPT2 = dict(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=48, bos_token_id=1, eos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
OPT = dict(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=40, max_position_embeddings=48, dropout=0.0)
BERT = dict(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=48)
VIT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, image_size=16, patch_size=4, num_channels=3)
WHISPER = dict(vocab_size=V, d_model=32, num_mel_bins=8, encoder_layers=1, encoder_attention_heads=4, encoder_ffn_dim=36, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=24,
               max_source_positions=20, max_target_positions=24, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)


def with_gpt2_buffers(ts):
    mask = torch.tril(torch.ones(48, 48, dtype=torch.uint8)).view(1, 1, 48, 48)
    return {**ts, "h.0.attn.bias": mask, "h.0.attn.masked_bias": torch.tensor(-10000.0)}


def gamma_beta(ts):
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {next((k.replace(a, b) for a, b in names.items() if k.endswith(a)), k): v for k, v in ts.items()}


def with_position_ids(ts):
    return {**ts, "embeddings.position_ids": torch.arange(48)[None]}


VARIANTS += [
    longrope("phi3-longrope-long", 16),
    longrope("phi3-longrope-short", 64),
    longrope("phi3-longrope-factors", 16, factor=6.0),
    longrope("phi3-su", 16, rewrite=phi3_early("su"), loadable=phi3_early("longrope"), notes=[SU_NOTE]),
    longrope("phi3-yarn", 16, rewrite=phi3_early("yarn"), notes=["yarn is an early name of longrope here"]),
    Variant("gpt2", t.GPT2Config(**GPT2), t.GPT2LMHeadModel, hidden=True,
            gradients=tuple(f"transformer.h.{i}.{m}" for i in (0, 1) for m in ("attn.c_attn.weight", "attn.c_attn.bias", "mlp.c_proj.weight", "ln_1.weight", "ln_1.bias"))
            + ("transformer.ln_f.weight", "transformer.wte.weight", "transformer.wpe.weight")),
    Variant("gpt2-inverse-layer", t.GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True, n_inner=40, layer_norm_epsilon=1e-2), t.GPT2LMHeadModel, inputs="right",
            contrast=[{"layer_norm_epsilon": 1e-5}, {"scale_attn_by_inverse_layer_idx": False}]),
    Variant("gpt2-bare", t.GPT2Config(**{**GPT2, "n_layer": 1}, n_inner=40), t.GPT2Model, load=t.GPT2LMHeadModel, tensors=with_gpt2_buffers, rewrite=old_spelling,
            ignored=["h.0.attn.bias", "h.0.attn.masked_bias"]),
    Variant("opt", t.OPTConfig(**OPT), t.OPTForCausalLM),
    Variant("opt-post-norm", t.OPTConfig(**OPT, do_layer_norm_before=False, word_embed_proj_dim=16), t.OPTForCausalLM, inputs="right", rewrite=old_spelling),
    Variant("opt-bare", t.OPTConfig(**{**OPT, "num_hidden_layers": 1}, enable_bias=False, layer_norm_elementwise_affine=False), t.OPTModel, load=t.OPTForCausalLM),
    Variant("bert-mlm", t.BertConfig(**BERT), t.BertForMaskedLM, inputs="bert", contrast=[{"hidden_act": "gelu_new"}]),
    Variant("bert-sentence", t.BertConfig(**BERT), t.BertModel, inputs="bert", pool=True, rewrite=old_spelling, tensors=with_position_ids, ignored=["embeddings.position_ids"]),
    Variant("bert-gamma-beta", t.BertConfig(**{**BERT, "num_hidden_layers": 1}, layer_norm_eps=1e-2), t.BertForMaskedLM, inputs="bert", contrast=[{"layer_norm_eps": 1e-12}], tensors=gamma_beta, rewrite=old_spelling),
    Variant("vit", t.ViTConfig(**VIT, num_labels=5), t.ViTForImageClassification, inputs="pixels"),
    Variant("vit-bare", t.ViTConfig(**{**VIT, "num_hidden_layers": 1}, qkv_bias=False), t.ViTModel, inputs="pixels", rewrite=old_spelling),
    Variant("whisper", t.WhisperConfig(**WHISPER), t.WhisperForConditionalGeneration, inputs="mel"),
    Variant("whisper-scale-embedding", t.WhisperConfig(**{**WHISPER, "decoder_layers": 1}, scale_embedding=True), t.WhisperForConditionalGeneration, inputs="mel",
            notes=["WhisperDecoder of transformers 5.23 reads scale_embedding and never uses it: the embeddings are not scaled"]),
]
