/**
 * sparse: the largest values of the residual, the others left at the base: the trim step of "TIES-Merging: Resolving Interference When
 * Merging Models", Prateek Yadav et al., 2023, https://arxiv.org/abs/2306.01708, per tensor.
 *
 *   D = f32(W1) - f32(W0);   kept: the floor(density m n) values of largest |D| (ties: lower index), or |D| >= threshold
 *   values bf16:  W1' = round(f32(W0) + bf16(D)) where kept;     values exact:  W1' = W1, bit for bit, where kept;     else W0
 * `exact` without density and threshold keeps every word that changed, as weight updates of reinforcement learning are sent: then the
 * tensor is restored exactly, whatever its values. Positions are a mask of bytes 0 and 1 through the residual coder
 * (kernels/residual, docs/formats/residual.md): gaps where few are kept, ones in context where many are.
 * Longer than other methods: differences and exact words are two kinds of value behind one index.
 */
import * as z from 'zod';
import { DTYPES } from '../../core/dtype.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { elementCount } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { isDense } from '../../kernels/lowrank/panel.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { BlobHead, blobHeadBytes, parseBlobHead } from '../../kernels/residual/blob.js';
import { ResidualCodec, segmentCount, segmentSpan } from '../../kernels/residual/codec.js';
import { addWhereMarked, countMarked, gather, gatherF32, leftBy, markChanged, scatter } from '../../kernels/sparse/scatter.js';
import { atLeast, marker, topK, type Selection } from '../../kernels/sparse/top-k.js';
import { DECLINED, DeltaMatrix } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { malformed, requireBase } from '../restore-panels.js';

const DEFAULT_DENSITY = 0.05;
/** Densities of a rate curve: 0, then 2^-12 to 1 in half octaves. */
const CURVE = { first: -12, perOctave: 2, points: 26 } as const;
const densityAt = (point: number): number => (point === 0 ? 0 : Math.min(1, 2 ** (CURVE.first + (point - 1) / CURVE.perOctave)));
/** A curve ends where it costs this many times the share that the model may take on average. */
const HEADROOM = 4;
/** Segments whose masks are coded to learn what positions cost. */
const SAMPLE_SEGMENTS = 4;

const params = z
  .strictObject({
    density: z.number().gt(0).max(1).optional().describe('share of the values that is kept (default 0.05; with exact values: all that changed)'),
    threshold: z.number().positive().optional().describe('keep |D| of at least this instead'),
    values: z.enum(['bf16', 'exact']).default('bf16').describe('bf16: the rounded difference; exact: the tuned bits'),
  })
  .refine((p) => p.density === undefined || p.threshold === undefined, 'give density or threshold, not both');
type Params = z.infer<typeof params>;

