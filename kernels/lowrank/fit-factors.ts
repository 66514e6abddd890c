/**
 * Singular factors in mixed widths, fitted to what the layer is fed ("Delta-CoMe", arXiv 2406.08903, section 3.3), D ~ U S V, V (r, n):
 *   V^ = GPTQ(V; G),  G = X^T X
 *   U^ = GPTQ(U*; H), H = S V^ G V^^T S, the Gram matrix of the inputs as U^ sees them
 *   U* = U + (D - U S V^) G V^^T S H^-1: the least squares factor beside V^, so that U^ also makes up for what V^ and the rank leave
 * Deviation: the paper rounds U itself. Same parts, sizes and decoder as factors rounded to nearest (bit-factors.ts).
 */
import { decodeF32, encodeAs } from '../../core/float.js';
import { transposed, type MatrixOps } from '../linalg/matrix-ops.js';
import { affineCodes, affineValues, type AffineGroups } from '../quant/affine.js';
import { gptq, type ColumnGrid } from '../quant/gptq.js';
import { IntGrid } from '../quant/int-grid.js';
import { inverseFactor } from '../quant/inverse-factor.js';
import { GROUP, keptDirections, packFactors, type BitFactors, type Directions } from './bit-factors.js';

/** As released. */
const DAMPING = 0.01;

export interface FitOptions {
  /** X^T X of the side that the inputs run along: (n, n), or (m, m) when `transposed`. Left as it is. */
  readonly gram: Float32Array;
  /** D is stored (in, out): the inputs run along its rows. */
  readonly transposed: boolean;
  readonly ops: MatrixOps;
  readonly checkpointCancel?: () => void;
}

/** Bytes beyond D and its factors. */
export const fitBytes = (m: number, n: number): number => 4 * m * n + 32 * Math.max(m, n) ** 2;

/** delta: (m, n), which d is of. bits[k]: 0 drops direction k. NOT_FINITE (65) for a Gram matrix that is none. */
export function fitFactors(delta: Float32Array, d: Directions, m: number, n: number, bits: readonly number[], o: FitOptions): BitFactors {
  const kept = keptDirections(d.s.length, bits);
  const widths = Uint8Array.from(kept, (k) => bits[k]!);
  const s = Float32Array.from(kept, (k) => d.s[k]!);
  const [v, u] = [rowsOf(d.vt, n, kept), rowsOf(transposed(d.u, m, d.s.length), m, kept)];
  if (o.transposed) {
    const fitted = fitSides(transposed(delta, m, n), u, v, s, widths, n, m, o);
    return packFactors(s, widths, m, n, (k) => [fitted.inner(k), fitted.outer[k]!]);
  }
  const fitted = fitSides(delta, v, u, s, widths, m, n, o);
  return packFactors(s, widths, m, n, (k) => [fitted.outer[k]!, fitted.inner(k)]);
}

function rowsOf(a: Float32Array, width: number, rows: readonly number[]): Float32Array {
  const out = new Float32Array(rows.length * width);
  for (const [i, k] of rows.entries()) out.set(a.subarray(k * width, (k + 1) * width), i * width);
  return out;
}

interface Sides {
  /** Of the side that the inputs run along. */
  readonly inner: (k: number) => AffineGroups;
  readonly outer: readonly AffineGroups[];
}

/** delta: (m, n) with the inputs along n; v: (r, n), u: (r, m). */
function fitSides(delta: Float32Array, v: Float32Array, u: Float32Array, s: Float32Array, bits: Uint8Array, m: number, n: number, o: FitOptions): Sides {
  const { ops, gram, checkpointCancel } = o;
  const r = s.length;
  const cancel = checkpointCancel === undefined ? {} : { checkpointCancel };
  const grid = new IntGrid(r, n, { bits, symmetric: false, groupSize: GROUP }).fitStatic(v);
  const vq = gptq(v, r, n, gram, grid, { ops, damping: DAMPING, actOrder: true, ...cancel }).w;
  checkpointCancel?.();
  // (r, n): S V^ G
  const svg = ops.multiply(false, false, r, n, n, vq, gram);
  for (let k = 0; k < r; k++) for (let j = k * n; j < (k + 1) * n; j++) svg[j] = svg[j]! * s[k]!;
  const h = ops.multiply(false, true, r, r, n, svg, vq);
  for (let k = 0; k < r; k++) for (let j = 0; j < r; j++) h[k * r + j] = h[k * r + j]! * s[j]!;
  const outerGrid = new ColumnFactors(bits);
  gptq(leastSquares(delta, u, svg, h, m, n, r, ops), m, r, h, outerGrid, { ops, damping: DAMPING, dampingShare: 'own', ...cancel });
  const { scales, zeros } = grid.parameters();
  const groups = grid.groups;
  const inner = (k: number): AffineGroups => ({
    codes: grid.codes.subarray(k * n, (k + 1) * n),
    scales: encodeAs('F16', scales.subarray(k * groups, (k + 1) * groups)),
    zeros: zeros.subarray(k * groups, (k + 1) * groups),
  });
  return { inner, outer: outerGrid.coded };
}

/** (m, r): U* = U + (D (S V^ G)^T - U H) H^-1; u: (r, m). */
function leastSquares(delta: Float32Array, u: Float32Array, svg: Float32Array, h: Float32Array, m: number, n: number, r: number, ops: MatrixOps): Float32Array {
  const inverse = inverseFactor(h, r, DAMPING, ops, 'own').u;
  const rest = ops.multiply(false, true, m, r, n, delta, svg);
  ops.gemm(true, false, m, r, r, -1, u, h, 1, rest);
  const out = transposed(u, r, m);
  ops.gemm(false, false, m, r, r, 1, ops.multiply(false, true, m, r, r, rest, inverse), inverse, 1, out);
  return out;
}

/** Columns of U^ as they are stored: groups of neighbouring values of a column. */
class ColumnFactors implements ColumnGrid {
  readonly group = 1;
  readonly coded: AffineGroups[] = [];

  constructor(private readonly bits: Uint8Array) {}

  quantize(x: Float32Array, k: number, q: Float32Array): void {
    const coded = affineCodes(x, this.bits[k]!, GROUP);
    affineValues(coded.codes, decodeF32('F16', coded.scales), coded.zeros, GROUP, q);
    this.coded[k] = coded;
  }
}
