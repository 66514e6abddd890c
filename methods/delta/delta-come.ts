/**
 * Delta-CoMe: "Delta-CoMe: Training-Free Delta-Compression with Mixed-Precision for Large Language Models", Bowen Ping, Shuo Wang,
 * Hanqing Wang, Xu Han, Yuzhuang Xu, Yukun Yan, Yun Chen, Baobao Chang, Zhiyuan Liu, Maosong Sun, 2024, https://arxiv.org/abs/2406.08903
 *
 *   D = f32(W1) - f32(W0) = U S V^T;   leading columns of U and V in bands of falling width;   sum_b bits_b k_b <= 16 m n / (ratio (m + n))
 *   W1' = round(f32(W0) + (U^ S) V^^T), the product in a fixed order (kernels/lowrank/panel.ts)
 * `allocate: greedy` gives every direction its own width instead (kernels/lowrank/bit-allocation.ts; pith's own), as a shared budget does.
 * Without statistics of the inputs the codes are rounded to nearest, with them fitted by GPTQ (kernels/lowrank/fit-factors.ts).
 * Deviations: the fit looks at one layer at a time, all bands of it together; U is grouped along its columns as V is, so that a band of two columns has no scale
 * for every pair of values; s is f32, zero points are bytes; scales and zeros are counted where sizes are shared or compared.
 */
