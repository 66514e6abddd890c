"""Writes test/golden/tokenizer/*.json: small tokenizers of the published kinds, and what transformers makes of awkward text with them.

    pip install transformers==5.23.0 tokenizers==0.23.3 sentencepiece==0.2.3
    python scripts/golden/tokenizer.py test/golden/tokenizer

Each file holds one tokenizer (tokenizer.json, tokenizer_config.json as `tokenizer`, `config`) or names a folder of the repository, and `cases`:
text, its ids with and without special tokens, with special tokens in the text taken as text, and what both decodings make of the ids.
Ids and text are compared exactly: there is no tolerance.
"""
import base64, json, os, sys, tempfile
import sentencepiece, tokenizers, transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

out = sys.argv[1]
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
os.makedirs(out, exist_ok=True)

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The dog sleeps, the fox runs; it's 1,234 miles to there and we'll see what they've done!",
    "A farmer has 12 cows and buys 7 more. How many cows does he have? He has 12 + 7 = 19 cows.",
    "def f(x):\n    if x > 0:\n        return x * 2\n\treturn -x  # done\n",
    "Caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00fcber stra\u00dfe \u0141\u00f3d\u017a \u0395\u03bb\u03bb\u03ac\u03b4\u03b1 \u0420\u043e\u0441\u0441\u0438\u044f \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002 \ud55c\uad6d\uc5b4 \ubb38\uc7a5",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1e9\U0001f1ea",
] * 3

TEXTS = [
    "", " ", "  ", "a", " a", "a ", "\n", "\n\n", "\r\n", "a\n\n\nb", "a \n b", " \t\n ", "\u00a0", "a\u00a0b", "a\u0085b", "a\ufeffb", "\ufeff", "a\u200bb", "a\u2028b", "a\u3000b", "a\x1cb", "a\x0bb",
    "\x00", "a\x00b", "\x07bell", "\x7f", "\u00ad", "\ufffd", "\ue000", "\u0378", "\U000e0001",
    "The dog isn't here, it's there; I'll go, you'd stay, WE'VE DONE IT'S", "don't  do   that", "Hello   world    ", "   leading", "trailing   ", "a b  c   d    e",
    "12345678901234567890", "3.14159e-10", "1,234,567.89", "\u0661\u0662\u0663 \u0967\u0968\u0969", "\u00b2\u00b3\u00bd\u2167", "x\u00b2+y\u00b2", "2\u00b3",
    "Caf\u00e9 cafe\u0301 CAF\u00c9", "\u00c5ngstr\u00f6m A\u030angstro\u0308m", "\ufb01 \uff21\uff22\uff23 \u2460 \u2122", "\u1e9b\u0323", "stra\u00dfe STRASSE \u1e9e", "\u0130stanbul I\u0307", "\u039f\u0394\u039f\u03a3 \u03bf\u03b4\u03cc\u03c2 \u03a3", "na\u00efve fa\u00e7ade",
    "\u4f60\u597d\u4e16\u754c", "\u4f60\u597d world", "\U00020000\U0002a6d6\U0002b820\U0002b920", "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8", "\ud55c\uad6d\uc5b4", "\u1112\u1161\u11ab",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "\U0001f44d\U0001f3fd", "e\u0301\u0302\u0303", "\u0e01\u0e33", "\u0928\u093f",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645", "\u05e9\u05dc\u05d5\u05dd", "\u202eabc\u202c", "a_b __init__ snake_case camelCase", "#hashtag @user $100 50% ^caret ~tilde `tick` |pipe| {brace} [x] <y>",
    "http://example.com/a?b=c&d=e#f", "a...b!!!c???", "\u2014em\u2014dash\u2013en \u201cquotes\u201d \u2018single\u2019 \u2026", "\u00a3\u20ac\u00a5 \u2260 \u2264 \u221e",
    "def f(x):\n    return x\n\n\nclass A:\n\tpass\n", "a\tb\t\tc", "\ta", "x" * 120, "ab" * 70, "\u2581", "a\u2581b", "\u2581\u2581 a", " \u2581 ", "<0x0A>", "\u0120hello", "##ing",
    "<s>", "</s>", "<s>a</s>", "a<s> b </s>c", "[CLS] a [SEP]", "[MASK]", "a [MASK] b", "a[MASK]b", "  [MASK]  ", "<mask>", "a <mask> b", "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nHi<|im_end|>\n",
    "<|endoftext", "<|endoftext|><|endoftext|>", "<pad><unk>", "WORD word words Word.", "a\u00abword\u00bbb", "wordword word1 1word word-word", "<tool> x </tool>", "a<tool>b", "a  <tool>  b",
    "Question: A farmer has 12 cows.\nAnswer: 19\n", "\u00e9word caf\u00e9_word", "do not worry , it is 's fine ' ok '",
]


