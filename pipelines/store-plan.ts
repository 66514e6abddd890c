/** Chooses for every tensor of a model what it is stored against: an object that is there, the closest tensor of the store, or nothing. */
import { PithError } from '../core/errors.js';
import { elementCount } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import * as io from '../formats/io.js';
import { MAX_DEPTH, type StoredModel } from '../formats/store/schema.js';
import { differenceBits } from '../kernels/residual/sketch.js';
import { wordKind } from '../kernels/residual/words.js';
import type { StoreScanResult } from '../workers/messages/store.js';
import { pair } from './delta-plan.js';
import type { Head, StoreIndex } from './store-index.js';

/** Bounds of the search: models looked at (newest first), the tensors and words that rank them, those compared tensor by tensor. */
const SEARCH = { models: 256, rankTensors: 16, rankWords: 256, finalists: 8 };
/** A longer chain must be worth it: every step makes a get slower. */
const DEPTH_COST = 0.02;

export interface ScannedTensor extends TensorInfo, StoreScanResult {
  readonly bytes: number;
}

export interface PlannedObject {
  readonly tensor: ScannedTensor;
  readonly base?: { readonly object: string; readonly rows?: number };
  /** Estimated from the samples. */
  readonly bytes: number;
}

export interface StorePlan {
  /** Objects that are there, with their bases. */
  readonly reused: readonly string[];
  readonly fresh: readonly PlannedObject[];
}

/** `tensors`: one for every object of the new model. */
export function planStore(index: StoreIndex, tensors: readonly ScannedTensor[]): StorePlan {
  const there = (t: ScannedTensor): boolean => !(index.head(t.object) instanceof PithError);
  const finalists = tensors.every(there) ? [] : rank(index, tensors);
  const votes = finalists.map((model) => ({ model, share: distance(index, model, tensors) }));
  votes.sort((a, b) => a.share - b.share);
  const fresh = tensors.filter((t) => !there(t)).map((t) => closest(index, t, votes));
  return { reused: tensors.filter(there).map((t) => t.object), fresh };
}

interface Vote {
  readonly model: StoredModel;
  /** Estimated bytes of the whole new model against this one, as a share of what it would take alone. */
  readonly share: number;
}

/** A tensor of another shape says nothing: it counts neither way. */
function distance(index: StoreIndex, model: StoredModel, tensors: readonly ScannedTensor[], words?: number): number {
  const objects = objectsOf(model);
  let bytes = 0;
  let alone = 0;
  for (const t of tensors) {
    const object = objects.get(t.name);
    const found = object === t.object ? 0 : estimate(index, t, object, words)?.bytes;
    if (found === undefined && object !== undefined) continue;
    bytes += Math.min(t.aloneBytes, found ?? t.aloneBytes);
    alone += t.aloneBytes;
  }
  return alone === 0 ? 1 : bytes / alone;
}

const objectsOf = (model: StoredModel): Map<string, string> => new Map(model.files.flatMap((f) => f.tensors.map((t) => [t.name, t.object] as const)));

const usable = (index: StoreIndex, hash: string | undefined): Head | undefined => {
  const head = hash === undefined ? undefined : index.head(hash);
  return head === undefined || head instanceof PithError || head.depth >= MAX_DEPTH ? undefined : head;
};

interface Estimate {
  readonly bytes: number;
  readonly head: Head;
  readonly rows?: number;
}

/** Estimated bytes of `t` against an object of the same type and shape; undefined where they cannot be compared. */
function estimate(index: StoreIndex, t: ScannedTensor, hash: string | undefined, words?: number): Estimate | undefined {
  const head = usable(index, hash);
  if (head === undefined || pair({ ...head, name: t.name }, t).kind !== 'pair' || elementCount(head.shape) !== elementCount(t.shape)) return undefined;
  const sketch = index.sketch(hash!);
  if (sketch?.length !== t.sketch.length) return undefined;
  const { width } = wordKind(t.dtype);
  const [a, b] = words === undefined ? [sketch, t.sketch] : [thinned(sketch, width / 8, words), thinned(t.sketch, width / 8, words)];
  return { bytes: (differenceBits(t.dtype, a, b) / width) * t.bytes, head };
}

/** At most `words` words, evenly spread. */
function thinned(sketch: Uint8Array, wordBytes: number, words: number): Uint8Array {
  const step = Math.ceil(sketch.length / wordBytes / words);
  if (step <= 1) return sketch;
  const kept = Math.ceil(sketch.length / wordBytes / step);
  const out = new Uint8Array(kept * wordBytes);
  for (let i = 0; i < kept; i++) out.set(sketch.subarray(i * step * wordBytes, (i * step + 1) * wordBytes), i * wordBytes);
  return out;
}

/** The models whose largest tensors are closest. */
function rank(index: StoreIndex, tensors: readonly ScannedTensor[]): StoredModel[] {
  const age = (m: StoredModel): number => io.stat(index.store.model(m.name))?.mtimeMs ?? 0;
  const models = index.models({ skipDamaged: true }).map((m) => [age(m), m] as const);
  const newest = models.sort((a, b) => b[0] - a[0]).slice(0, SEARCH.models);
  const sample = [...tensors].sort((a, b) => b.bytes - a.bytes).slice(0, SEARCH.rankTensors);
  const scored = newest.map(([, m]) => ({ m, share: distance(index, m, sample, SEARCH.rankWords) }));
  return scored
    .sort((a, b) => a.share - b.share)
    .slice(0, SEARCH.finalists)
    .map((s) => s.m);
}

function closest(index: StoreIndex, t: ScannedTensor, votes: readonly Vote[]): PlannedObject {
  let best: PlannedObject = { tensor: t, bytes: t.aloneBytes };
  let cost = t.aloneBytes;
  for (const { model, share } of votes) {
    const object = objectsOf(model).get(t.name);
    const found = estimate(index, t, object) ?? resized(index, t, object, share);
    if (found === undefined) continue;
    const price = found.bytes * (1 + DEPTH_COST * (found.head.depth + 1));
    if (price >= cost) continue;
    cost = price;
    best = { tensor: t, base: { object: object!, ...(found.rows === undefined ? {} : { rows: found.rows }) }, bytes: Math.ceil(found.bytes) };
  }
  return best;
}

/** The same for a tensor whose rows are more or fewer: their samples are of other places, so the model's other tensors speak for the common rows. */
function resized(index: StoreIndex, t: ScannedTensor, hash: string | undefined, modelShare: number): Estimate | undefined {
  const head = usable(index, hash);
  if (head === undefined) return undefined;
  const pairing = pair({ ...head, name: t.name }, t);
  if (pairing.kind !== 'pair' || pairing.commonRows === undefined) return undefined;
  const common = pairing.commonRows / Math.max(1, t.shape[0]!);
  return { bytes: t.aloneBytes * (1 - common + common * modelShare), head, rows: pairing.commonRows };
}