import * as z from 'zod';
import { decodeF32, encodeAs } from '../../core/float.js';
import { matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { deviceProducts } from '../../kernels/linalg/device-products.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { randomizedSvd, wholeMatrix } from '../../kernels/linalg/randomized-svd.js';
import { truncatedSvd } from '../../kernels/linalg/truncated-svd.js';
import { bandBits, FIRST_BITS, greedyBits, LEAST_BITS, MOST_BITS, type Band } from '../../kernels/lowrank/bit-allocation.js';
import {
  codeFactors,
  column,
  directionBytes,
  directionError,
  factorBytes,
  factorValues,
  groupsOf,
  type BitFactors,
  type Directions,
} from '../../kernels/lowrank/bit-factors.js';
import { fitBytes, fitFactors } from '../../kernels/lowrank/fit-factors.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DECLINED, DeltaMatrix, isDenseMatrix } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, CodecStats, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { addFactored, copyBase, malformed, readPart, requireBase, writePart } from '../restore-panels.js';

/** Points of a rate curve: nothing, then 8 bits in all, each point a third of an octave more. */
const CURVE = { first: 8, perOctave: 3, points: 48 } as const;
const budgetAt = (point: number): number => (point === 0 ? 0 : Math.round(CURVE.first * 2 ** ((point - 1) / CURVE.perOctave)));
/** A curve ends where it costs this many times the share that the model may take on average. */
const HEADROOM = 4;

const params = z.strictObject({
  bands: z
    .string()
    .regex(/^[2-8]:\d+(,[2-8]:\d+)*(,[2-8]:\*)?$|^[2-8]:\*$/)
    .default('8:2,3:32,2:*')
    .describe('bits:directions of each band, strongest first; * as many as the ratio allows'),
  ratio: z.number().gt(1).default(16).describe('16 bits a weight over the bits of the codes; not used when no band is open'),
  allocate: z.enum(['bands', 'greedy']).default('bands').describe('bands as given, or a width for every direction by least error'),
});
type Params = z.infer<typeof params>;

class DeltaCome implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly uses = ['inputGram'] as const;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned, share) => this.#rates(c, base, tuned, share),
    assign: (point) => ({ bits: budgetAt(point) }),
  };
  readonly #matrix = new DeltaMatrix();
  readonly #bands: readonly Band[];

  constructor(private readonly p: Params) {
    this.#bands = p.bands.split(',').map((band) => {
      const [bits, count] = band.split(':') as [string, string];
      return { bits: Number(bits), count: count === '*' ? undefined : Number(count) };
    });
  }

  accepts(plan: TensorPlan): boolean {
    return isDenseMatrix(plan);
  }

  memoryBytes(plan: TensorPlan, stats = false): number {
    const [m, n] = matrixShape(plan.shape);
    return (96 << 20) + 4 * m * n + 24 * Math.min(m, n) ** 2 + (stats ? fitBytes(m, n) : 0);
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned, stats?: CodecStats): Promise<EncodeInfo> {
    if (base === undefined) return DECLINED;
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { identical: true, facts: {} };
    if (!Number.isFinite(norm)) return DECLINED;
    const budget = assigned['bits'] ?? (16 * m * n) / (this.p.ratio * (m + n));
    const greedy = this.p.allocate === 'greedy' || assigned['bits'] !== undefined;
    const fixed = bandBits(this.#bands, Math.min(m, n), budget);
    const d = await directions(c, delta, m, n, greedy ? Math.floor(budget / FIRST_BITS) : fixed.length, norm);
    const bits = greedy ? greedyBits(d.s, budget) : fixed.slice(0, d.s.length);
    if (factorBytes(m, n, bits) >= tuned.byteLength) return DECLINED;
    c.checkpointCancel();
    const f = await coded(c, delta, d, m, n, bits, stats);
    const r = f.s.length;
    await writePart(parts, 's', 'F32', [r], encodeAs('F32', f.s));
    await writePart(parts, 'bits', 'U8', [r], f.bits);
    await writePart(parts, 'codes', 'U8', [f.codes.length], f.codes);
    await writePart(parts, 'scales', 'F16', [r, groupsOf(m, n)], f.scales);
    await writePart(parts, 'zeros', 'U8', [r, groupsOf(m, n)], f.zeros);
    const fitted = stats?.inputGram !== undefined && r > 0;
    return { identical: false, facts: { rank: r, bits: f.bits.reduce((sum, b) => sum + b, 0), ...(fitted ? { fit: 'gptq' } : {}) } };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource, share: number): Promise<RateCurve> {
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    if (!Number.isFinite(norm)) return { bytes: [tuned.byteLength], errorSq: [0], deltaSq: 0 };
    const most = Math.min(tuned.byteLength, HEADROOM * Math.max(share, 0.01) * tuned.byteLength);
    const rank = Math.min(m, n, Math.ceil(most / factorBytes(m, n, [FIRST_BITS])));
    const d = await directions(c, delta, m, n, rank, norm);
    const errors = new Map<number, number>();
    /** s_k^2 and what is lost of it with these bits. */
    const change = (k: number, bits: number): number => {
      const key = k * (MOST_BITS + 1) + bits;
      let e = errors.get(key);
      if (e === undefined) errors.set(key, (e = directionError(column(d.u, m, k), d.vt.subarray(k * n, (k + 1) * n), bits)));
      return d.s[k]! ** 2 * (e - 1);
    };
    const [bytes, errorSq]: [number[], number[]] = [[], []];
    for (let point = 0; point < CURVE.points; point++) {
      c.checkpointCancel();
      const bits = greedyBits(d.s, budgetAt(point));
      const size = factorBytes(m, n, bits);
      if (point > 0 && size > most) break;
      const left = bits.reduce((sum, b, k) => (b === 0 ? sum : sum + change(k, b)), norm);
      bytes.push(size);
      errorSq.push(Math.max(0, Math.min(left, errorSq.at(-1) ?? norm)));
      if (bits.every((b) => b === MOST_BITS)) break;
    }
    return { bytes, errorSq, deltaSq: norm };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    requireBase(base, target, 's');
    const [m, n] = matrixShape(target.shape);
    const r = parts.info('s').shape[0] ?? 0;
    if (r > Math.min(m, n)) throw malformed('s', `at most ${Math.min(m, n)} values`, String(r));
    const s = decodeF32('F32', await readPart(parts, 's', 'F32', [r]));
    const bits = await readPart(parts, 'bits', 'U8', [r]);
    for (const b of bits) if (b < LEAST_BITS || b > MOST_BITS) throw malformed('bits', `${LEAST_BITS} to ${MOST_BITS}`, String(b));
    const length = bits.reduce((sum, b) => sum + directionBytes(m, n, b), 0);
    const codes = await readPart(parts, 'codes', 'U8', [length]);
    const scales = await readPart(parts, 'scales', 'F16', [r, groupsOf(m, n)]);
    const zeros = await readPart(parts, 'zeros', 'U8', [r, groupsOf(m, n)]);
    if (r === 0) return copyBase(c, base, out);
    const { a, b } = factorValues({ s, bits, codes, scales, zeros }, m, n);
    await addFactored(c, await this.#matrix.panels(), base, target, out, a, b, r);
  }
}

/** Fitted to the inputs where their Gram matrix is known. */
async function coded(c: Ctx, delta: Float32Array, d: Directions, m: number, n: number, bits: readonly number[], stats?: CodecStats): Promise<BitFactors> {
  if (stats?.inputGram === undefined || d.s.length === 0) return codeFactors(d, m, n, bits);
  const options = { gram: stats.inputGram, transposed: stats.transposed, ops: await matrixOps(c), checkpointCancel: () => c.checkpointCancel() };
  return fitFactors(delta, d, m, n, bits, options);
}

/** The leading singular triplets of D. */
async function directions(c: Ctx, delta: Float32Array, m: number, n: number, wanted: number, norm: number): Promise<Directions> {
  const rank = Math.min(m, n, wanted);
  const options = { rank, ops: await matrixOps(c), rng: c.rng.fork('svd'), frobeniusSq: norm };
  using products = await deviceProducts(c.device, c.blasThreads);
  return products === undefined || rank === 0
    ? await truncatedSvd(delta, m, n, options)
    : await randomizedSvd(wholeMatrix(delta, m, n), { ...options, products });
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'delta-come',
  title: 'Singular factors of the residual in bands of mixed bit widths',
  paper: {
    cite: 'Ping et al., "Delta-CoMe: Training-Free Delta-Compression with Mixed-Precision for Large Language Models", 2024',
    url: 'https://arxiv.org/abs/2406.08903',
  },
  params,
  create: (raw) => new DeltaCome(parseParams('delta-come', params, raw)),
};
export default method;
