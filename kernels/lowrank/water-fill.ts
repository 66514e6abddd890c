/**
 * Shares one budget over many tensors: minimize the total squared error for a number of bytes, or the bytes for an error.
 * The Lagrangian of separable convex curves (water-filling): take the steps of all curves in the order of gain per byte.
 * Optimal up to one step. For low-rank deltas a step is one component: gain s_i^2, cost (m + n) values.
 */

/** What one tensor costs and what error is left at each point, both along its own choices (a rank, a bit width, ...). */
export interface RateCurve {
  /** Ascending; point 0 stores nothing or as little as possible. */
  readonly bytes: ArrayLike<number>;
  /** Squared error at each point, not increasing. */
  readonly errorSq: ArrayLike<number>;
  /** Squared error with nothing stored at all. */
  readonly deltaSq: number;
}

export interface Allocation {
  /** Chosen point of every curve, in their order. */
  readonly points: number[];
  readonly bytes: number;
  readonly errorSq: number;
}

interface Step {
  readonly curve: number;
  readonly to: number;
  readonly bytes: number;
  readonly gain: number;
}

/** Steps along the lower convex hull of one curve, so that their gain per byte does not rise; points on an edge stay. */
function hullSteps(curve: RateCurve, index: number): Step[] {
  const hull: number[] = [0];
  const slope = (from: number, to: number): number => (curve.errorSq[from]! - curve.errorSq[to]!) / (curve.bytes[to]! - curve.bytes[from]!);
  for (let p = 1; p < curve.bytes.length; p++) {
    if (curve.errorSq[p]! >= curve.errorSq[hull.at(-1)!]!) continue;
    while (hull.length > 1 && slope(hull.at(-2)!, hull.at(-1)!) < slope(hull.at(-1)!, p)) hull.pop();
    hull.push(p);
  }
  return hull.slice(1).map((to, i) => {
    const from = hull[i]!;
    return { curve: index, to, bytes: curve.bytes[to]! - curve.bytes[from]!, gain: curve.errorSq[from]! - curve.errorSq[to]! };
  });
}

/** All steps by falling gain per byte; equal ones in the order of the curves, so that the result is one. */
function ordered(curves: readonly RateCurve[]): Step[] {
  const steps = curves.flatMap(hullSteps);
  return steps.sort((a, b) => b.gain * a.bytes - a.gain * b.bytes || a.curve - b.curve || a.to - b.to);
}

/** The allocation at `points`; summed anew, as a running difference would cancel. */
function allocation(curves: readonly RateCurve[], points: number[]): Allocation {
  const sum = (values: (c: RateCurve) => ArrayLike<number>): number => curves.reduce((total, c, i) => total + values(c)[points[i]!]!, 0);
  return { points, bytes: sum((c) => c.bytes), errorSq: sum((c) => c.errorSq) };
}

/** The least total squared error within `budgetBytes`. A step that no longer fits ends its own curve, not the others. */
export function withinBytes(curves: readonly RateCurve[], budgetBytes: number): Allocation {
  const points = curves.map(() => 0);
  const ended = new Set<number>();
  let { bytes } = allocation(curves, points);
  for (const s of ordered(curves)) {
    if (ended.has(s.curve)) continue;
    if (bytes + s.bytes > budgetBytes) {
      ended.add(s.curve);
      continue;
    }
    points[s.curve] = s.to;
    bytes += s.bytes;
  }
  return allocation(curves, points);
}

/** The fewest bytes whose total squared error is at most `errorSq`, up to one step. */
export function withinError(curves: readonly RateCurve[], errorSq: number): Allocation {
  const points = curves.map(() => 0);
  let chosen = allocation(curves, points);
  for (const s of ordered(curves)) {
    if (chosen.errorSq <= errorSq) break;
    points[s.curve] = s.to;
    chosen = allocation(curves, points);
  }
  return chosen;
}
