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