def train(model, trainer, normalizer=None, pre=None, post=None, decoder=None):
    t = Tokenizer(model)
    if normalizer is not None: t.normalizer = normalizer
    if pre is not None: t.pre_tokenizer = pre
    t.train_from_iterator(CORPUS, trainer)
    if post is not None: t.post_processor = post(t)
    if decoder is not None: t.decoder = decoder
    return t


def bpe(**k):
    return trainers.BpeTrainer(vocab_size=k.pop("vocab_size", 420), show_progress=False, **k)


BYTES = pre_tokenizers.ByteLevel.alphabet()
byte_level = lambda **k: pre_tokenizers.ByteLevel(add_prefix_space=False, **k)
template = lambda single, *names: lambda t: processors.TemplateProcessing(single=single, special_tokens=[(n, t.token_to_id(n)) for n in names])
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def smollm2():
    t = train(models.BPE(), bpe(special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], initial_alphabet=BYTES),
              pre=pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]), decoder=decoders.ByteLevel())
    return t, dict(bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>", pad_token="<|im_end|>")


def llama3():
    t = train(models.BPE(ignore_merges=True), bpe(special_tokens=["<s>", "</s>"], initial_alphabet=BYTES),
              pre=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4), "isolated"), byte_level(use_regex=False)]),
              post=lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<s> $A", "<s>")(t)]), decoder=decoders.ByteLevel())
    return t, dict(bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=True)


def qwen2():
    t = train(models.BPE(), bpe(special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], initial_alphabet=BYTES), normalizers.NFC(),
              pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), byte_level(use_regex=False)]), decoder=decoders.ByteLevel())
    t.add_tokens([AddedToken("<tool>", normalized=False, special=False), AddedToken("</tool>", normalized=False, special=False)])
    return t, dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=["<|im_start|>", "<|im_end|>"])


def o200k():
    t = train(models.BPE(), bpe(initial_alphabet=BYTES),
              pre=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(O200K), "removed", invert=True), byte_level(use_regex=False)]), decoder=decoders.ByteLevel())
    # named, and in no vocabulary: it is added
    return t, dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def deepseek():
    t = train(models.BPE(), bpe(special_tokens=["<s>", "</s>"], initial_alphabet=BYTES),
              pre=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.Split(Regex("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), "isolated"),
                                           pre_tokenizers.Split(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
                                           byte_level(use_regex=False)]),
              post=template("<s> $A </s>", "<s>", "</s>"), decoder=decoders.ByteLevel())
    return t, dict(bos_token="<s>", eos_token="</s>")


def roberta():
    t = train(models.BPE(), bpe(special_tokens=["<s>", "<pad>", "</s>", "<unk>"], initial_alphabet=BYTES), pre=pre_tokenizers.ByteLevel(add_prefix_space=True),
              post=lambda t: processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>"))), decoder=decoders.ByteLevel())
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=False, normalized=False)])
    return t, dict(bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")


def byte_tokens(t):
    """The 256 byte tokens behind the special ones, as SentencePiece orders them."""
    j = json.loads(t.to_str()); vocab = sorted(j["model"]["vocab"].items(), key=lambda e: e[1]); names = [v for v, _ in vocab]
    names = names[:3] + [f"<0x{b:02X}>" for b in range(256)] + [n for n in names[3:]]
    j["model"]["vocab"] = {n: i for i, n in enumerate(names)}
    return Tokenizer.from_str(json.dumps(j))


def llama2():
    t = train(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"), bpe(special_tokens=["<unk>", "<s>", "</s>"], limit_alphabet=60),
              normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]), pre_tokenizers.Split(" ", "removed"),
              decoder=decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))
    j = json.loads(byte_tokens(t).to_str()); j["pre_tokenizer"] = None; t = Tokenizer.from_str(json.dumps(j))
    t.post_processor = template("<s> $A", "<s>")(t)
    return t, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False, add_bos_token=False)


