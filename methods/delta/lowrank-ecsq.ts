/**
 * lowrank-ecsq: transform coding of the weight residual in its singular basis, with one step (pith's own).
 *
 *   D = f32(W1) - f32(W0) = U diag(s) V^T;   X = U diag(s), Y = V diag(s), both quantized with one step t and entropy-coded
 *   W1' = round(f32(W0) + X^ diag(t / s) Y^^T / t)      in a fixed order (kernels/lowrank/panel.ts)
 * One number sets every rank and bit width: reverse water-filling of the singular values (Cover and Thomas, Elements of Information
 * Theory, 10.3.3). Background: ERE (arXiv 2305.18425), Delta-CoMe (arXiv 2406.08903); entropy-coded scalar quantization: Sullivan 1996.
 */
import * as z from 'zod';
import { DTYPES } from '../../core/dtype.js';
import { decodeF32 } from '../../core/float.js';
import { matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { LevelCoder } from '../../kernels/levels/coder.js';
import { CENTROIDS } from '../../kernels/levels/quantize.js';
import { readRows, writeRows } from '../../kernels/levels/stream.js';
import { LevelTally } from '../../kernels/levels/tally.js';
import { matrixOps, transposed } from '../../kernels/linalg/matrix-ops.js';
import { Bases, type Basis } from '../../kernels/lowrank/singular-basis.js';
import { BasisSample, codeBasis, dequantize } from '../../kernels/lowrank/transform.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DECLINED, DeltaMatrix, isDenseMatrix } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { addFactored, malformed, requireBase } from '../restore-panels.js';
import { GRID, stepAt } from '../step-grid.js';

const PART = 'factors';
/** "PLR" and the version. */
const MAGIC = [0x50, 0x4c, 0x52, 0x01] as const;
/** Magic, rank (u32), step (f32), bytes of the first stream (u64), 8 + 8 centroids; then a bf16 ratio a component. */
const HEAD_BYTES = 20 + 2 * CENTROIDS;

const params = z.strictObject({
  step: z.number().positive().default(3).describe('quantizer step in units of the RMS of each delta'),
});
type Params = z.infer<typeof params>;

class LowrankEcsq implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned, share, rival) => this.#rates(c, base, tuned, share, rival),
    assign: (point) => ({ step: stepAt(point) }),
  };
  readonly #matrix = new DeltaMatrix();
  #coder: Promise<LevelCoder> | undefined;
  #tally: Promise<LevelTally> | undefined;

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    return isDenseMatrix(plan);
  }

  memoryBytes(plan: TensorPlan): number {
    const [m, n] = matrixShape(plan.shape);
    return (128 << 20) + 4 * m * n + 24 * Math.min(m, n) ** 2;
  }

  #levels(): Promise<LevelCoder> {
    this.#coder ??= LevelCoder.create();
    return this.#coder;
  }

  #tallies(): Promise<LevelTally> {
    this.#tally ??= LevelTally.create();
    return this.#tally;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned): Promise<EncodeInfo> {
    if (base === undefined) return DECLINED;
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { identical: true, facts: {} };
    const step = Math.fround((assigned['step'] ?? this.p.step) * Math.sqrt(norm / (m * n)));
    if (!Number.isFinite(norm) || step === 0) return DECLINED;
    const basis = await new Bases(delta, m, n, norm, await matrixOps(c), c.rng.fork('svd')).upTo(step);
    c.checkpointCancel();
    const coded = codeBasis(basis, step, await this.#tallies());
    const r = coded.rank;
    const head = new DataView(new ArrayBuffer(HEAD_BYTES + 2 * r));
    new Uint8Array(head.buffer).set(MAGIC);
    head.setUint32(4, r, true);
    head.setFloat32(8, step, true);
    new Uint8Array(head.buffer).set([...coded.centroidsX, ...coded.centroidsY], 20);
    coded.ratios.forEach((v, k) => head.setUint16(HEAD_BYTES + 2 * k, v, true));
    let at = head.byteLength;
    if (r > 0) {
      const coder = await this.#levels();
      const put = async (bytes: Uint8Array): Promise<void> => {
        await parts.write(PART, at, bytes);
        at += bytes.length;
      };
      await writeRows(coder, coded.x, r, put, () => c.checkpointCancel());
      head.setBigUint64(12, BigInt(at - head.byteLength), true);
      await writeRows(coder, coded.y, r, put, () => c.checkpointCancel());
    }
    await parts.write(PART, 0, new Uint8Array(head.buffer));
    parts.declare(PART, 'U8', [at]);
    return { identical: false, facts: { rank: r } };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource, share: number, rival?: (bytes: number) => number): Promise<RateCurve> {
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    const dense = (m * n * DTYPES[tuned.dtype].bits) / 8;
    const rms = Math.sqrt(norm / (m * n));
    if (!Number.isFinite(norm) || Math.fround(rms) === 0) return { bytes: [dense], errorSq: [0], deltaSq: 0 };
    const bases = new Bases(delta, m, n, norm, await matrixOps(c), c.rng.fork('svd'));
    const tally = await this.#tallies();
    const [bytes, errorSq]: [number[], number[]] = [[], []];
    let sample: { readonly of: Basis; readonly rows: BasisSample } | undefined;
    for (let point = 0, lost = 0; point < GRID.points && lost < GRID.lostPoints; point++) {
      c.checkpointCancel();
      const step = stepAt(point) * rms;
      const basis = await bases.upTo(step);
      if (sample?.of !== basis) sample = { of: basis, rows: new BasisSample(basis) };
      const e = sample.rows.estimate(step, norm, tally);
      bytes.push(HEAD_BYTES + e.bytes);
      errorSq.push(Math.min(e.errorSq, errorSq.at(-1) ?? Infinity));
      lost = rival !== undefined && e.errorSq > GRID.lostBy * rival(bytes.at(-1)!) ? lost + 1 : 0;
      if (bytes.at(-1)! > GRID.headroom * Math.max(share, GRID.leastShare) * dense) break;
    }
    return { bytes, errorSq, deltaSq: norm };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    const [m, n] = matrixShape(target.shape);
    const total = parts.info(PART).shape[0] ?? 0;
    requireBase(base, target, PART);
    if (total < HEAD_BYTES) throw malformed(PART, `${HEAD_BYTES} bytes or more`, String(total));
    const fixed = await parts.read(PART, 0, HEAD_BYTES);
    const view = new DataView(fixed.buffer, fixed.byteOffset);
    const r = view.getUint32(4, true);
    const step = view.getFloat32(8, true);
    const first = Number(view.getBigUint64(12, true));
    if (MAGIC.some((v, i) => fixed[i] !== v) || r > Math.min(m, n) || !(step > 0) || !Number.isFinite(step))
      throw malformed(PART, 'a head of version 1', 'another');
    const begin = HEAD_BYTES + 2 * r;
    if (begin + first > total || (r === 0 && total !== begin)) throw malformed(PART, `${begin + first} bytes or more`, `${total}`);
    const ratios = decodeF32('BF16', await parts.read(PART, HEAD_BYTES, begin));
    const coder = await this.#levels();
    const read = (from: number, to: number, rows: number): Promise<Int16Array> =>
      r === 0
        ? Promise.resolve(new Int16Array(0))
        : readRows(
            coder,
            r,
            rows,
            (at, end) => parts.read(PART, from + at, Math.min(to, from + end)),
            to - from,
            () => c.checkpointCancel(),
          );
    const x = dequantize(await read(begin, begin + first, m), r, fixed.subarray(20, 28), () => step, false);
    const y = dequantize(await read(begin + first, total, n), r, fixed.subarray(28, 36), (k) => ratios[k]!, true);
    await addFactored(c, await this.#matrix.panels(), base, target, out, transposed(y, n, r), x, r);
  }
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'lowrank-ecsq',
  title: 'Singular factors of the residual, quantized with one step and entropy-coded: ranks and bits by reverse water-filling',
  paper: {
    cite: 'Sullivan, IEEE Trans. Inf. Theory 42(5), 1996; Cover and Thomas, Elements of Information Theory, 10.3',
    url: 'https://doi.org/10.1109/18.532878',
  },
  params,
  create: (raw) => new LowrankEcsq(parseParams('lowrank-ecsq', params, raw)),
};
export default method;
