/**
 * The residual coder alone, one thread, everything in memory:
 *   node dist/bench/coder.js BASE TUNED [--repeat 5]
 * Every segment of every tensor that both have is coded, decoded and compared; then the passes are timed. Counted is what the
 * coder does between its views (base, tuned) and the finished segment; reading, hashing and filling the views are not.
 * Rows: against the base, and standalone. First pass: includes the compilation of the wasm module's hot loops.
 */
import { openCheckpoint } from '../formats/open-checkpoint.js';
import { ResidualCodec, segmentCount, segmentSpan } from '../kernels/residual/codec.js';
import { residualElements, wordKind } from '../kernels/residual/words.js';
import type { DType } from '../core/dtype.js';
import { machine, MB, option, positionals, table, verdicts } from './support.js';

const [basePath, tunedPath] = positionals(2, 'node dist/bench/coder.js BASE TUNED [--repeat 5]') as [string, string];
const repeat = Number(option('repeat', '5'));
/** Targets of the coder on one core, MB of tuned bf16 a second. */
const [TARGET_IN, TARGET_OUT] = [450, 700];

interface Segment {
  readonly dtype: DType;
  readonly words: number;
  readonly base: Uint8Array;
  readonly tuned: Uint8Array;
}

async function load(): Promise<Segment[]> {
  await using base = await openCheckpoint(basePath);
  await using tuned = await openCheckpoint(tunedPath);
  const segments: Segment[] = [];
  for (const info of tuned.infos.values()) {
    const twin = base.infos.get(info.name);
    if (twin?.dtype !== info.dtype || twin.shape.join() !== info.shape.join()) continue;
    const [a, b] = [(await base.read(info.name)).bytes, (await tuned.read(info.name)).bytes];
    const words = residualElements(info.dtype, info.shape);
    const wordBytes = wordKind(info.dtype).width / 8;
    for (let s = 0; s < segmentCount(words); s++) {
      const [from, to] = segmentSpan(words, s).map((w) => w * wordBytes) as [number, number];
      segments.push({ dtype: info.dtype, words: (to - from) / wordBytes, base: a.subarray(from, to), tuned: b.subarray(from, to) });
    }
  }
  return segments;
}

/** Milliseconds of one pass over all segments. */
function pass(
  codec: ResidualCodec,
  segments: readonly Segment[],
  act: (s: Segment, i: number) => void,
  fill: (s: Segment, v: ReturnType<ResidualCodec['reserve']>) => void,
): number {
  let ms = 0;
  segments.forEach((s, i) => {
    fill(s, codec.reserve(s.tuned.length));
    const started = performance.now();
    act(s, i);
    ms += performance.now() - started;
  });
  return ms;
}

interface Measured {
  readonly bytes: number;
  readonly first: readonly [encodeMs: number, decodeMs: number];
  readonly best: readonly [encodeMs: number, decodeMs: number];
}

async function measure(segments: readonly Segment[], hasBase: boolean): Promise<Measured> {
  const codec = await ResidualCodec.create();
  const coded: Uint8Array[] = [];
  const encode = (s: Segment): Uint8Array => codec.encodeSegment(s.dtype, s.words, hasBase);
  const decode = (s: Segment, i: number): void => codec.decodeSegment(coded[i]!, s.dtype, s.words, hasBase);
  const fillBoth = (s: Segment, v: ReturnType<ResidualCodec['reserve']>): void => {
    if (hasBase) v.base.set(s.base);
    v.tuned.set(s.tuned);
  };
  const fillBase = (s: Segment, v: ReturnType<ResidualCodec['reserve']>): void => {
    if (hasBase) v.base.set(s.base);
    v.tuned.fill(0);
  };
  for (const s of segments) {
    fillBoth(s, codec.reserve(s.tuned.length));
    coded.push(encode(s).slice());
  }
  for (const [i, s] of segments.entries()) {
    const views = codec.reserve(s.tuned.length);
    fillBase(s, views);
    decode(s, i);
    if (Buffer.compare(views.tuned, s.tuned) !== 0) throw new Error(`segment ${i} does not come back`);
  }
  const timed = await ResidualCodec.create();
  const inFirst = pass(timed, segments, (s) => void timed.encodeSegment(s.dtype, s.words, hasBase), fillBoth);
  const outFirst = pass(timed, segments, (s, i) => timed.decodeSegment(coded[i]!, s.dtype, s.words, hasBase), fillBase);
  let [inBest, outBest] = [Infinity, Infinity];
  for (let r = 0; r < repeat; r++) {
    inBest = Math.min(inBest, pass(codec, segments, encode, fillBoth));
    outBest = Math.min(outBest, pass(codec, segments, decode, fillBase));
  }
  return { bytes: coded.reduce((sum, c) => sum + c.length, 0), first: [inFirst, outFirst], best: [inBest, outBest] };
}

const where = machine();
const segments = await load();
const raw = segments.reduce((sum, s) => sum + s.tuned.length, 0);
const pair = await measure(segments, true);
const alone = await measure(segments, false);
const rate = (ms: number): string => (raw / 1000 / ms).toFixed(0);
const row = (name: string, m: Measured): string[] => [
  name,
  (m.bytes / MB).toFixed(2),
  `${((m.bytes / raw) * 100).toFixed(2)} %`,
  rate(m.best[0]),
  rate(m.best[1]),
  rate(m.first[0]),
  rate(m.first[1]),
];
console.log(`${where}; one thread; best of ${repeat}; ${segments.length} segments, ${(raw / MB).toFixed(0)} MB of tensors, every segment checked first\n`);
console.log(table(['', 'MB', 'of the data', 'MB/s in', 'MB/s out', 'first pass in', 'out'], [row('against the base', pair), row('standalone', alone)]));
console.log('');
verdicts([
  [`against the base, one core: >= ${TARGET_IN} MB/s in`, raw / 1000 / pair.best[0] >= TARGET_IN],
  [`against the base, one core: >= ${TARGET_OUT} MB/s out`, raw / 1000 / pair.best[1] >= TARGET_OUT],
]);
