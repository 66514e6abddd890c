/** A codec's parts in memory. */
import type { DType } from '../../core/dtype.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import type { Ctx } from '../../methods/define.js';
import type { DeltaCodec, EncodeInfo, PartSink, PartSource, TensorSource } from '../../methods/kinds.js';

export const CTX: Ctx = { device: 'cpu', rng: new Rng(7), blasThreads: 1, memoryBytes: 1e9, report: () => undefined, checkpointCancel: () => undefined };

export class MemoryParts implements PartSink, PartSource {
  readonly parts = new Map<string, { bytes: Uint8Array; dtype: DType; shape: readonly number[] }>();

  async write(part: string, position: number, bytes: Uint8Array): Promise<void> {
    const old = this.parts.get(part)?.bytes ?? new Uint8Array(0);
    const all = new Uint8Array(Math.max(old.length, position + bytes.length));
    all.set(old);
    all.set(bytes, position);
    this.parts.set(part, { bytes: all, dtype: 'U8', shape: [all.length] });
  }

  declare(part: string, dtype: DType, shape: readonly number[]): void {
    this.parts.set(part, { ...this.#at(part), dtype, shape });
  }

  #at(part: string): { bytes: Uint8Array; dtype: DType; shape: readonly number[] } {
    return this.parts.get(part) ?? { bytes: new Uint8Array(0), dtype: 'U8', shape: [0] };
  }

  info(part: string): { name: string; dtype: DType; shape: readonly number[] } {
    const { dtype, shape } = this.#at(part);
    return { name: part, dtype, shape };
  }

  async read(part: string, begin = 0, end = this.#at(part).bytes.length): Promise<Uint8Array> {
    return this.#at(part).bytes.slice(begin, end);
  }

  async readInto(part: string, begin: number, target: Uint8Array): Promise<void> {
    target.set(this.#at(part).bytes.subarray(begin, begin + target.length));
  }

  get size(): number {
    return [...this.parts.values()].reduce((sum, p) => sum + p.bytes.length, 0);
  }
}

const sourceOf = (v: TensorView): TensorSource => ({ ...v, byteLength: v.bytes.length, readInto: async (at, to) => to.set(v.bytes.subarray(at, at + to.length)) }); // prettier-ignore

/** Codes a tensor without a base. */
export async function encodeAlone(codec: DeltaCodec, v: TensorView): Promise<{ parts: MemoryParts; info: EncodeInfo }> {
  const parts = new MemoryParts();
  return { info: await codec.encode(CTX, undefined, sourceOf(v), parts, {}), parts };
}

export async function decodeAlone(codec: DeltaCodec, parts: PartSource, v: TensorView): Promise<Uint8Array> {
  const out = new Uint8Array(v.bytes.length);
  await codec.decode(CTX, undefined, parts, v, { write: async (position, bytes) => out.set(bytes, position) });
  return out;
}
