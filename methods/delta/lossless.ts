/**
 * lossless: order-preserving difference to the base, entropy-coded in the context of the base's exponent and of the
 * local magnitude (pith's own; the coder: kernels/residual, docs/formats/residual.md).
 *
 * Order-preserving differences of floats: Lindstrom and Isenburg, "Fast and Efficient Compression of Floating-Point Data",
 * IEEE TVCG 12(5), 2006. rANS: Duda 2013, arXiv 1311.2540. Byte-plane peers: ZipNN (arXiv 2411.05239), DFloat11 (arXiv 2504.11651).
 *   M(w) = ~w if the sign bit is set, else w | sign;   d = M(tuned) - M(base) mod 2^n;   z = zigzag(d)
 * Without a base the exponents are coded in local context, sign and mantissa stored as they are.
 */
import * as z from 'zod';
import { panelBuffer } from '../../core/panel-buffer.js';
import type { TensorInfo } from '../../core/tensor.js';
import { BlobHead, blobHeadBytes, parseBlobHead } from '../../kernels/residual/blob.js';
import { ResidualCodec, segmentCount, segmentSpan } from '../../kernels/residual/codec.js';
import { residualElements, wordKind } from '../../kernels/residual/words.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import type { Ctx, Method } from '../define.js';
import type { BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';

const PART = 'residual';
/** What rates are estimated from: so many spans of so many words. */
const [SAMPLES, SAMPLE_WORDS] = [4, 1 << 17];
const params = z.strictObject({});

class Lossless implements DeltaCodec {
  readonly lossless = true;
  readonly version = 1;
  /** One point: what it takes, without error. */
  readonly budget: BudgetedCodec = { rates: (c, base, tuned) => this.#rates(c, base, tuned), assign: () => ({}) };
  /** One coder (its wasm memory) for all tensors of a thread. */
  #codec: Promise<ResidualCodec> | undefined;

  accepts(): boolean {
    return true;
  }

  memoryBytes(): number {
    return 64 << 20;
  }

  #coder(): Promise<ResidualCodec> {
    this.#codec ??= ResidualCodec.create();
    return this.#codec;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink): Promise<EncodeInfo> {
    const coder = await this.#coder();
    const elements = residualElements(tuned.dtype, tuned.shape);
    const wordBytes = wordKind(tuned.dtype).width / 8;
    const head = new BlobHead(segmentCount(elements));
    let changed = 0;
    for (let s = 0; s < head.segments; s++) {
      c.checkpointCancel();
      const [from, to] = segmentSpan(elements, s);
      const views = coder.reserve((to - from) * wordBytes);
      await base?.readInto(from * wordBytes, views.base);
      await tuned.readInto(from * wordBytes, views.tuned);
      const segment = coder.encodeSegment(tuned.dtype, to - from, base !== undefined);
      changed += coder.stats.changed;
      await parts.write(PART, head.end, segment);
      head.add(segment.length);
      c.report((to - from) * wordBytes);
    }
    await parts.write(PART, 0, head.bytes());
    parts.declare(PART, 'U8', [head.end]);
    const facts = base === undefined || elements === 0 ? {} : { changed: changed / elements };
    return { identical: base !== undefined && changed === 0, facts };
  }

  /** From evenly spread samples of the words. */
  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource): Promise<RateCurve> {
    const coder = await this.#coder();
    const elements = residualElements(tuned.dtype, tuned.shape);
    const wordBytes = wordKind(tuned.dtype).width / 8;
    const span = Math.min(elements, SAMPLE_WORDS);
    const samples = Math.min(SAMPLES, Math.ceil(elements / Math.max(1, span)));
    let coded = 0;
    for (let s = 0; s < samples; s++) {
      c.checkpointCancel();
      const from = Math.floor((s * (elements - span)) / Math.max(1, samples - 1));
      const views = coder.reserve(span * wordBytes);
      await base.readInto(from * wordBytes, views.base);
      await tuned.readInto(from * wordBytes, views.tuned);
      coded += coder.encodeSegment(tuned.dtype, span, true).length;
    }
    return { bytes: [blobHeadBytes(segmentCount(elements)) + (coded * elements) / Math.max(1, samples * span)], errorSq: [0], deltaSq: 0 };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    const coder = await this.#coder();
    const elements = residualElements(target.dtype, target.shape);
    const wordBytes = wordKind(target.dtype).width / 8;
    const count = segmentCount(elements);
    const total = parts.info(PART).shape[0] ?? 0;
    const spans = parseBlobHead(await parts.read(PART, 0, Math.min(total, blobHeadBytes(count))), total, count);
    for (const [s, span] of spans.entries()) {
      c.checkpointCancel();
      const [from, to] = segmentSpan(elements, s);
      const views = coder.reserve((to - from) * wordBytes);
      await base?.readInto(from * wordBytes, views.base);
      coder.decodeSegment(await readSpan(parts, span), target.dtype, to - from, base !== undefined);
      await out.write(from * wordBytes, views.tuned);
      c.report(views.tuned.length);
    }
  }
}

/** A span in the thread's buffer, valid until the next one. */
async function readSpan(parts: PartSource, [begin, end]: readonly [begin: number, end: number]): Promise<Uint8Array> {
  const buffer = panelBuffer(end - begin, 'span');
  if (buffer.length < end - begin) return parts.read(PART, begin, end);
  await parts.readInto(PART, begin, buffer);
  return buffer;
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'lossless',
  title: 'Order-preserving difference, entropy-coded in the context of the base',
  paper: { cite: 'Lindstrom and Isenburg, IEEE TVCG 12(5), 2006; rANS: Duda 2013', url: 'https://arxiv.org/abs/1311.2540' },
  params,
  create(raw) {
    parseParams('lossless', params, raw);
    return new Lossless();
  },
};
export default method;
