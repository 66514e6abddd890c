/**
 * BitDelta: "BitDelta: Your Fine-Tune May Only Be Worth One Bit", James Liu, Guangxuan Xiao, Kai Li, Jason D. Lee, Song Han, Tri Dao,
 * Tianle Cai, 2024, https://arxiv.org/abs/2402.10193
 *
 *   D = f32(W1) - f32(W0);   alpha = mean |D|  (the least ||D - alpha S||_F);   S_ij = +1 where D_ij >= 0, else -1
 *   W1' = round(f32(W0) + alpha S)
 * Parts as in the release's diff.pt: `mask` packs 32 consecutive input columns of one row into an int32, least significant bit
 * first, transposed to (n / 32, m); `coeff` is alpha.
 * Deviations: D is taken in f32, not in the storage type; n is filled up to a multiple of 32 with zero bits; alpha is not refined
 * by distillation. Under a shared budget a tensor may go without: then `mask` is (0, m) and restore gives the base.
 */
import * as z from 'zod';
import { decodeF32, encodeAs } from '../../core/float.js';
import { matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { packSigns, signWords, unpackSigns } from '../../kernels/quant/pack.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DECLINED, DeltaMatrix, isDenseMatrix } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { addInPanels, copyBase, malformed, readPart, requireBase, rowPanel, writePart } from '../restore-panels.js';

const COEFF_BYTES = 4;

const params = z.strictObject({
  tensors: z.enum(['projections', 'matrices']).default('projections').describe('projections: not embeddings and heads, as published; matrices: these too'),
});
type Params = z.infer<typeof params>;

class BitDelta implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned) => this.#rates(c, base, tuned),
    // point 0 is the base as it is
    assign: (point) => ({ coded: point }),
  };
  readonly #matrix = new DeltaMatrix();

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    const wanted = plan.role === 'linear' || (this.p.tensors === 'matrices' && plan.role !== 'other');
    return wanted && isDenseMatrix(plan);
  }

  memoryBytes(plan: TensorPlan): number {
    const [m, n] = matrixShape(plan.shape);
    return (64 << 20) + 4 * signWords(n) * m;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned): Promise<EncodeInfo> {
    if (base === undefined) return DECLINED;
    const [m, n] = matrixShape(tuned.shape);
    const mask = new Int32Array(signWords(n) * m);
    const { same, magnitude } = await this.#matrix.sums(c, base, tuned, (delta, at) => packSigns(delta, n, at / n, m, mask), rowPanel(n));
    if (same) return { identical: true, facts: {} };
    if (!Number.isFinite(magnitude)) return DECLINED;
    const coded = assigned['coded'] !== 0;
    // alpha = mean |D|
    const alpha = coded ? Math.fround(magnitude / (m * n)) : 0;
    const words = coded ? mask : new Int32Array(0);
    await writePart(parts, 'mask', 'I32', [coded ? signWords(n) : 0, m], new Uint8Array(words.buffer));
    await writePart(parts, 'coeff', 'F32', [], encodeAs('F32', Float32Array.of(alpha)));
    return { identical: false, facts: { alpha } };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource): Promise<RateCurve> {
    const [m, n] = matrixShape(tuned.shape);
    const { same, magnitude, squares } = await this.#matrix.sums(c, base, tuned);
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    if (!Number.isFinite(magnitude)) return { bytes: [tuned.byteLength], errorSq: [0], deltaSq: 0 };
    const alpha = Math.fround(magnitude / (m * n));
    // ||D - alpha S||^2
    const error = Math.max(0, squares - 2 * alpha * magnitude + alpha * alpha * m * n);
    return { bytes: [COEFF_BYTES, COEFF_BYTES + 4 * signWords(n) * m], errorSq: [squares, Math.min(squares, error)], deltaSq: squares };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    requireBase(base, target, 'mask');
    const [m, n] = matrixShape(target.shape);
    const alpha = decodeF32('F32', await readPart(parts, 'coeff', 'F32', []))[0]!;
    if (!Number.isFinite(alpha)) throw malformed('coeff', 'a finite value', String(alpha));
    const words = parts.info('mask').shape[0] === 0 ? 0 : signWords(n);
    const bytes = await readPart(parts, 'mask', 'I32', [words, m]);
    if (words === 0) return copyBase(c, base, out);
    const mask = new Int32Array(bytes.slice().buffer);
    await addInPanels(c, await this.#matrix.panels(), base, target, out, (delta, row) => unpackSigns(mask, n, row, m, alpha, delta));
  }
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'bitdelta',
  title: 'One sign bit a weight and one scale a matrix',
  paper: {
    cite: 'Liu, Xiao, Li, Lee, Han, Dao, Cai, "BitDelta: Your Fine-Tune May Only Be Worth One Bit", 2024',
    url: 'https://arxiv.org/abs/2402.10193',
  },
  params,
  create: (raw) => new BitDelta(parseParams('bitdelta', params, raw)),
};
export default method;
