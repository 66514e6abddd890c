"""Writes test/golden/windows.json: the windows, pairs and counts of lm-evaluation-harness.

    pip install lm-eval==0.4.13 transformers==5.23.0
    python scripts/golden/windows.py test/golden/windows.json

Token ids and counts are compared exactly.
"""
import json, os, re, sys, tempfile
import importlib.metadata
import transformers
from lm_eval.api.model import TemplateLM
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer
from lm_eval.utils import get_rolling_token_windows
from transformers import AutoTokenizer, PreTrainedTokenizerFast

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
tiny = AutoTokenizer.from_pretrained(os.path.join(root, "examples/tiny/base"))


def golden(name):
    g = json.load(open(os.path.join(root, f"test/golden/tokenizer/{name}.json"), encoding="utf-8"))
    with tempfile.TemporaryDirectory() as d:
        json.dump(g["tokenizer"], open(f"{d}/tokenizer.json", "w")); json.dump({**g["config"], "tokenizer_class": "PreTrainedTokenizerFast"}, open(f"{d}/tokenizer_config.json", "w"))
        return PreTrainedTokenizerFast.from_pretrained(d)


class Encoder:
    """What TemplateLM._encode_pair needs of a causal model."""
    backend = "causal"

    def __init__(self, tok): self.tok = tok
    def tok_encode(self, string, **k): return self.tok.encode(string, **k)


rolling = [{"tokens": n, "maxSeqLen": m, "contextLen": c, "windows": [list(w) for w in get_rolling_token_windows(list(range(100, 100 + n)), 7, m, c)]}
           for n, m, c in [(0, 4, 1), (1, 4, 1), (4, 4, 1), (5, 4, 1), (10, 4, 1), (13, 4, 1), (10, 4, 2), (11, 5, 3), (9, 4, 4), (3, 8, 1), (6, 1, 1)]]
PAIRS = [("Question: How many?\nAnswer:", " 12"), ("Question: How many? ", "twelve cows"), ("The farmer has ", " 12"), ("cow", "s are"), ("a\n", "\n b"), ("caf\u00e9  \n", "x"), ("He buys 7", "0 more")]
pairs = [{"tokenizer": name, "context": c, "continuation": k, "ids": [list(x) for x in TemplateLM._encode_pair(Encoder(tok), c, k)]}
         for name, tok in (("tiny", tiny), ("llama3", golden("llama3")), ("llama2", golden("llama2"))) for c, k in PAIRS]
PAGES = [
    " = Robert Boulter = \n \n Robert Boulter is an English film , television and theatre actor . He had a guest @-@ starring role in 2000 . \n",
    "It sold 1 @,@ 234 @.@ 5 copies ( about half ) ; they said : \" yes , it does \" ! Why ? [ 1 ] { x } \n = = Career = = \n = = = Early = = = \n",
    "The dogs ' dinner ' s 'quoted words ' and 30 \u00b0 C , N people ' t it 's\n\n caf\u00e9\u00a0\u4f60\u597d  x\x1cy",
    "", " ", "word", "\na\tb\r\nc ", "(a ( b ) c )  ' ' \" \" [ ] { }", "/' 5/ and = = = = four",
]
pages = [{"page": p, "text": wikitext_detokenizer({"page": p}), "words": process_results({"page": p}, (0,))["word_perplexity"][1], "bytes": process_results({"page": p}, (0,))["byte_perplexity"][1]} for p in PAGES]
doc = {"versions": {"lm-eval": importlib.metadata.version("lm_eval"), "transformers": transformers.__version__}, "script": "scripts/golden/windows.py", "rolling": rolling, "pairs": pairs, "pages": pages}
json.dump(doc, open(sys.argv[1], "w"))
