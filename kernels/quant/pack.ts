/** Packed widths: the one place that knows how sub-byte codes lie in bytes. */

/** Signed 4-bit codes in [-8, 7], two's complement, the first of a pair in the low nibble. Rows start on whole bytes. */
export function packInt4(codes: Int8Array, rows: number, columns: number): Uint8Array {
  const rowBytes = Math.ceil(columns / 2);
  const out = new Uint8Array(rows * rowBytes);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const at = i * rowBytes + (j >> 1);
      out[at] = out[at]! | ((codes[i * columns + j]! & 15) << (4 * (j & 1)));
    }
  }
  return out;
}

/** The inverse; `bytes` holds `rows` rows of ceil(columns / 2) bytes. */
export function unpackInt4(bytes: Uint8Array, rows: number, columns: number): Int8Array {
  const rowBytes = Math.ceil(columns / 2);
  const out = new Int8Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const nibble = (bytes[i * rowBytes + (j >> 1)]! >> (4 * (j & 1))) & 15;
      out[i * columns + j] = (nibble << 28) >> 28;
    }
  }
  return out;
}

/** Bytes of `count` codes of `bits` bits each: the stream is filled up to whole groups of 8 codes. */
export const packedBytes = (count: number, bits: number): number => Math.ceil(count / 8) * bits;

/** Codes of 1 to 8 bits (the low ones count) as one stream, least significant bit first, into `out` from byte `at`. */
export function packCodes(codes: Uint8Array | Int8Array, bits: number, out: Uint8Array, at: number): void {
  const mask = (1 << bits) - 1;
  const end = at + packedBytes(codes.length, bits);
  let [held, count] = [0, 0];
  for (const code of codes) {
    held |= (code & mask) << count;
    for (count += bits; count >= 8; count -= 8) {
      out[at++] = held & 255;
      held >>>= 8;
    }
  }
  for (; at < end; held >>>= 8) out[at++] = held & 255;
}

/** The inverse: unsigned codes into `codes`, from byte `at` of `bytes`. */
export function unpackCodes(bytes: Uint8Array, at: number, bits: number, codes: Uint8Array): void {
  const mask = (1 << bits) - 1;
  let [held, count] = [0, 0];
  for (let i = 0; i < codes.length; i++) {
    if (count < bits) {
      held |= bytes[at++]! << count;
      count += 8;
    }
    codes[i] = held & mask;
    held >>>= bits;
    count -= bits;
  }
}

/** Words of 32 signs that one row of `n` takes. */
export const signWords = (n: number): number => Math.ceil(n / 32);

/** Signs of rows of D from `row` on: bit j % 32 of mask[j / 32, i] is 1 where D[i, j] >= 0. mask: (ceil(n / 32), m). */
export function packSigns(delta: Float32Array, n: number, row: number, m: number, mask: Int32Array): void {
  for (let at = 0, i = row; at < delta.length; at += n, i++) {
    for (let j = 0; j < n; j += 32) {
      const width = Math.min(32, n - j);
      let word = 0;
      for (let b = 0; b < width; b++) if (delta[at + j + b]! >= 0) word |= 1 << b;
      mask[(j >> 5) * m + i] = word;
    }
  }
}

/** The inverse: +alpha or -alpha for every value of the rows from `row` on. */
export function unpackSigns(mask: Int32Array, n: number, row: number, m: number, alpha: number, delta: Float32Array): void {
  for (let at = 0, i = row; at < delta.length; at += n, i++) {
    for (let j = 0; j < n; j += 32) {
      const width = Math.min(32, n - j);
      const word = mask[(j >> 5) * m + i]!;
      for (let b = 0; b < width; b++) delta[at + j + b] = (word >>> b) & 1 ? alpha : -alpha;
    }
  }
}
