"""ZipNN 0.5.4 for bf16: on the XOR with the base (its own delta option), or standalone when the base is `none`."""
from importlib.metadata import version
from zipnn import ZipNN
from common import arguments, bench, result

a = arguments()
alone = a.base == "none"
options = dict(input_format="byte", bytearray_dtype="bfloat16", threads=a.threads, **({} if alone else dict(delta_compressed_type="byte")))
second = (lambda base: {}) if alone else (lambda base: dict(delta_second_data=base))


def encode(base, tuned):
    # a bytearray of its own: the C extension reorders its input in place
    return bytes(ZipNN(**options).compress(bytes(bytearray(tuned)) if alone else tuned, **second(base)))


def decode(blob, base):
    return bytes(ZipNN(**options).decompress(blob, **second(base)))


result(**bench(a, encode, decode), version=version("zipnn"))