def gemma():
    t = train(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"), bpe(special_tokens=["<unk>", "<s>", "</s>"], limit_alphabet=60),
              normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(" ", "merged_with_previous"),
              decoder=decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]))
    t = byte_tokens(t); t.post_processor = template("<s> $A", "<s>")(t)
    t.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("\n\n\n", normalized=False), AddedToken("    ", normalized=False), AddedToken("<tool>", normalized=True, rstrip=True)])
    return t, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bpe_unk():
    """Without bytes to fall back on: unknown characters, fused in one word and not beyond it."""
    t = train(models.BPE(fuse_unk=True, unk_token="<unk>"), bpe(special_tokens=["<unk>"], limit_alphabet=30), pre=pre_tokenizers.Metaspace(prepend_scheme="first"), decoder=decoders.Metaspace(prepend_scheme="first"))
    return t, dict(unk_token="<unk>")


def bpe_unk_apart():
    t = train(models.BPE(fuse_unk=False, unk_token="<unk>"), bpe(special_tokens=["<unk>"], limit_alphabet=30), pre=pre_tokenizers.Metaspace(prepend_scheme="never", split=False), decoder=decoders.Metaspace(prepend_scheme="never"))
    return t, dict(unk_token="<unk>")


def clip():
    t = train(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"), bpe(special_tokens=["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>", initial_alphabet=BYTES),
              normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
              pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True), byte_level()]),
              post=lambda t: processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), add_prefix_space=False), decoder=decoders.BPEDecoder("</w>"))
    return t, dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")


def spm_charsmap():
    """A few rules of our own in SentencePiece's compiled form: its own table is too large for a fixture."""
    with tempfile.TemporaryDirectory() as d:
        rules = [("FB01", "66 69"), ("FF21", "41"), ("FF22", "42"), ("2460", "31"), ("00A0", "20"), ("3000", "20"), ("65 0301", "E9"), ("00AD", ""), ("2026", "2E 2E 2E"), ("0045", "65"), ("0041 030A", "C5")]
        open(f"{d}/r.tsv", "w").write("".join(f"{a}\t{b}\n" for a, b in rules))
        open(f"{d}/c.txt", "w").write("\n".join(CORPUS))
        sentencepiece.SentencePieceTrainer.train(input=f"{d}/c.txt", model_prefix=f"{d}/m", vocab_size=300, normalization_rule_tsv=f"{d}/r.tsv", minloglevel=2, hard_vocab_limit=False)
        from sentencepiece import sentencepiece_model_pb2 as pb
        m = pb.ModelProto(); m.ParseFromString(open(f"{d}/m.model", "rb").read())
        return m.normalizer_spec.precompiled_charsmap, [(p.piece, p.score) for p in m.pieces]


def unigram():
    charsmap, pieces = spm_charsmap()
    t = Tokenizer(models.Unigram(pieces, unk_id=0))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "\u2581")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always"); t.decoder = decoders.Metaspace(prepend_scheme="always")
    t.post_processor = template("$A </s>", "</s>")(t)
    t.add_special_tokens(["<pad>"])
    return t, dict(eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def unigram_bytes():
    charsmap, pieces = spm_charsmap()
    t = Tokenizer(models.Unigram(pieces[:3] + [(f"<0x{b:02X}>", 0.0) for b in range(256)] + pieces[3:], unk_id=0, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always", split=False)])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return t, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bert(**k):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t = train(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(vocab_size=360, special_tokens=specials, show_progress=False, limit_alphabet=90), normalizers.BertNormalizer(**k),
              pre_tokenizers.BertPreTokenizer(), template("[CLS] $A [SEP]", "[CLS]", "[SEP]"), decoders.WordPiece(cleanup=not k))
    return t, dict(unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]", clean_up_tokenization_spaces=bool(k))


def word_level():
    t = train(models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]"], show_progress=False),
              normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
              pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Punctuation(behavior="contiguous")]))
    # a token that must be a word of its own, one that swallows space on both sides, one matched after lowercasing
    t.add_tokens([AddedToken("word", single_word=True), AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False), AddedToken("QUESTION")])
    return t, dict(unk_token="[UNK]", cls_token="[CLS]")


