/** Shares a budget over the tensors of a delta: rate curves of one codec or of several in, one codec and point for every tensor out. */
import { PithError } from '../core/errors.js';
import { withinBytes, withinError, type RateCurve } from '../kernels/lowrank/water-fill.js';
import type { RatesResult } from '../workers/messages/delta.js';

/** At most one is given; all count the whole file. */
export interface DeltaTarget {
  readonly bytes?: number;
  /** N times smaller than the raw bytes. */
  readonly ratio?: number;
  /** ||What - W1||_F / ||W1 - W0||_F over the tensors that share the budget. */
  readonly maxError?: number;
}

/** A budget of its own for the embeddings, in bytes of their parts. */
export interface EmbeddingBudget {
  readonly bytes: number;
}

export function targetBytes(target: DeltaTarget, rawBytes: number): number | undefined {
  return target.bytes ?? (target.ratio === undefined ? undefined : Math.floor(rawBytes / target.ratio));
}

/** One of the plan's methods and a point of its curve. */
export interface Choice {
  readonly method: number;
  readonly point: number;
}

interface Option extends Choice {
  readonly bytes: number;
  readonly errorSq: number;
}

/** What a method would take and leave on one tensor, by prediction; corrected by what it really took. */
interface Candidate {
  readonly method: number;
  readonly rates: RatesResult;
  bytesScale: number;
  errorScale: number;
}

/** Corrections beyond this say more about the point than about the curve. */
const MOST_CORRECTION = 4;
const within = (scale: number): number => Math.min(MOST_CORRECTION, Math.max(1 / MOST_CORRECTION, scale));

export class Allocator {
  readonly #candidates = new Map<string, Candidate[]>();
  readonly #weights = new Map<string, number>();

  add(tensor: string, method: number, rates: RatesResult): void {
    const list = this.#candidates.get(tensor) ?? [];
    list.push({ method, rates, bytesScale: 1, errorScale: 1 });
    this.#candidates.set(tensor, list);
  }

  /** What a squared error in a tensor counts for; 1 unless it is said. */
  weigh(weights: ReadonlyMap<string, number>): void {
    for (const [tensor, weight] of weights) this.#weights.set(tensor, weight);
  }

