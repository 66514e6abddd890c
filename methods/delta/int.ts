/**
 * int: the weight residual in groups of small symmetric integers, 2 to 8 bits, rounded to nearest. The data-free baseline of weight
 * quantization (RTN) applied to the residual; the least-squares scale is the step of Lloyd, "Least Squares Quantization in PCM", 1982.
 *
 *   D = f32(W1) - f32(W0), groups of `groupSize` columns of a row;   q = clamp(round(D / s), -2^(b-1), 2^(b-1) - 1)
 *   W1' = round(f32(W0) + f32(q) s)
 * s: kernels/quant/symmetric.ts, stored in bf16 or f16. The last group of a row may be shorter. Codes lie in one stream of bits.
 * Under a shared budget each tensor has its own width; 0 bits is the base as it is.
 */
import * as z from 'zod';
import { decodeF32, encodeAs } from '../../core/float.js';
import { matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { packCodes, packedBytes, unpackCodes } from '../../kernels/quant/pack.js';
import { FITS, symmetricCodes, symmetricScale } from '../../kernels/quant/symmetric.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DECLINED, DeltaMatrix, isDenseMatrix, type DeltaPanel } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { addInPanels, copyBase, malformed, readPart, requireBase, rowPanel } from '../restore-panels.js';

const MOST_BITS = 8;
/** Values that a rate curve is measured on: all of a small tensor, evenly spread rows of a larger one. */
const SAMPLE_VALUES = 1 << 18;
/** Points of a rate curve: nothing, then every width. */
const WIDTHS = [0, 2, 3, 4, 5, 6, 7, 8] as const;

const params = z.strictObject({
  bits: z.int().min(2).max(MOST_BITS).default(4).describe('bits of a code'),
  groupSize: z.int().positive().default(128).describe('values of a row that share a scale'),
  scale: z.enum(['bf16', 'f16']).default('bf16').describe('how the scales are stored'),
  fit: z.enum(FITS).default('mse').describe('scale of least squared error, or of the largest value'),
});
type Params = z.infer<typeof params>;

/** One quantized panel of rows. */
interface Quantized {
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
  readonly errorSq: number;
}

class Int implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned) => this.#rates(c, base, tuned),
    assign: (point) => ({ bits: WIDTHS[point]! }),
  };
  readonly #matrix = new DeltaMatrix();

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    return isDenseMatrix(plan);
  }

  memoryBytes(plan: TensorPlan): number {
    return (64 << 20) + 16 * rowPanel(matrixShape(plan.shape)[1]);
  }

  #scaleDType(): 'BF16' | 'F16' {
    return this.p.scale === 'bf16' ? 'BF16' : 'F16';
  }

  #groups(n: number): number {
    return Math.ceil(n / this.p.groupSize);
  }

  #bytes(m: number, n: number, bits: number): number {
    return bits === 0 ? 0 : m * (packedBytes(n, bits) + 2 * this.#groups(n));
  }

  #quantize(delta: Float32Array, n: number, bits: number): Quantized {
    const [rows, groups] = [delta.length / n, this.#groups(n)];
    const ends = (i: number, g: number): [number, number] => [i * n + g * this.p.groupSize, i * n + Math.min(n, (g + 1) * this.p.groupSize)];
    const fitted = new Float32Array(rows * groups);
    for (let i = 0; i < rows; i++) for (let g = 0; g < groups; g++) fitted[i * groups + g] = symmetricScale(delta, ...ends(i, g), bits, this.p.fit);
    const scales = encodeAs(this.#scaleDType(), fitted);
    const stored = decodeF32(this.#scaleDType(), scales);
    const rowBytes = packedBytes(n, bits);
    const [plain, codes] = [new Int8Array(delta.length), new Uint8Array(rows * rowBytes)];
    let errorSq = 0;
    for (let i = 0; i < rows; i++) {
      for (let g = 0; g < groups; g++) errorSq += symmetricCodes(delta, ...ends(i, g), stored[i * groups + g]!, bits, plain);
      packCodes(plain.subarray(i * n, (i + 1) * n), bits, codes, i * rowBytes);
    }
    return { codes, scales, errorSq };
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned): Promise<EncodeInfo> {
    if (base === undefined) return DECLINED;
    const [m, n] = matrixShape(tuned.shape);
    const bits = assigned['bits'] ?? this.p.bits;
    if (this.#bytes(m, n, bits) >= tuned.byteLength) return DECLINED;
    let [same, finite, codesAt, scalesAt] = [true, true, 0, 0];
    const act = async (panel: DeltaPanel): Promise<void> => {
      same &&= panel.same;
      finite &&= Number.isFinite(panel.squares);
      if (!finite || bits === 0) return;
      const { codes, scales } = this.#quantize(panel.delta, n, bits);
      await parts.write('codes', codesAt, codes);
      await parts.write('scales', scalesAt, scales);
      [codesAt, scalesAt] = [codesAt + codes.length, scalesAt + scales.length];
    };
    await this.#matrix.each(c, base, tuned, act, rowPanel(n));
    if (same) return { identical: true, facts: {} };
    if (!finite) return DECLINED;
    parts.declare('codes', 'U8', [m, Math.ceil(n / 8), bits]);
    parts.declare('scales', this.#scaleDType(), [m, bits === 0 ? 0 : this.#groups(n)]);
    return { identical: false, facts: { bits } };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource): Promise<RateCurve> {
    const [m, n] = matrixShape(tuned.shape);
    const every = Math.max(1, Math.floor((m * n) / SAMPLE_VALUES));
    let [same, deltaSq, sampleSq] = [true, 0, 0];
    const errorSq = WIDTHS.map(() => 0);
    const act = ({ at, delta, same: equal, squares }: DeltaPanel): void => {
      same &&= equal;
      deltaSq += squares;
      if (!Number.isFinite(deltaSq)) return;
      const first = (every - ((at / n) % every)) % every;
      for (let row = first * n; row < delta.length; row += every * n) {
        const values = delta.subarray(row, row + n);
        for (const v of values) sampleSq += v * v;
        for (const [i, bits] of WIDTHS.entries()) if (bits > 0) errorSq[i]! += this.#quantize(values, n, bits).errorSq;
      }
    };
    await this.#matrix.each(c, base, tuned, act, rowPanel(n));
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    if (!Number.isFinite(deltaSq)) return { bytes: [tuned.byteLength], errorSq: [0], deltaSq: 0 };
    let least = deltaSq;
    const errors = errorSq.map((e, i) => (i === 0 || sampleSq === 0 ? deltaSq : (least = Math.min(least, (e / sampleSq) * deltaSq))));
    return { bytes: WIDTHS.map((bits) => this.#bytes(m, n, bits)), errorSq: errors, deltaSq };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    requireBase(base, target, 'codes');
    const [m, n] = matrixShape(target.shape);
    const bits = parts.info('codes').shape[2] ?? 1;
    if (bits === 1 || bits > MOST_BITS) throw malformed('codes', '[m, n / 8, bits] with 0 or 2 to 8 bits', `[${parts.info('codes').shape.join()}]`);
    const groups = bits === 0 ? 0 : this.#groups(n);
    const codes = await readPart(parts, 'codes', 'U8', [m, Math.ceil(n / 8), bits]);
    const scales = decodeF32(this.#scaleDType(), await readPart(parts, 'scales', this.#scaleDType(), [m, groups]));
    if (bits === 0) return copyBase(c, base, out);
    const plain = new Uint8Array(n);
    await addInPanels(c, await this.#matrix.panels(), base, target, out, (delta, row, count) => {
      for (let i = 0; i < count; i++) {
        unpackCodes(codes, (row + i) * packedBytes(n, bits), bits, plain);
        for (let j = 0, g = (row + i) * groups; j < n; g++) {
          for (const end = Math.min(n, j + this.p.groupSize); j < end; j++) {
            // two's complement of `bits` bits
            const q = (plain[j]! << (32 - bits)) >> (32 - bits);
            delta[i * n + j] = q === 0 ? -0 : q * scales[g]!;
          }
        }
      }
    });
  }
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'int',
  title: 'Residual in groups of symmetric integers of 2 to 8 bits',
  paper: { cite: 'Lloyd, "Least Squares Quantization in PCM", IEEE Trans. Inf. Theory 28(2), 1982', url: 'https://doi.org/10.1109/TIT.1982.1056489' },
  params,
  create: (raw) => new Int(parseParams('int', params, raw)),
};
export default method;
