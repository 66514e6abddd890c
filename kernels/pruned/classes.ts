/** How the encoder sorts rows and columns into 16 classes, by the share of words kept and by the kept ones' mean magnitude. A reader does not need it. */

export const CLASSES = 16;
/** What a class costs to store. */
const CLASS_BITS = 4;
const MIDDLE = 7.5;
/** Half a unit of log odds a class. */
const PER_LOGIT = 2;
/** Of magnitudes divided by 8: 3/16 of an octave of a bf16 */
const MAGNITUDE_STEP = 3;
/** With fewer kept words a line's mean says less than it costs. */
const LEAST_KEPT = 64;

const entropyBits = (kept: number, of: number): number =>
  kept === 0 || kept === of ? 0 : -kept * Math.log2(kept / of) - (of - kept) * Math.log2((of - kept) / of);

const logit = (kept: number, of: number): number => Math.log((kept + 0.5) / (of - kept + 0.5));

/** kept: of every line, out of `of`. Undefined when classes would not pay. */
export function densityClasses(kept: ArrayLike<number>, of: number): Uint8Array | undefined {
  const lines = kept.length;
  let total = 0;
  for (let i = 0; i < lines; i++) total += kept[i]!;
  const middle = logit(total / lines, of);
  const classes = new Uint8Array(lines);
  const sums = Array.from({ length: CLASSES }, () => ({ kept: 0, of: 0 }));
  for (let i = 0; i < lines; i++) {
    const k = kept[i]!;
    const c = k === 0 ? 0 : k === of ? CLASSES - 1 : Math.min(CLASSES - 2, Math.max(1, Math.round(MIDDLE + PER_LOGIT * (logit(k, of) - middle))));
    classes[i] = c;
    sums[c]!.kept += k;
    sums[c]!.of += of;
  }
  const coded = sums.reduce((bits, s) => bits + entropyBits(s.kept, s.of), CLASS_BITS * lines);
  return coded < entropyBits(total, of * lines) ? classes : undefined;
}

/** sum: of the kept words' magnitudes / 8. `scale`: mantissa bits beyond 7. Undefined when classes would not pay. */
export function magnitudeClasses(sum: ArrayLike<number>, kept: ArrayLike<number>, scale: number): Uint8Array | undefined {
  const lines = kept.length;
  let [total, count] = [0, 0];
  for (let i = 0; i < lines; i++) {
    total += sum[i]!;
    count += kept[i]!;
  }
  if (lines < 2 || count < LEAST_KEPT * lines) return undefined;
  const mean = total / count;
  const step = MAGNITUDE_STEP * 2 ** scale;
  return Uint8Array.from({ length: lines }, (_, i) => {
    const own = kept[i] === 0 ? mean : sum[i]! / kept[i]!;
    return Math.min(CLASSES - 1, Math.max(0, Math.round(MIDDLE + (own - mean) / step)));
  });
}