  #weight(tensor: string): number {
    return this.#weights.get(tensor) ?? 1;
  }

  deltaSq(tensor: string): number {
    return Math.max(0, ...(this.#candidates.get(tensor) ?? []).map((c) => c.rates.deltaSq));
  }

  /** The method's prediction for this tensor is scaled to what was measured. */
  learn(tensor: string, choice: Choice, bytes: number, errorSq: number | undefined): void {
    const c = this.#candidates.get(tensor)?.find((candidate) => candidate.method === choice.method);
    if (c === undefined) return;
    const [predictedBytes, predictedError] = [c.rates.bytes[choice.point]!, c.rates.errorSq[choice.point]!];
    if (predictedBytes > 0) c.bytesScale = within(bytes / predictedBytes);
    if (predictedError > 0 && errorSq !== undefined) c.errorScale = within(errorSq / predictedError);
  }

  /** All codecs' points on one scale: more bytes, less error. */
  #options(tensor: string): Option[] {
    const weight = this.#weight(tensor);
    const all = (this.#candidates.get(tensor) ?? []).flatMap(({ method, rates, bytesScale, errorScale }) =>
      rates.bytes.map((bytes, point): Option => ({ method, point, bytes: bytes * bytesScale, errorSq: rates.errorSq[point]! * errorScale * weight })),
    );
    all.sort((a, b) => a.bytes - b.bytes || a.errorSq - b.errorSq || a.method - b.method);
    const kept: Option[] = [];
    for (const o of all) if (kept.length === 0 || o.errorSq < kept.at(-1)!.errorSq) kept.push(o);
    return kept;
  }

  /** Predicted bytes of the parts of `tensors` at most `bytes`: TARGET_TOO_SMALL when even their first points do not fit. */
  withinBytes(tensors: readonly string[], bytes: number, first: { readonly what: string; readonly bytes: number }): Map<string, Choice> {
    return this.#choose(tensors, (curves) => {
      const a = withinBytes(curves, bytes);
      if (a.bytes > bytes) {
        throw new PithError('TARGET_TOO_SMALL', {
          expected: Math.max(0, bytes + first.bytes),
          got: a.bytes + first.bytes,
          message: `${first.what} come first`,
        });
      }
      return a.points;
    });
  }

  /**
   * The choices with as few changes as bring the predicted bytes just below `bytes` more (or, when negative, fewer), or the predicted
   * squared error to `errorSq` less: steps of the tensors' curves in the order of error per byte.
   */
  adjust(choices: ReadonlyMap<string, Choice>, by: { readonly bytes: number } | { readonly errorSq: number }): Map<string, Choice> {
    const steps = [...choices].map(([name, choice]) => {
      const options = hull(this.#options(name));
      const at = options.findIndex((o) => o.method === choice.method && o.point === choice.point);
      return {
        name,
        options,
        at: at >= 0 ? at : nearest(options, this.#bytesOf(name, choice)),
        error: this.#errorOf(name, choice),
        now: this.#bytesOf(name, choice),
      };
    });
    const out = new Map(choices);
    const direction = ('bytes' in by ? by.bytes : by.errorSq) > 0 ? 1 : -1;
    let left = 'bytes' in by ? by.bytes : Infinity;
    let excess = 'bytes' in by ? 0 : by.errorSq;
    const enough = (): boolean => ('bytes' in by ? direction < 0 && left >= 0 : direction > 0 && excess <= 0);
    const worth = (s: (typeof steps)[number]): number => {
      const to = s.options[s.at + direction];
      return to === undefined || to.bytes === s.now ? NaN : (s.error - to.errorSq) / (to.bytes - s.now);
    };
    const open = new Set(steps);
    while (open.size > 0 && !enough()) {
      let best: (typeof steps)[number] | undefined;
      for (const s of open) {
        const w = worth(s);
        if (Number.isNaN(w)) open.delete(s);
        else if (best === undefined || (direction > 0 ? w > worth(best) : w < worth(best))) best = s;
      }
      if (best === undefined) break;
      const to = best.options[best.at + direction]!;
      const tooFar = direction > 0 ? to.bytes - best.now > left : !('bytes' in by) && excess + to.errorSq - best.error > 0;
      if (tooFar) {
        open.delete(best);
        continue;
      }
      left -= to.bytes - best.now;
      excess += to.errorSq - best.error;
      out.set(best.name, { method: to.method, point: to.point });
      best.at += direction;
      best.now = to.bytes;
      best.error = to.errorSq;
    }
    return out;
  }

  #bytesOf(tensor: string, choice: Choice): number {
    const c = this.#candidates.get(tensor)?.find((candidate) => candidate.method === choice.method);
    return c === undefined ? 0 : c.rates.bytes[choice.point]! * c.bytesScale;
  }

  #errorOf(tensor: string, choice: Choice): number {
    const c = this.#candidates.get(tensor)?.find((candidate) => candidate.method === choice.method);
    return c === undefined ? 0 : c.rates.errorSq[choice.point]! * c.errorScale * this.#weight(tensor);
  }

  /** Predicted total squared error at most `errorSq`. */
  withinError(tensors: readonly string[], errorSq: number): Map<string, Choice> {
    return this.#choose(tensors, (curves) => withinError(curves, errorSq).points);
  }

  #choose(tensors: readonly string[], solve: (curves: readonly RateCurve[]) => readonly number[]): Map<string, Choice> {
    const options = tensors.map((t) => this.#options(t));
    const points = solve(
      options.map((o, i) => ({
        bytes: o.map((p) => p.bytes),
        errorSq: o.map((p) => p.errorSq),
        deltaSq: this.deltaSq(tensors[i]!) * this.#weight(tensors[i]!),
      })),
    );
    return new Map(tensors.map((t, i) => [t, options[i]![points[i]!]!]));
  }
}

/** The options on the lower convex hull. */
function hull(options: readonly Option[]): Option[] {
  const out: Option[] = [];
  const slope = (a: Option, b: Option): number => (a.errorSq - b.errorSq) / (b.bytes - a.bytes);
  for (const o of options) {
    while (out.length > 1 && slope(out.at(-2)!, out.at(-1)!) <= slope(out.at(-1)!, o)) out.pop();
    out.push(o);
  }
  return out;
}

function nearest(options: readonly Option[], bytes: number): number {
  let best = 0;
  for (const [i, o] of options.entries()) if (Math.abs(o.bytes - bytes) < Math.abs(options[best]!.bytes - bytes)) best = i;
  return best;
}
