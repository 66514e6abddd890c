"""zstd on the XOR of the two checkpoints, or on the checkpoint alone when the base is `none`."""
import zstandard
from common import arguments, bench, result, xor

a = arguments()
alone = a.base == "none"


def encode(base, tuned):
    c = zstandard.ZstdCompressor(level=a.level, threads=a.threads if a.threads > 1 else 0)
    return c.compress(tuned if alone else xor(base, tuned))


def decode(blob, base):
    d = zstandard.ZstdDecompressor().decompress(blob)
    return d if alone else xor(base, d)


result(**bench(a, encode, decode), version=zstandard.ZSTD_VERSION and ".".join(map(str, zstandard.ZSTD_VERSION)), level=a.level)