def merges():
    """Split behaviours that the published ones leave out."""
    t = train(models.BPE(), bpe(initial_alphabet=BYTES),
              pre=pre_tokenizers.Sequence([pre_tokenizers.Split(".", "merged_with_previous"), pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.CharDelimiterSplit("|"), pre_tokenizers.FixedLength(9), byte_level(use_regex=False)]), decoder=decoders.ByteLevel())
    return t, dict(pad_token="<pad>", extra_special_tokens=["<tool>"])


def special_map():
    """special_tokens_map.json beside a configuration that declares no tokens: it decides."""
    t, _ = llama3()
    return t, dict(bos_token="<s>", eos_token="</s>"), {"bos_token": {"content": "</s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}, "pad_token": "<pad>", "additional_special_tokens": ["<tool>"]}


def declared():
    """A configuration that declares tokens: they change the tokenizer's, and special_tokens_map.json is not read."""
    t, _ = llama3()
    token = lambda content, **k: {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **k}
    return t, dict(bos_token="<s>", eos_token="</s>", added_tokens_decoder={"0": token("<s>", lstrip=True), "1": token("</s>"), "420": token("<tool>", rstrip=True, special=False), "421": token("word", single_word=True, special=False)}), {"bos_token": "</s>"}


KINDS = {"special-map": special_map, "declared": declared, "smollm2": smollm2, "llama3": llama3, "qwen2": qwen2, "o200k": o200k, "deepseek": deepseek, "roberta": roberta, "llama2": llama2, "gemma": gemma, "bpe-unk": bpe_unk, "bpe-unk-apart": bpe_unk_apart,
         "clip": clip, "unigram": unigram, "unigram-bytes": unigram_bytes, "bert-uncased": bert, "bert-cased": lambda: bert(lowercase=False, strip_accents=False), "word-level": word_level, "split-behaviours": merges}
VERSIONS = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__}


def cases(tok, texts=TEXTS):
    rows = []
    for text in texts:
        plain = tok(text, add_special_tokens=False)["input_ids"]; ids = tok(text)["input_ids"]
        rows.append({"text": text, "ids": ids, **({"plain": plain} if plain != ids else {}),
                     **({"asText": s} if (s := tok(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) != plain else {}),
                     **({"decoded": d} if (d := tok.decode(ids)) != text else {}), **({"skipped": d} if (d := tok.decode(ids, skip_special_tokens=True)) != tok.decode(ids) else {})})
    return rows


def write(name, tok, extra):
    special = {n: i for n in ("bos", "eos", "unk", "sep", "pad", "cls", "mask") if (i := getattr(tok, f"{n}_token_id")) is not None}
    doc = {"versions": VERSIONS, "script": "scripts/golden/tokenizer.py", **extra, "special": special, "vocabSize": len(tok), "cases": cases(tok)}
    with open(f"{out}/{name}.json", "w", encoding="utf-8") as f:
        head = {k: v for k, v in doc.items() if k != "cases"}
        f.write(json.dumps(head, ensure_ascii=True)[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(c, ensure_ascii=True) for c in doc["cases"]) + "\n]}\n")
    print(name, len(tok), os.path.getsize(f"{out}/{name}.json"))


if __name__ == "__main__":
    for name, kind in KINDS.items():
        t, config, *rest = kind()
        with tempfile.TemporaryDirectory() as d:
            t.save(f"{d}/tokenizer.json"); json.dump({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, open(f"{d}/tokenizer_config.json", "w"))
            if rest: json.dump(rest[0], open(f"{d}/special_tokens_map.json", "w"))
            tok = PreTrainedTokenizerFast.from_pretrained(d)
            write(name, tok, {"tokenizer": json.loads(t.to_str()), "config": config, **({"specialTokensMap": rest[0]} if rest else {})})
    write("tiny", AutoTokenizer.from_pretrained(os.path.join(root, "examples/tiny/base")), {"folder": "examples/tiny/base"})
