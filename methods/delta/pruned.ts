/**
 * pruned: a matrix with many zeros, alone: which words are kept, and what they are (pith's own; the coder: kernels/pruned,
 * docs/formats/sparse.md). Lossless: the word +0 is what the mask leaves out, every other one comes back bit for bit, -0 and NaN too.
 *
 * rANS: Duda 2013, arXiv 1311.2540. Patterns of N:M groups (Mishra et al. 2021, arXiv 2104.08378) are found, not asked for.
 *   mask:    each word's bit, or each group's pattern, in the context of (class of the row, class of the column)
 *   values:  magnitude >> low bits as a token in such a context (8 tokens an octave); sign and low bits as they are
 */
import * as z from 'zod';
import { elementCount, rowCount, rowLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { isDense } from '../../kernels/lowrank/panel.js';
import { headsFor, noSums, PrunedCoder, segmentRows, wordBytes, type MatrixSums } from '../../kernels/pruned/coder.js';
import { readMaskHead, readValueHead, writeMaskHead, writeValueHead } from '../../kernels/pruned/heads.js';
import { SEGMENT_WORDS } from '../../kernels/pruned/memory.js';
import { BlobHead, blobHeadBytes, parseBlobHead } from '../../kernels/residual/blob.js';
import { DECLINED } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { malformed } from '../restore-panels.js';

const [MASK, VALUES] = ['mask', 'values'] as const;

const params = z.strictObject({
  zeros: z.number().min(0).max(1).default(0.02).describe('least share of zeros: matrices with fewer are coded losslessly as they are'),
});
type Params = z.infer<typeof params>;

class Pruned implements DeltaCodec {
  readonly lossless = true;
  readonly version = 1;
  readonly standalone = true;
  #coder: Promise<PrunedCoder> | undefined;

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    return isMatrix(plan);
  }

  memoryBytes(): number {
    return 64 << 20;
  }

  #codec(): Promise<PrunedCoder> {
    this.#coder ??= PrunedCoder.create();
    return this.#coder;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink): Promise<EncodeInfo> {
    const { dtype } = tuned;
    if (base !== undefined || !isMatrix(tuned) || !isDense(dtype)) return DECLINED;
    const coder = await this.#codec();
    const [m, n] = [rowCount(tuned.shape), rowLength(tuned.shape)];
    const rows = segmentRows(n);
    const spans = Array.from({ length: Math.ceil(m / rows) }, (_, s): [number, number] => [s * rows, Math.min(m, (s + 1) * rows)]);
    const load = async ([from, to]: readonly [number, number]): Promise<void> => {
      c.checkpointCancel();
      await tuned.readInto(from * n * wordBytes(dtype), coder.reserve(dtype, (to - from) * n));
      coder.load(dtype, to - from, n);
    };
    let sums: MatrixSums = noSums(n);
    for (const span of spans) {
      await load(span);
      sums = coder.addSums(sums, span[1] - span[0], n);
    }
    const heads = headsFor(sums, dtype);
    if (1 - heads.kept / (m * n) < this.p.zeros) return DECLINED;
    const [mask, values] = [new Blob(parts, MASK, spans.length), new Blob(parts, VALUES, spans.length)];
    await mask.add(writeMaskHead(heads.mask));
    await values.add(writeValueHead(heads.values));
    for (const span of spans) {
      // the only segment is still there
      if (spans.length > 1) await load(span);
      const count = span[1] - span[0];
      await mask.add(coder.encodeMask(heads.mask, count, n));
      await values.add(coder.encodeValues(heads.values, dtype, count, n));
      c.report(count * n * wordBytes(dtype));
    }
    if ((await mask.finish()) + (await values.finish()) >= tuned.byteLength) return DECLINED;
    const { patterns } = heads.mask;
    const structure = patterns === undefined ? 'unstructured' : `${patterns.keep}:${patterns.of}`;
    return { identical: false, facts: { sparsity: 1 - heads.kept / (m * n), structure } };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    const { dtype } = target;
    if (base !== undefined || !isMatrix(target) || !isDense(dtype)) throw malformed(MASK, 'a float matrix without a base', `${dtype} [${target.shape.join()}]`);
    const [m, n] = [rowCount(target.shape), rowLength(target.shape)];
    const rows = segmentRows(n);
    const count = Math.ceil(m / rows);
    const coder = await this.#codec();
    const [maskSpans, valueSpans] = [await spansOf(parts, MASK, 1 + count), await spansOf(parts, VALUES, 1 + count)];
    const maskHead = readMaskHead(await parts.read(MASK, ...maskSpans[0]!), n);
    const valueHead = readValueHead(await parts.read(VALUES, ...valueSpans[0]!), n);
    for (let s = 0; s < count; s++) {
      c.checkpointCancel();
      const own = Math.min(rows, m - s * rows);
      const kept = coder.decodeMask(await parts.read(MASK, ...maskSpans[1 + s]!), maskHead, own, n);
      const words = coder.decodeValues(await parts.read(VALUES, ...valueSpans[1 + s]!), valueHead, dtype, own, n, kept);
      await out.write(s * rows * n * wordBytes(dtype), words);
      c.report(words.length);
    }
  }
}

/** Two dimensions or more, rows that fit a segment. */
function isMatrix({ dtype, shape }: TensorInfo): boolean {
  return isDense(dtype) && shape.length >= 2 && elementCount(shape) > 0 && rowLength(shape) <= SEGMENT_WORDS;
}

/** One part: its head, then a piece for every segment. */
class Blob {
  readonly #head: BlobHead;

  constructor(
    private readonly parts: PartSink,
    private readonly part: string,
    segments: number,
  ) {
    this.#head = new BlobHead(1 + segments);
  }

  async add(piece: Uint8Array): Promise<void> {
    await this.parts.write(this.part, this.#head.end, piece);
    this.#head.add(piece.length);
  }

  async finish(): Promise<number> {
    await this.parts.write(this.part, 0, this.#head.bytes());
    this.parts.declare(this.part, 'U8', [this.#head.end]);
    return this.#head.end;
  }
}

async function spansOf(parts: PartSource, part: string, pieces: number): Promise<[begin: number, end: number][]> {
  const { dtype, shape } = parts.info(part);
  if (dtype !== 'U8' || shape.length !== 1) throw malformed(part, 'U8 [bytes]', `${dtype} [${shape.join()}]`);
  const total = shape[0]!;
  return parseBlobHead(await parts.read(part, 0, Math.min(total, blobHeadBytes(pieces))), total, pieces);
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'pruned',
  title: 'A pruned matrix without a base: mask and kept values, entropy-coded',
  paper: {
    cite: 'masks and patterns: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021; rANS: Duda 2013',
    url: 'https://arxiv.org/abs/2104.08378',
  },
  params,
  create: (raw) => new Pruned(parseParams('pruned', params, raw)),
};
export default method;
