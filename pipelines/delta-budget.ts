/** Shares a byte budget over the tensors of a delta: rate curves in, one point of its curve for every tensor out. */
import { PithError } from '../core/errors.js';
import { deltaBytes } from '../formats/delta/write.js';
import { withinBytes, withinError, type Allocation } from '../kernels/lowrank/water-fill.js';
import type { EncodeResult, RatesResult } from '../workers/messages.js';
import { assemble, type Assembly } from './delta-assemble.js';
import type { PlannedTensor } from './delta-plan.js';

/** At most one is given; all count the whole file. */
export interface DeltaTarget {
  readonly bytes?: number;
  /** N times smaller than the raw bytes. */
  readonly ratio?: number;
  /** ||What - W1||_F / ||W1 - W0||_F over the tensors that the method codes. */
  readonly maxError?: number;
}

/** A budget of its own for the embeddings, in bytes of their parts. */
export interface EmbeddingBudget {
  readonly bytes: number;
}

export function targetBytes(target: DeltaTarget, rawBytes: number): number | undefined {
  return target.bytes ?? (target.ratio === undefined ? undefined : Math.floor(rawBytes / target.ratio));
}

/** What a header grows by when a rank has more digits than was assumed. */
const DIGITS_BYTES = 8;
const SHA = '0'.repeat(64);

/** Bytes of the file without the parts that the budget is for: exact parts, side files, headers. */
async function fixedBytes(a: Assembly, budgeted: ReadonlySet<string>): Promise<number> {
  const placeholder: EncodeResult = {
    info: { identical: false, facts: { rank: 1000, residual: 0.12345678901234 } },
    parts: ['lora_A', 'lora_B', 'lora_A.scale', 'lora_B.scale'].map((part) => ({ part, dtype: 'U8', shape: [0, 1000], bytes: 0, sha256: SHA })),
    tunedSha256: SHA,
    restoredSha256: '1'.repeat(64),
    baseSha256: SHA,
    byMethod: true,
  };
  const result = (name: string): EncodeResult => (budgeted.has(name) ? placeholder : a.result(name));
  const { content } = await assemble({ ...a, result, baseSha256: () => SHA });
  return deltaBytes(content) + DIGITS_BYTES * budgeted.size;
}

/** The point of every budgeted tensor. TARGET_TOO_SMALL when even the first points do not fit. */
export async function allocateBudget(
  a: Assembly,
  target: DeltaTarget,
  embeddings: EmbeddingBudget | undefined,
  curves: ReadonlyMap<string, RatesResult>,
): Promise<ReadonlyMap<string, number>> {
  const tensors = a.plan.tensors.filter((t) => curves.has(t.name));
  const [own, shared] = split(tensors, embeddings !== undefined);
  const points = new Map<string, number>();
  let spent = 0;
  const take = (group: readonly PlannedTensor[], allocation: Allocation): void => {
    group.forEach((t, i) => points.set(t.name, allocation.points[i]!));
    spent += allocation.bytes;
  };
  const of = (group: readonly PlannedTensor[]): RatesResult[] => group.map((t) => curves.get(t.name)!);
  if (embeddings !== undefined) take(own, fit(of(own), embeddings.bytes, 'the embeddings alone'));
  const bytes = targetBytes(target, a.plan.rawBytes);
  if (bytes === undefined) {
    const deltaSq = of(shared).reduce((sum, c) => sum + c.deltaSq, 0);
    take(shared, withinError(of(shared), (target.maxError ?? 0) ** 2 * deltaSq));
  } else {
    const fixed = await fixedBytes(a, new Set(tensors.map((t) => t.name)));
    take(shared, fit(of(shared), bytes - fixed - spent, 'tensors that are stored exactly and the header', fixed + spent));
  }
  return points;
}

function split(tensors: readonly PlannedTensor[], ownEmbeddings: boolean): [own: PlannedTensor[], shared: PlannedTensor[]] {
  const isOwn = (t: PlannedTensor): boolean => ownEmbeddings && (t.role === 'embedding' || t.role === 'head');
  return [tensors.filter(isOwn), tensors.filter((t) => !isOwn(t))];
}

function fit(curves: readonly RatesResult[], bytes: number, what: string, before = 0): Allocation {
  const allocation = withinBytes(curves, bytes);
  if (allocation.bytes > bytes) {
    throw new PithError('TARGET_TOO_SMALL', { expected: Math.max(0, bytes + before), got: allocation.bytes + before, message: `${what} come first` });
  }
  return allocation;
}