class Sparse implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned, share) => this.#rates(c, base, tuned, share),
    assign: (point) => ({ density: densityAt(point) }),
  };
  readonly #matrix = new DeltaMatrix();
  #coder: Promise<ResidualCodec> | undefined;

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    const whole = this.p.values === 'exact' && this.p.density === undefined && this.p.threshold === undefined;
    return plan.hasBase && isDense(plan.dtype) && elementCount(plan.shape) > 0 && (whole || plan.shape.length >= 2);
  }

  memoryBytes(plan: TensorPlan): number {
    return (96 << 20) + 4 * elementCount(plan.shape);
  }

  #codec(): Promise<ResidualCodec> {
    this.#coder ??= ResidualCodec.create();
    return this.#coder;
  }

  /** Undefined: every changed word, by its bits. */
  #selection(delta: Float32Array, assigned: Assigned): Selection | undefined {
    const density = assigned['density'] ?? this.p.density;
    if (density === undefined && this.p.threshold !== undefined) return atLeast(this.p.threshold);
    if (density === undefined && this.p.values === 'exact') return undefined;
    const chosen = topK(delta, Math.floor((density ?? DEFAULT_DENSITY) * delta.length));
    // never values that did not change
    return chosen.bits === 0 ? atLeast(0) : chosen;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned): Promise<EncodeInfo> {
    if (base === undefined || !isDense(tuned.dtype)) return DECLINED;
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { identical: true, facts: {} };
    const selection = this.#selection(delta, assigned);
    if (selection !== undefined && !Number.isFinite(norm)) return DECLINED;
    const width = DTYPES[tuned.dtype].bits / 8;
    const valueType = this.p.values === 'exact' ? tuned.dtype : 'BF16';
    const mark = selection === undefined ? undefined : marker(selection);
    const coder = await this.#codec();
    const head = new BlobHead(segmentCount(delta.length));
    let kept = 0;
    for (let s = 0; s < head.segments; s++) {
      c.checkpointCancel();
      const [from, to] = segmentSpan(delta.length, s);
      const stored = new Uint8Array((to - from) * width);
      await tuned.readInto(from * width, stored);
      const mask = coder.reserve(to - from);
      mask.base.fill(0);
      let chosen: number;
      if (mark === undefined) {
        const before = new Uint8Array(stored.length);
        await base.readInto(from * width, before);
        chosen = markChanged(before, stored, width, mask.tuned);
      } else chosen = mark(delta.subarray(from, to), mask.tuned);
      const values =
        this.p.values === 'exact' ? gather(stored, mask.tuned, chosen, width) : encodeAs('BF16', gatherF32(delta.subarray(from, to), mask.tuned, chosen));
      await parts.write('values', kept * (DTYPES[valueType].bits / 8), values);
      kept += chosen;
      const segment = coder.encodeSegment('U8', to - from, true);
      await parts.write('index', head.end, segment);
      head.add(segment.length);
    }
    await parts.write('index', 0, head.bytes());
    parts.declare('index', 'U8', [head.end]);
    parts.declare('values', valueType, [kept]);
    if (head.end + (kept * DTYPES[valueType].bits) / 8 >= tuned.byteLength) return DECLINED;
    return { identical: false, facts: { density: kept / delta.length } };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource, share: number): Promise<RateCurve> {
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    if (!Number.isFinite(norm) || !isDense(tuned.dtype)) return { bytes: [tuned.byteLength], errorSq: [0], deltaSq: 0 };
    const width = this.p.values === 'exact' ? DTYPES[tuned.dtype].bits / 8 : 2;
    const [bytes, errorSq]: [number[], number[]] = [[], []];
    for (let point = 0; point < CURVE.points; point++) {
      c.checkpointCancel();
      const selection = this.#selection(delta, { density: densityAt(point) })!;
      const { kept, errorSq: error } = leftBy(delta, selection, norm, this.p.values === 'exact');
      bytes.push((await this.#indexBytes(delta, selection)) + kept * width);
      errorSq.push(Math.min(error, errorSq.at(-1) ?? norm));
      if (kept < Math.floor(densityAt(point) * delta.length) || bytes.at(-1)! > HEADROOM * Math.max(share, 0.01) * tuned.byteLength) break;
    }
    return { bytes, errorSq, deltaSq: norm };
  }

  async #indexBytes(delta: Float32Array, selection: Selection): Promise<number> {
    const coder = await this.#codec();
    const segments = segmentCount(delta.length);
    const step = Math.max(1, Math.floor(segments / SAMPLE_SEGMENTS));
    let [coded, words] = [0, 0];
    for (let s = 0; s < segments; s += step) {
      const [from, to] = segmentSpan(delta.length, s);
      const mask = coder.reserve(to - from);
      mask.base.fill(0);
      marker(selection)(delta.subarray(from, to), mask.tuned);
      coded += coder.encodeSegment('U8', to - from, true).length;
      words += to - from;
    }
    return blobHeadBytes(segments) + (coded * delta.length) / words;
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    requireBase(base, target, 'index');
    const elements = elementCount(target.shape);
    const valueType = this.p.values === 'exact' ? base.dtype : 'BF16';
    const info = parts.info('values');
    if (info.dtype !== valueType || info.shape.length !== 1) throw malformed('values', `${valueType} [k]`, `${info.dtype} [${info.shape.join()}]`);
    const [kept, valueBytes, width] = [info.shape[0]!, DTYPES[valueType].bits / 8, DTYPES[base.dtype].bits / 8];
    const index = parts.info('index');
    if (index.dtype !== 'U8' || index.shape.length !== 1) throw malformed('index', 'U8 [bytes]', `${index.dtype} [${index.shape.join()}]`);
    const total = index.shape[0]!;
    const segments = segmentCount(elements);
    const spans = parseBlobHead(await parts.read('index', 0, Math.min(total, blobHeadBytes(segments))), total, segments);
    const coder = await this.#codec();
    let used = 0;
    for (const [s, span] of spans.entries()) {
      c.checkpointCancel();
      const [from, to] = segmentSpan(elements, s);
      const stored = new Uint8Array((to - from) * width);
      await base.readInto(from * width, stored);
      const bytes = await parts.read('index', ...span);
      const mask = coder.reserve(to - from);
      mask.base.fill(0);
      coder.decodeSegment(bytes, 'U8', to - from, true);
      const chosen = countMarked(mask.tuned);
      if (chosen === undefined) throw malformed('index', 'a mask of 0 and 1', 'other bytes');
      if (used + chosen > kept) throw malformed('values', `${used + chosen} values or more`, String(kept));
      const marks = mask.tuned.slice();
      const values = chosen === 0 ? new Uint8Array(0) : await parts.read('values', used * valueBytes, (used + chosen) * valueBytes);
      if (this.p.values === 'exact') scatter(values, marks, stored, width);
      else addWhereMarked(base.dtype, stored, marks, decodeF32('BF16', values));
      used += chosen;
      await out.write(from * width, stored);
      c.report(stored.length);
    }
    if (used !== kept) throw malformed('values', `${used} values`, String(kept));
  }
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'sparse',
  title: 'The largest values of the residual, or every changed word as it is',
  paper: {
    cite: 'Yadav, Tam, Choshen, Raffel, Bansal, "TIES-Merging: Resolving Interference When Merging Models", 2023',
    url: 'https://arxiv.org/abs/2306.01708',
  },
  params,
  create: (raw) => new Sparse(parseParams('sparse', params, raw)),
};
export default method;
