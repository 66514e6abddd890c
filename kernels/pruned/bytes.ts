/** Reading and writing the small fields of a pruned matrix's streams. */
import { PithError } from '../../core/errors.js';

export const bad = (message: string): never => {
  throw new PithError('SPARSE_MALFORMED', { message });
};

/** A stored array of classes: u8 0 when there is none, else u8 1 and two classes a byte, the first in the low nibble. */
export function packClasses(classes: Uint8Array | undefined): Uint8Array {
  if (classes === undefined) return Uint8Array.of(0);
  const out = new Uint8Array(1 + Math.ceil(classes.length / 2));
  out[0] = 1;
  classes.forEach((c, i) => (out[1 + (i >> 1)]! |= c << (4 * (i & 1))));
  return out;
}

/** Front to back; SPARSE_MALFORMED beyond the end. */
export class Cursor {
  #at = 0;
  readonly #view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  take(n: number): Uint8Array {
    if (n > this.bytes.length - this.#at) bad('a segment ends too early');
    this.#at += n;
    return this.bytes.subarray(this.#at - n, this.#at);
  }

  u8(): number {
    return this.take(1)[0]!;
  }

  u16(): number {
    this.take(2);
    return this.#view.getUint16(this.#at - 2, true);
  }

  u32(): number {
    this.take(4);
    return this.#view.getUint32(this.#at - 4, true);
  }

  classes(lines: number): Uint8Array | undefined {
    const stored = this.u8();
    if (stored === 0) return undefined;
    if (stored !== 1) bad(`classes of form ${stored}`);
    const packed = this.take(Math.ceil(lines / 2));
    return Uint8Array.from({ length: lines }, (_, i) => (packed[i >> 1]! >> (4 * (i & 1))) & 15);
  }

  end(): void {
    if (this.#at !== this.bytes.length) bad(`${this.bytes.length - this.#at} bytes follow a segment`);
  }
}
