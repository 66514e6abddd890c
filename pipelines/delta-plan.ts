/** Decides from headers alone what is done with each tensor of a pair. */
import { PithError } from '../core/errors.js';
import { byteLength, rowCount, sameShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { DeltaCodec, TensorPlan } from '../methods/kinds.js';
import { roleOf } from '../models/roles.js';

export type Pairing =
  | { readonly kind: 'pair'; readonly commonRows?: number }
  /** In tuned only, or of another dtype or row shape: coded standalone. */
  | { readonly kind: 'standalone' };

export interface PlannedTensor extends TensorPlan {
  readonly bytes: number;
  readonly pairing: Pairing;
  /** The base has a tensor of this name, fitting or not. */
  readonly inBase: boolean;
  /** Which of the plan's methods codes it; 0 is lossless. */
  readonly method: number;
  /** Several methods that take it, among which a budget decides. */
  readonly candidates?: readonly number[];
}

/** What codes a tensor: its place in the delta's list of methods. */
export interface PlannedMethod {
  readonly name: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly codec: DeltaCodec;
  readonly selects: (tensor: TensorPlan) => boolean;
  /** One of several that compete for each tensor. */
  readonly competes?: boolean;
}

export interface DeltaPlan {
  /** methods[0] is lossless: what no other one takes. */
  readonly methods: readonly PlannedMethod[];
  readonly tensors: readonly PlannedTensor[];
  /** Base tensors that the tuned checkpoint lacks. */
  readonly removed: readonly string[];
  readonly rawBytes: number;
}

/** How the tuned tensor relates to the base's tensor of the same name. */
export function pair(base: TensorInfo | undefined, tuned: TensorInfo): Pairing {
  if (base?.dtype !== tuned.dtype) return { kind: 'standalone' };
  if (sameShape(base.shape, tuned.shape)) return { kind: 'pair' };
  const rowsDiffer = base.shape.length === tuned.shape.length && tuned.shape.length > 0 && sameShape(base.shape.slice(1), tuned.shape.slice(1));
  const commonRows = Math.min(rowCount(base.shape), rowCount(tuned.shape));
  const wholeBytes = (byteLength(tuned.dtype, [commonRows, ...tuned.shape.slice(1)]) * 8) % 8 === 0;
  return rowsDiffer && commonRows > 0 && wholeBytes ? { kind: 'pair', commonRows } : { kind: 'standalone' };
}

/** The first method that selects and accepts a tensor codes it. */
export function planDelta(base: CheckpointReader | undefined, tuned: CheckpointReader, methods: readonly PlannedMethod[]): DeltaPlan {
  const tensors: PlannedTensor[] = [];
  for (const info of tuned.infos.values()) {
    const pairing = pair(base?.infos.get(info.name), info);
    const plan: TensorPlan = { ...info, role: roleOf(info), hasBase: pairing.kind === 'pair' };
    const takes = (m: PlannedMethod): boolean => plan.hasBase !== (m.codec.standalone ?? false) && m.selects(plan) && m.codec.accepts(plan);
    const method = Math.max(
      0,
      methods.findIndex((m, i) => i > 0 && (!m.codec.lossless || m.codec.standalone === true) && takes(m)),
    );
    const candidates = methods.flatMap((m, i) => (m.competes === true && takes(m) ? [i] : []));
    const compete = candidates.length > 1 ? { candidates } : {};
    tensors.push({ ...plan, bytes: byteLength(info.dtype, info.shape), pairing, inBase: base?.infos.has(info.name) ?? false, method, ...compete });
  }
  const removed = base === undefined ? [] : [...base.infos.keys()].filter((name) => !tuned.infos.has(name));
  if (base !== undefined && tensors.length > 0 && tensors.every((t) => !t.hasBase)) {
    throw new PithError('SHAPE_MISMATCH', {
      file: tuned.source,
      tensor: tensors[0]!.name,
      expected: `tensors of ${base.source}`,
      got: 'no tensor with the name, dtype and row shape of a base tensor; use --base none to compress it alone',
    });
  }
  return { methods, tensors, removed, rawBytes: tensors.reduce((sum, t) => sum + t.bytes, 0) };
}
