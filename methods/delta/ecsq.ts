/**
 * ecsq: dead-zone uniform quantization of the weight residual, entropy-coded in the context of the base (pith's own).
 *
 *   D = f32(W1) - f32(W0);   q = sign(D) floor(|D| / step + 0.4);   W1' = round(f32(W0) + sign(q) c_|q| step)
 * c_l: mean of what fell into level l. q is coded in the class of the base weight's exponent (a short fine-tune moves a stored value by
 * whole last places of its base) and of its neighbours, row and column (kernels/levels).
 * Entropy-coded scalar quantization: Sullivan, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables", 1996.
 */
import * as z from 'zod';
import { DTYPES } from '../../core/dtype.js';
import { elementCount, matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { EXPONENT, exponentBase } from '../../kernels/levels/classes.js';
import { LevelCoder } from '../../kernels/levels/coder.js';
import { CENTROIDS, CentroidSums, magnitudes } from '../../kernels/levels/quantize.js';
import { estimateLevels, sampleLevels } from '../../kernels/levels/rates.js';
import { pull } from '../../kernels/levels/stream.js';
import { LevelTally } from '../../kernels/levels/tally.js';
import { isDense } from '../../kernels/lowrank/panel.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DECLINED, DeltaMatrix, type DeltaSums } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { malformed, requireBase } from '../restore-panels.js';
import { GRID, stepAt } from '../step-grid.js';

const PART = 'levels';
/** "PEQ" and the version. */
const MAGIC = [0x50, 0x45, 0x51, 0x01] as const;
/** Magic, step (f32), exponent of class 0 (u16), centroids (8). */
const HEAD_BYTES = 10 + CENTROIDS;
const params = z.strictObject({
  step: z.number().positive().default(4).describe('quantizer step in units of the mean |delta| of each tensor'),
});
type Params = z.infer<typeof params>;

class Ecsq implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned, share) => this.#rates(c, base, tuned, share),
    assign: (point) => ({ step: stepAt(point) }),
  };
  readonly #matrix = new DeltaMatrix();
  #coder: Promise<LevelCoder> | undefined;
  #tally: Promise<LevelTally> | undefined;

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    return plan.hasBase && isDense(plan.dtype) && plan.shape.length >= 2 && matrixShape(plan.shape).every((side) => side > 0);
  }

  memoryBytes(): number {
    return 128 << 20;
  }

  #levels(): Promise<LevelCoder> {
    this.#coder ??= LevelCoder.create();
    return this.#coder;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned): Promise<EncodeInfo> {
    if (base === undefined || !isDense(tuned.dtype)) return DECLINED;
    const [, n] = matrixShape(tuned.shape);
    const { mean, squares, same } = await this.#sums(c, base, tuned);
    if (same) return { identical: true, facts: {} };
    const step = Math.fround((assigned['step'] ?? this.p.step) * mean);
    if (!Number.isFinite(squares) || step === 0) return DECLINED;
    const dtype = tuned.dtype;
    const panel = LevelCoder.panelRows(n) * n;
    const sums = new CentroidSums();
    const encoder = (await this.#levels()).encoder(n);
    const first = await exponentBase(dtype, base);
    let at = HEAD_BYTES;
    let changed = 0;
    const put = async (bytes: Uint8Array): Promise<void> => {
      await parts.write(PART, at, bytes);
      at += bytes.length;
    };
    await this.#matrix.each(
      c,
      base,
      tuned,
      async ({ delta, base: stored }) => {
        const coded = encoder.values(delta, step, sums, { bytes: stored, field: EXPONENT[dtype], first });
        changed += coded.changed;
        await put(coded.bytes);
      },
      panel,
    );
    await put(encoder.end());
    const head = new DataView(new ArrayBuffer(HEAD_BYTES));
    new Uint8Array(head.buffer).set(MAGIC);
    head.setFloat32(4, step, true);
    head.setUint16(8, first, true);
    new Uint8Array(head.buffer).set(sums.bytes(), 10);
    await parts.write(PART, 0, new Uint8Array(head.buffer));
    parts.declare(PART, 'U8', [at]);
    return { identical: false, facts: { coded: (changed * DTYPES[dtype].bits) / 8 / tuned.byteLength } };
  }

  /** A pass before the one that codes, and reports its progress. */
  async #sums(c: Ctx, base: TensorSource, tuned: TensorSource): Promise<DeltaSums & { readonly mean: number }> {
    const sums = await this.#matrix.sums({ ...c, report: () => undefined }, base, tuned);
    return { ...sums, mean: sums.magnitude / Math.max(1, elementCount(tuned.shape)) };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource, share: number): Promise<RateCurve> {
    const { mean, squares, same } = await this.#sums(c, base, tuned);
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    if (!Number.isFinite(squares) || Math.fround(mean) === 0 || !isDense(tuned.dtype)) return { bytes: [tuned.byteLength], errorSq: [0], deltaSq: 0 };
    const sample = await sampleLevels(base, tuned, tuned.dtype, () => c.checkpointCancel());
    const tally = await (this.#tally ??= LevelTally.create());
    const [bytes, errorSq]: [number[], number[]] = [[], []];
    for (let point = 0; point < GRID.points; point++) {
      c.checkpointCancel();
      const e = estimateLevels(sample, Math.fround(stepAt(point) * mean), tuned.dtype, tally);
      bytes.push(HEAD_BYTES + e.bytes);
      errorSq.push(Math.min((e.errorSq / sample.squares) * squares, errorSq.at(-1) ?? squares));
      if (bytes.at(-1)! > GRID.headroom * Math.max(share, GRID.leastShare) * tuned.byteLength) break;
    }
    return { bytes, errorSq, deltaSq: squares };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    const [m, n] = matrixShape(target.shape);
    const total = parts.info(PART).shape[0] ?? 0;
    requireBase(base, target, PART);
    if (total < HEAD_BYTES) throw malformed(PART, `${HEAD_BYTES} bytes or more`, String(total));
    const head = await parts.read(PART, 0, HEAD_BYTES);
    const view = new DataView(head.buffer, head.byteOffset);
    const step = view.getFloat32(4, true);
    const first = view.getUint16(8, true);
    if (MAGIC.some((v, i) => head[i] !== v) || !(step > 0) || !Number.isFinite(step)) throw malformed(PART, 'a head of version 1', 'another');
    const size = magnitudes(head.subarray(10), CENTROIDS).map((v) => Math.fround(v * step));
    const decoder = await (
      await this.#levels()
    ).decoder(
      n,
      pull((from, to) => parts.read(PART, HEAD_BYTES + from, HEAD_BYTES + to), total - HEAD_BYTES),
    );
    const panels = await this.#matrix.panels();
    const rows = LevelCoder.panelRows(n);
    const width = DTYPES[base.dtype].bits / 8;
    const stored = new Uint8Array(Math.min(rows, m) * n * width);
    for (let i = 0; i < m; i += rows) {
      c.checkpointCancel();
      const count = Math.min(rows, m - i) * n;
      const w0 = stored.subarray(0, count * width);
      await base.readInto(i * n * width, w0);
      const delta = await decoder.values(count / n, size, step, { bytes: w0, field: EXPONENT[base.dtype], first });
      await out.write(i * n * width, panels.add(base.dtype, w0, delta));
      c.report(w0.length);
    }
    await decoder.end();
  }
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'ecsq',
  title: 'Uniformly quantized residual, entropy-coded in the context of the base',
  paper: {
    cite: 'Sullivan, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables", IEEE Trans. Inf. Theory 42(5), 1996',
    url: 'https://doi.org/10.1109/18.532878',
  },
  params,
  create: (raw) => new Ecsq(parseParams('ecsq', params, raw)),
};
export default method;
