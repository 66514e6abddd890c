/** How many components each layer keeps: a share of its parameters, or of all layers' together shared by what each is worth. */
import { PithError } from '../../core/errors.js';
import { withinBytes, type RateCurve } from '../../kernels/lowrank/water-fill.js';

export const ALLOCATIONS = ['uniform', 'energy'] as const;
export type Allocation = (typeof ALLOCATIONS)[number];

/** What is asked for; exactly one of them. */
export type RankTarget =
  | { readonly ratio: number; readonly allocation: Allocation }
  | { readonly rank: number }
  /** The least rank that keeps this share of sum s_i^2. */
  | { readonly energy: number };

export interface Sides {
  readonly m: number;
  readonly n: number;
}

/** Parameters of a rank's factors. */
export const factorParameters = ({ m, n }: Sides, rank: number): number => rank * (m + n);

/** floor(ratio m n / (m + n)), one at least; undefined: the layer stays as it is. The rule of SVD-LLM's and ASVD's code. */
export function uniformRank(sides: Sides, ratio: number): number | undefined {
  const { m, n } = sides;
  const rank = Math.max(1, Math.floor((ratio * m * n) / (m + n)));
  return ratio >= 1 || factorParameters(sides, rank) >= m * n ? undefined : rank;
}

/** The least rank with sum_{i < r} s_i^2 >= energy sum s_i^2, one at least; undefined where its factors are no smaller than the layer. */
export function energyRank(sides: Sides, s: ArrayLike<number>, energy: number): number | undefined {
  const { m, n } = sides;
  let total = 0;
  for (let i = 0; i < s.length; i++) total += s[i]! ** 2;
  let [kept, rank] = [0, 0];
  while (rank < s.length && kept < energy * total) kept += s[rank++]! ** 2;
  rank = Math.max(1, rank);
  return factorParameters(sides, rank) >= m * n ? undefined : rank;
}

/**
 * Water-filling: the ranks, within `ratio` of all parameters, that leave the least sum over layers of the relative squared error in the method's
 * metric. A layer whose factors would be as large as itself stays as it is. TARGET_TOO_SMALL (64) when one component each is too much already.
 */
export function sharedRanks(layers: readonly (Sides & { readonly s: ArrayLike<number> })[], ratio: number): (number | undefined)[] {
  const curves = layers.map(curveOf);
  const budget = ratio * layers.reduce((sum, { m, n }) => sum + m * n, 0);
  const least = curves.reduce((sum, c) => sum + c.bytes[0]!, 0);
  if (least > budget) throw new PithError('TARGET_TOO_SMALL', { expected: Math.floor(budget), got: least, message: 'every layer keeps one component (counted in parameters)' }); // prettier-ignore
  const { points } = withinBytes(curves, budget);
  return points.map((p, i) => (p === curves[i]!.bytes.length - 1 ? undefined : p + 1));
}

/** Point p is rank p + 1, the last one is the layer itself. "Bytes" are parameters. */
function curveOf({ m, n, s }: Sides & { readonly s: ArrayLike<number> }): RateCurve {
  const most = Math.max(1, Math.min(s.length, Math.floor((m * n) / (m + n)) - 1));
  let total = 0;
  for (let i = 0; i < s.length; i++) total += s[i]! ** 2;
  const [bytes, errorSq] = [[] as number[], [] as number[]];
  let left = total;
  for (let r = 1; r <= most; r++) {
    left = Math.max(0, left - s[r - 1]! ** 2);
    bytes.push(r * (m + n));
    errorSq.push(total > 0 ? left / total : 0);
  }
  return { bytes: [...bytes, Math.max(m * n, bytes.at(-1)! + 1)], errorSq: [...errorSq, 0], deltaSq: 1 };
}
