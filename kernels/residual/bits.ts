/** Bits least significant first, for the small tables of a segment. */
import { PithError } from '../../core/errors.js';

export class BitWriter {
  readonly #bytes: number[] = [];
  #acc = 0;
  #count = 0;

  /** At most 24 bits. */
  put(value: number, bits: number): void {
    this.#acc |= value << this.#count;
    this.#count += bits;
    while (this.#count >= 8) {
      this.#bytes.push(this.#acc & 255);
      this.#acc >>>= 8;
      this.#count -= 8;
    }
  }

  /** Exponential-Golomb code of order k. */
  putGolomb(value: number, k: number): void {
    const v = value + (1 << k);
    const n = 31 - Math.clz32(v);
    this.put(0, n - k);
    this.put(1, 1);
    this.put(v & ((1 << n) - 1), n);
  }

  finish(): Uint8Array {
    if (this.#count > 0) this.#bytes.push(this.#acc & 255);
    return Uint8Array.from(this.#bytes);
  }
}

export class BitReader {
  #at = 0;

  constructor(private readonly bytes: Uint8Array) {}

  get(bits: number): number {
    let v = 0;
    for (let i = 0; i < bits; i++, this.#at++) {
      const byte = this.bytes[this.#at >> 3];
      if (byte === undefined) throw new PithError('RESIDUAL_MALFORMED', { message: 'the tables end too early' });
      v |= ((byte >> (this.#at & 7)) & 1) << i;
    }
    return v;
  }

  getGolomb(k: number): number {
    let n = k;
    while (this.get(1) === 0) {
      if (++n > 20) throw new PithError('RESIDUAL_MALFORMED', { message: 'a table entry is too large' });
    }
    return (this.get(n) | (1 << n)) - (1 << k);
  }
}
