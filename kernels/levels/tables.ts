/**
 * The logistic function and its inverse as tables, from additions, multiplications and divisions in f64 alone: a library's exp
 * and log may differ in the last bit between machines, and a coder's tables may not.
 */

const LN2 = 0.6931471805599453;

/** e^x by its series at x / 64, then six squarings. */
function exp(x: number): number {
  const y = x / 64;
  let term = 1;
  let sum = 1;
  for (let k = 1; k < 16; k++) {
    term = (term * y) / k;
    sum += term;
  }
  for (let i = 0; i < 6; i++) sum *= sum;
  return sum;
}

/** ln x = e ln 2 + 2 atanh((m - 1) / (m + 1)), x = m 2^e */
function ln(x: number): number {
  let m = x;
  let e = 0;
  for (; m >= 1.5; m /= 2) e++;
  for (; m < 0.75; m *= 2) e--;
  const t = (m - 1) / (m + 1);
  let power = t;
  let sum = 0;
  for (let k = 1; k < 60; k += 2) {
    sum += power / k;
    power *= t * t;
  }
  return e * LN2 + 2 * sum;
}

/** ln(p / (1 - p)) at p = (i + 1/2) / 4096, f32. */
export function stretchTable(): Float32Array {
  return Float32Array.from({ length: 4096 }, (_, i) => ln((2 * i + 1) / (8191 - 2 * i)));
}

/** 65536 / (1 + e^-x) at x = (i + 1/2 - 2048) / 170.625, within [1, 65535]. */
export function squashTable(): Uint16Array {
  return Uint16Array.from({ length: 4096 }, (_, i) => Math.min(65535, Math.max(1, Math.round(65536 / (1 + exp((2047.5 - i) / 170.625))))));
}

/** floor(2^16 / (n + 1.5)): the step of an estimate after n bits. */
export function reciprocals(): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, n) => Math.floor(65536 / (n + 1.5)));
}
