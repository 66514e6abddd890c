"""What the golden scripts share: seeds, tiny random weights, files, the note of what made them."""
import json, os, warnings, zlib
import torch, transformers
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../test/golden")
TOLERANCE = 2e-4
MADE_BY = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "dtype": "float32", "device": "cpu", "attention": "eager"}


def generator(name):
    """A seed of its own for every name: adding a case changes no other."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def normal(g, *shape):
    return torch.randn(*shape, generator=g)


def write_json(path, value):
    """One key a line, and one case a line."""
    lines = lambda d, indent: "{\n" + ",\n".join(f"{indent} {json.dumps(k)}: {lines(v, indent + ' ') if k == 'cases' else json.dumps(v)}" for k, v in d.items()) + f"\n{indent}}}"
    with open(path, "w") as f:
        f.write(lines(value, "") + "\n")


def write_tensors(path, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def max_difference(a, b):
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)
