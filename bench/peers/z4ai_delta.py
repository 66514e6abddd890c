"""z4ai 0.2.0: compress_delta / decompress_delta with dtype="bf16", the call of its README with the element width given."""
import z4ai
from common import arguments, bench, result

a = arguments()
r = bench(a, lambda base, tuned: z4ai.compress_delta(tuned, reference=base, dtype="bf16", threads=a.threads),
          lambda blob, base: z4ai.decompress_delta(blob, reference=base))
result(**r, version=z4ai.__version__)
