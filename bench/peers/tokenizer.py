"""transformers' fast tokenizer on one text: tokenizer.py FOLDER TEXT IDS [--repeat 3]; writes the ids as int32 and prints one JSON line."""
import argparse, json, time
import numpy as np, tokenizers, transformers
from common import timed
from transformers import AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("folder"); ap.add_argument("text"); ap.add_argument("ids"); ap.add_argument("--repeat", type=int, default=3)
a = ap.parse_args()
transformers.logging.set_verbosity_error()
text = open(a.text, encoding="utf-8", newline="").read()
start = time.perf_counter(); tok = AutoTokenizer.from_pretrained(a.folder); load = time.perf_counter() - start
seconds, ids = timed(a.repeat, lambda: tok(text)["input_ids"])
np.array(ids, np.int32).tofile(a.ids)
print(json.dumps({"encodeS": seconds, "loadS": load, "vocabSize": len(tok), "decoded": tok.decode(ids) == text, "tokenizers": tokenizers.__version__, "transformers": transformers.__version__}))
