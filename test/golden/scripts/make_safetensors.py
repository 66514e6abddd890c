"""Writes the reference files that test/formats/safetensors compares with, byte for byte.

    pip install torch==2.13.0 numpy safetensors==0.8.0
    python make_safetensors.py ../safetensors
"""
import ctypes, json, sys
import numpy as np
import safetensors
from safetensors import TensorSpec, serialize

out = sys.argv[1]
DT = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "I16": "int16", "U16": "uint16",
      "F16": "float16", "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32", "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64"}
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "C64": 8, "F64": 8, "I64": 8, "U64": 8}


def data(n, seed):
    return bytes((i * 37 + seed * 11) & 255 for i in range(n))


def case(name, tensors, metadata=None):
    keep, spec = [], {}
    for i, (k, d, s) in enumerate(tensors):
        n = int(np.prod(s, dtype=int)) * BYTES[d]
        keep.append(ctypes.create_string_buffer(data(n, i), max(n, 1)))
        spec[k] = TensorSpec(dtype=DT[d], shape=s, data_ptr=ctypes.addressof(keep[-1]), data_len=n)
    open(f"{out}/{name}.safetensors", "wb").write(serialize(spec, metadata))
    return {"name": name, "metadata": metadata, "tensors": [{"name": k, "dtype": d, "shape": s, "seed": i} for i, (k, d, s) in enumerate(tensors)]}


cases = [
    case("empty", []),
    case("dtypes", [(f"t.{d}", d, [3, 2]) for d in DT]),
    case("names", [(n, "F32", [1]) for n in ["b", "a", "\U0001F600", "\uffee", "é", "a\"b\\c\n\t\u0001", "__proto__", "10", "9", ""]]),
    case("shapes", [("scalar", "F32", []), ("zero", "BF16", [0, 7]), ("row", "BF16", [1, 5]), ("cube", "U8", [2, 3, 5]), ("odd", "U8", [1])]),
    case("metadata", [("w", "BF16", [4, 4])], {"format": "pt"}),
]
json.dump({"package": f"safetensors {safetensors.__version__}", "tolerance": "equal bytes", "script": "make_safetensors.py", "cases": cases}, open(f"{out}/cases.json", "w"), indent=1, ensure_ascii=False)
