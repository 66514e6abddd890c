/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
 * A stream is named by its seed and the labels it was forked with, never by a thread, so the bytes that depend on it
 * do not depend on the number of threads.
 */

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High word of a 32 x 32 bit product. */
function mulHigh(a: number, b: number): number {
  const al = a & 0xffff;
  const ah = a >>> 16;
  const bl = b & 0xffff;
  const bh = b >>> 16;
  const low = al * bl;
  const mid = ah * bl + (low >>> 16);
  const mid2 = al * bh + (mid & 0xffff);
  return (ah * bh + Math.floor(mid / 65536) + (mid2 >>> 16)) >>> 0;
}

/** FNV-1a over UTF-16 units, two lanes: enough to tell labels apart, not a cryptographic hash. */
function mix(key: readonly [number, number], label: string): [number, number] {
  let a = (key[0] ^ 0x811c9dc5) >>> 0;
  let b = (key[1] ^ 0x1000193) >>> 0;
  for (let i = 0; i < label.length; i++) {
    const c = label.charCodeAt(i);
    a = Math.imul(a ^ c, 0x01000193) >>> 0;
    b = Math.imul(b ^ c ^ (a >>> 15), 0x85ebca6b) >>> 0;
  }
  return [a, b];
}

export class Rng {
  readonly #key: readonly [number, number];
  #counter = 0;
  readonly #block = new Uint32Array(4);
  #left = 0;
  #spare: number | undefined;

  constructor(seed: number | readonly [number, number]) {
    this.#key = typeof seed === 'number' ? [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0] : seed;
  }

  /** An independent stream for one tensor, layer or purpose; does not advance this one. */
  fork(label: string): Rng {
    return new Rng(mix(this.#key, label));
  }

  #refill(): void {
    let c0 = this.#counter >>> 0;
    let c1 = Math.floor(this.#counter / 2 ** 32) >>> 0;
    let c2 = 0;
    let c3 = 0;
    let [k0, k1] = this.#key;
    for (let round = 0; round < 10; round++) {
      const h0 = mulHigh(M0, c0);
      const l0 = Math.imul(M0, c0) >>> 0;
      const h1 = mulHigh(M1, c2);
      const l1 = Math.imul(M1, c2) >>> 0;
      c0 = (h1 ^ c1 ^ k0) >>> 0;
      c1 = l1;
      c2 = (h0 ^ c3 ^ k1) >>> 0;
      c3 = l0;
      k0 = (k0 + W0) >>> 0;
      k1 = (k1 + W1) >>> 0;
    }
    this.#block[0] = c0;
    this.#block[1] = c1;
    this.#block[2] = c2;
    this.#block[3] = c3;
    this.#counter++;
    this.#left = 4;
  }

  /** 32 random bits. */
  uint32(): number {
    if (this.#left === 0) this.#refill();
    return this.#block[4 - this.#left--]!;
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** Uniform integer in [0, n). */
  integer(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal (Box-Muller). */
  normal(): number {
    if (this.#spare !== undefined) {
      const spare = this.#spare;
      this.#spare = undefined;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** `n` values uniform in [-1, 1) as f32, one draw of 32 bits each: enough for a random sketch, a tenth of the time of normals. */
  symmetric(n: number): Float32Array {
    const out = new Float32Array(n);
    for (let i = 0; i < n; i++) out[i] = (this.uint32() >>> 8) / 8388608 - 1;
    return out;
  }

  /** `n` values of +1 or -1 as f32, one bit each: as good a sketch, at a thirtieth of the draws. */
  signs(n: number): Float32Array {
    const out = new Float32Array(n);
    let bits = 0;
    for (let i = 0; i < n; i++) {
      bits = (i & 31) === 0 ? this.uint32() : bits >>> 1;
      out[i] = 1 - 2 * (bits & 1);
    }
    return out;
  }

  /** `n` standard normals as f32. */
  normals(n: number): Float32Array {
    const out = new Float32Array(n);
    for (let i = 0; i < n; i++) out[i] = this.normal();
    return out;
  }
}
