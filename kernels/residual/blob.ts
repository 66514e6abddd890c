/** The stored form of one tensor's residual: a small head with the end of each segment, then the segments. */
import { PithError } from '../../core/errors.js';

/** "PRS" and the version. */
const MAGIC = [0x50, 0x52, 0x53, 0x01] as const;

/** Magic and version (4 bytes), segment count (u32), then each segment's end as u64, counted from the blob's start. */
export function blobHeadBytes(segments: number): number {
  return 8 + 8 * segments;
}

/** Collects the segments' lengths; the segments themselves go where the caller wants them. */
export class BlobHead {
  readonly #ends: number[] = [];
  #end: number;

  constructor(readonly segments: number) {
    this.#end = blobHeadBytes(segments);
  }

  /** Where the next segment starts; the blob's length after the last. */
  get end(): number {
    return this.#end;
  }

  add(bytes: number): void {
    this.#end += bytes;
    this.#ends.push(this.#end);
  }

  bytes(): Uint8Array {
    const out = new Uint8Array(blobHeadBytes(this.segments));
    const view = new DataView(out.buffer);
    out.set(MAGIC);
    view.setUint32(4, this.segments, true);
    this.#ends.forEach((end, i) => view.setBigUint64(8 + 8 * i, BigInt(end), true));
    return out;
  }
}

/** Byte range of each segment. RESIDUAL_MALFORMED unless they fill the blob of `total` bytes. */
export function parseBlobHead(head: Uint8Array, total: number, segments: number): [begin: number, end: number][] {
  const bad = (message: string): never => {
    throw new PithError('RESIDUAL_MALFORMED', { message });
  };
  if (head.length < blobHeadBytes(segments)) bad('the head is cut off');
  if (MAGIC.some((m, i) => head[i] !== m)) bad('unknown magic or version');
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (view.getUint32(4, true) !== segments) bad(`expected ${segments} segments, got ${view.getUint32(4, true)}`);
  let begin = blobHeadBytes(segments);
  const spans = Array.from({ length: segments }, (_, i): [number, number] => {
    const end = Number(view.getBigUint64(8 + 8 * i, true));
    if (end <= begin || end > total) bad(`segment ${i} ends at ${end}`);
    const span: [number, number] = [begin, end];
    begin = end;
    return span;
  });
  if (begin !== total) bad(`expected ${begin} bytes, got ${total}`);
  return spans;
}
