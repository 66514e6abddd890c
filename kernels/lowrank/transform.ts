/**
 * Transform coding of a matrix in its singular basis, one step for everything (pith's own; the rate-distortion view of low-rank
 * deltas). With D = U diag(s) V^T, errors of X = U diag(s) and of Y = V diag(s) add up evenly, so both are quantized with one step t:
 *   D ~ sum_k x^_k (y^_k / s_k)^T
 * which sets every rank and bit width at once (reverse water-filling). A component is kept where what it takes off the squared
 * error pays for its bits at the quantizer's own slope, lambda = (ln 2 / 6) t^2 per bit (high-rate theory: error t^2 / 12, -6.02 dB a bit).
 */
import { toBf16 } from '../../core/float.js';
import { CENTROIDS, CentroidSums, entropyBits, magnitudes, MAX_LEVEL, ROUNDING } from '../levels/quantize.js';
import { BEYOND, COLUMN_SUMS, COLUMN_TOPS, type LevelTally } from '../levels/tally.js';
import { columnSquares } from '../linalg/truncated-svd.js';
import { factors, leastValue, type Basis } from './singular-basis.js';

const LAMBDA = Math.LN2 / 6;
/** Component scale, two stream columns: what a component costs besides its levels. */
const COMPONENT_BITS = 24;
/** Rows of a factor that rates are estimated from. */
const SAMPLE_ROWS = 384;

/** Levels of the components that pay. */
export interface Coded {
  readonly rank: number;
  /** s_k / t, bf16: row j of Y is y / (t ratio) */
  readonly ratios: Uint16Array;
  /** (m, rank), (n, rank) */
  readonly x: Int16Array;
  readonly y: Int16Array;
  readonly centroidsX: Uint8Array;
  readonly centroidsY: Uint8Array;
}

export function codeBasis(b: Basis, step: number, tally: LevelTally): Coded {
  const rank = usable(b, step);
  const { x, y } = factors(b, rank);
  const sideX = sideOf({ values: x, stride: rank, squares: columnSquares(x, rank), scale: 1 }, rank, step, tally);
  const sideY = sideOf({ values: y, stride: rank, squares: columnSquares(y, rank), scale: 1 }, rank, step, tally);
  const kept = price(b, sideX, sideY).flatMap((c, k) => (pays(c, step) ? [k] : []));
  return {
    rank: kept.length,
    ratios: Uint16Array.from(kept, (k) => toBf16(b.s[k]! / step)),
    x: levelsOf(x, rank, kept, step),
    y: levelsOf(y, rank, kept, step),
    centroidsX: centroidsOf(sideX, kept, step),
    centroidsY: centroidsOf(sideY, kept, step),
  };
}

/** Rows of both factors that rates are estimated from. */
export class BasisSample {
  readonly #x: Columns;
  readonly #y: Columns;

  constructor(private readonly b: Basis) {
    const { x, y } = factors(b, b.rank, strideOf(b.m), strideOf(b.n));
    const sampled = (values: Float32Array, count: number): Columns => {
      const scale = count / Math.ceil(count / strideOf(count));
      return { values, stride: b.rank, squares: columnSquares(values, b.rank), scale };
    };
    [this.#x, this.#y] = [sampled(x, b.m), sampled(y, b.n)];
  }

  /** Bytes and squared error that `codeBasis` would give. */
  estimate(step: number, frobeniusSq: number, tally: LevelTally): { bytes: number; errorSq: number } {
    const { b } = this;
    const rank = usable(b, step);
    let [bits, errorSq] = [0, frobeniusSq];
    for (const c of price(b, sideOf(this.#x, rank, step, tally), sideOf(this.#y, rank, step, tally))) {
      if (!pays(c, step)) continue;
      bits += c.bits;
      errorSq -= c.gain;
    }
    return { bytes: bits / 8, errorSq: Math.max(0, errorSq) };
  }
}

const strideOf = (count: number): number => Math.ceil(count / SAMPLE_ROWS);

/** Leading components that may pay. */
function usable(b: Basis, step: number): number {
  const least = leastValue(b.m, b.n, step);
  const rank = b.s.findIndex((v) => v < least);
  return rank < 0 ? b.rank : rank;
}

interface Price {
  readonly bits: number;
  /** What keeping the component takes off the squared error. */
  readonly gain: number;
}

const pays = (c: Price, step: number): boolean => c.gain > LAMBDA * step * step * c.bits;

/** Every component's bits (entropy of its levels) and gain. */
function price(b: Basis, x: Side, y: Side): Price[] {
  return Array.from(x.bits, (bits, k) => {
    // ||x y^T / s||^2 - ||x y^T / s - x^ y^^T / s||^2, where <x, x> = <y, y> = s^2
    const gain = b.s[k]! ** 2 * (2 * x.cross[k]! * y.cross[k]! - x.square[k]! * y.square[k]!);
    return { bits: bits + y.bits[k]! + COMPONENT_BITS, gain };
  });
}

/** Components in columns, values (rows, stride); `scale`: of how many rows each stands for. */
interface Columns {
  readonly values: Float32Array;
  readonly stride: number;
  /** <x, x> of each. */
  readonly squares: Float64Array;
  readonly scale: number;
}

/** One quantized factor. */
interface Side {
  /** By component: <x, x^> and <x^, x^> over <x, x>, so that a sample's own energy cancels. */
  readonly cross: Float64Array;
  readonly square: Float64Array;
  /** Entropy of its levels, times `scale`. */
  readonly bits: Float64Array;
  /** (rank, COLUMN_SUMS) and (rank, CENTROIDS + 1): magnitudes summed and values counted by level. */
  readonly sums: Float64Array;
  readonly counts: Uint32Array;
}

/** The first `rank` components. */
function sideOf({ values, stride, squares, scale }: Columns, rank: number, step: number, tally: LevelTally): Side {
  const { counts: all, sums: views } = tally.columns(values, stride, rank, step);
  const sums = views.slice();
  const counts = new Uint32Array(rank * (CENTROIDS + 1));
  for (let k = 0; k < rank; k++) counts.set(all.subarray(k * COLUMN_TOPS, k * COLUMN_TOPS + CENTROIDS + 1), k * (CENTROIDS + 1));
  const size = magnitudes(centroidsOf({ sums, counts }, undefined, step), CENTROIDS);
  const rows = stride === 0 ? 0 : values.length / stride;
  const [cross, square, bits] = [new Float64Array(rank), new Float64Array(rank), new Float64Array(rank)];
  for (let k = 0; k < rank; k++) {
    const own = all.subarray(k * COLUMN_TOPS, (k + 1) * COLUMN_TOPS);
    const sum = sums.subarray(k * COLUMN_SUMS, (k + 1) * COLUMN_SUMS);
    // a sign for every level but 0, raw bits for what the counts do not tell apart
    bits[k] = scale * (entropyBits(own) + rows - own[0]! + 8 * own[COLUMN_TOPS - 1]!);
    let [c, s] = [step * sum[BEYOND.product]!, step * step * sum[BEYOND.square]!];
    for (let l = 1; l <= CENTROIDS; l++) {
      const v = step * size[l]!;
      c += v * sum[l]!;
      s += v * v * own[l]!;
    }
    const energy = squares[k]! || 1;
    cross[k] = c / energy;
    square[k] = s / energy;
  }
  return { cross, square, bits, sums, counts };
}

/** Centroids over all components, or the `kept` ones. */
function centroidsOf({ sums, counts }: Pick<Side, 'sums' | 'counts'>, kept: readonly number[] | undefined, step: number): Uint8Array {
  const centroids = new CentroidSums();
  const add = (k: number): void => centroids.addTotals(sums.subarray(k * COLUMN_SUMS), counts.subarray(k * (CENTROIDS + 1)), step);
  if (kept === undefined) for (let k = 0; k < sums.length / COLUMN_SUMS; k++) add(k);
  else kept.forEach(add);
  return centroids.bytes();
}

/** Levels of the components `kept`: values (rows, rank) -> (rows, kept.length). */
function levelsOf(values: Float32Array, rank: number, kept: readonly number[], step: number): Int16Array {
  const rows = rank === 0 ? 0 : values.length / rank;
  const out = new Int16Array(rows * kept.length);
  const [columns, inverse] = [Uint32Array.from(kept), 1 / step];
  for (let i = 0, to = 0; i < rows; i++) {
    for (let j = 0; j < columns.length; j++, to++) {
      const v = values[i * rank + columns[j]!]!;
      const l = Math.min(MAX_LEVEL, Math.floor(Math.abs(v) * inverse + ROUNDING));
      out[to] = v < 0 ? -l : l;
    }
  }
  return out;
}

/** Levels -> values: the left factor (times the step) or the right one (over s / t); normative. */
export function dequantize(levels: Int16Array, rank: number, centroids: Uint8Array, scale: (k: number) => number, divide: boolean): Float32Array {
  const size = magnitudes(centroids, CENTROIDS);
  const out = new Float32Array(levels.length);
  for (let i = 0; i < out.length; i++) {
    const l = levels[i]!;
    const a = l < 0 ? -l : l;
    const v = a <= CENTROIDS ? size[a]! : a;
    const s = scale(i % rank);
    out[i] = (l < 0 ? -1 : 1) * Math.fround(divide ? v / s : v * s);
  }
  return out;
}
