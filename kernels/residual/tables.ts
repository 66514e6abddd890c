/**
 * Frequency tables of one segment: similar contexts share one, each sums to 4096.
 * Contexts are sorted by their mean token and neighbours merged while that saves bits, the table's own cost included.
 */
import { PithError } from '../../core/errors.js';
import { BitReader, BitWriter } from './bits.js';

export const CONTEXTS = 256;
export const MAX_TABLES = 24;
export const FREQUENCY_BITS = 12;
const TOTAL = 1 << FREQUENCY_BITS;
/** Tables are stored in 5 + about 5 bits per symbol in use; what matters is the order of magnitude. */
const SYMBOL_COST_BITS = 5;
const TABLE_COST_BITS = 16;
/** Neighbouring contexts are taken as one until they hold so many words: fewer cannot pay for a table of their own. */
const LEAST_WORDS = 1024;

export interface Tables {
  /** context -> table */
  readonly map: Uint8Array;
  /** One per table; index = token, values sum to 4096. */
  readonly frequencies: readonly Uint16Array[];
}

interface Cluster {
  contexts: number[];
  counts: Float64Array;
  total: number;
  bits: number;
}

const XLOGX = Float64Array.from({ length: 4096 }, (_, i) => (i === 0 ? 0 : i * Math.log2(i)));
const LOG2 = Float64Array.from({ length: 4097 }, (_, i) => Math.log2(4096 + i));

/** x log2 x of a count; from 4096 on the logarithm is read from a table, linear in between (error below 1e-8): most of the time went here. */
function xlogx(x: number): number {
  if (x < 4096) return XLOGX[x]!;
  const shift = 19 - Math.clz32(x);
  const mantissa = x / (1 << shift) - 4096;
  const i = mantissa | 0;
  return x * (shift + LOG2[i]! + (mantissa - i) * (LOG2[i + 1]! - LOG2[i]!));
}

/** Ideal bits of the counts under their own distribution, plus what storing that distribution costs. */
function costBits(counts: Float64Array, total: number): number {
  let bits = xlogx(total) + TABLE_COST_BITS;
  for (let s = 0; s < counts.length; s++) {
    const c = counts[s]!;
    if (c !== 0) bits += SYMBOL_COST_BITS - xlogx(c);
  }
  return bits;
}

/** The cost of two clusters as one, without making it. */
function joinedBits(a: Cluster, b: Cluster): number {
  let bits = xlogx(a.total + b.total) + TABLE_COST_BITS;
  for (let s = 0; s < a.counts.length; s++) {
    const c = a.counts[s]! + b.counts[s]!;
    if (c !== 0) bits += SYMBOL_COST_BITS - xlogx(c);
  }
  return bits;
}

function joined(a: Cluster, b: Cluster, bits: number): Cluster {
  const counts = new Float64Array(a.counts.length);
  for (let s = 0; s < counts.length; s++) counts[s] = a.counts[s]! + b.counts[s]!;
  return { contexts: [...a.contexts, ...b.contexts], counts, total: a.total + b.total, bits };
}

/** Counts of the tokens of one segment, by context. */
export interface Histogram {
  readonly symbols: number;
  /** (CONTEXTS, symbols) */
  readonly counts: Uint32Array;
  /** (CONTEXTS, 3): total, sum of count times token, last token that occurs. */
  readonly sums: Uint32Array;
}

export function makeTables(histogram: Histogram): Tables {
  const clusters = cluster(histogram);
  const map = new Uint8Array(CONTEXTS).fill(255);
  clusters.forEach((c, i) => {
    for (const context of c.contexts) map[context] = i;
  });
  fillUnused(map);
  return { map, frequencies: clusters.map((c) => normalize(c.counts, c.total)) };
}

function cluster({ symbols, counts: all, sums }: Histogram): Cluster[] {
  const rows = usedRows(sums);
  const used = 1 + rows.reduce((most, r) => Math.max(most, r.last), 0);
  const clusters: Cluster[] = [];
  let open: Cluster | undefined;
  for (const { context, total } of rows) {
    const counts = all.subarray(context * symbols, context * symbols + used);
    open ??= { contexts: [], counts: new Float64Array(used), total: 0, bits: 0 };
    open.contexts.push(context);
    for (let s = 0; s < used; s++) open.counts[s]! += counts[s]!;
    open.total += total;
    if (open.total < LEAST_WORDS) continue;
    clusters.push({ ...open, bits: costBits(open.counts, open.total) });
    open = undefined;
  }
  if (open !== undefined) clusters.push({ ...open, bits: costBits(open.counts, open.total) });
  const joins = clusters.slice(1).map((c, i) => joinedBits(clusters[i]!, c));
  const gain = (i: number): number => joins[i]! - clusters[i]!.bits - clusters[i + 1]!.bits;
  const gains = joins.map((_, i) => gain(i));
  while (joins.length > 0) {
    let best = 0;
    for (let i = 1; i < gains.length; i++) if (gains[i]! < gains[best]!) best = i;
    if (gains[best]! >= 0 && clusters.length <= MAX_TABLES) break;
    clusters.splice(best, 2, joined(clusters[best]!, clusters[best + 1]!, joins[best]!));
    joins.splice(best, 1);
    gains.splice(best, 1);
    for (let i = Math.max(0, best - 1); i <= best && i < joins.length; i++) {
      joins[i] = joinedBits(clusters[i]!, clusters[i + 1]!);
      gains[i] = gain(i);
    }
  }
  return clusters;
}

/** Contexts that occur, by their mean token. */
function usedRows(sums: Uint32Array): { context: number; total: number; last: number }[] {
  const rows: { context: number; total: number; last: number; key: number }[] = [];
  for (let context = 0; context < CONTEXTS; context++) {
    const total = sums[3 * context]!;
    if (total > 0) rows.push({ context, total, last: sums[3 * context + 2]!, key: sums[3 * context + 1]! / total });
  }
  return rows.sort((a, b) => a.key - b.key);
}

/** A context that never occurs takes its neighbour's table: that is the cheapest to store. */
function fillUnused(map: Uint8Array): void {
  for (let i = 0; i < CONTEXTS; i++) if (map[i] === 255) map[i] = i >= 16 ? map[i - 16]! : i > 0 ? map[i - 1]! : 0;
  for (let i = CONTEXTS - 1; i >= 0; i--) if (map[i] === 255) map[i] = 0;
}

/** Counts -> frequencies that sum to 4096, every symbol that occurs at least 1. */
export function normalize(counts: Float64Array, total: number): Uint16Array {
  const f = new Uint16Array(counts.length);
  let sum = 0;
  for (let s = 0; s < counts.length; s++) {
    if (counts[s]! > 0) f[s] = Math.max(1, Math.round((counts[s]! * TOTAL) / total));
    sum += f[s]!;
  }
  while (sum !== TOTAL) {
    const step = Math.sign(TOTAL - sum);
    let best = -1;
    let bestCost = Infinity;
    for (let s = 0; s < f.length; s++) {
      if (f[s] === 0 || (step < 0 && f[s] === 1)) continue;
      // change of -c log2 f when f moves by one
      const cost = counts[s]! * Math.log2(f[s]! / (f[s]! + step));
      if (cost < bestCost) [best, bestCost] = [s, cost];
    }
    f[best]! += step;
    sum += step;
  }
  return f;
}

const golombOrder = (predicted: number): number => Math.max(0, 30 - Math.clz32(predicted + 1));
const zigzag = (v: number): number => (v < 0 ? -2 * v - 1 : 2 * v);
const unzigzag = (z: number): number => (z & 1 ? -((z + 1) >> 1) : z >> 1);
/** Tokens alternate in sign: the same sign's previous token predicts best. */
const predict = (f: Uint16Array, s: number): number => (s >= 2 ? f[s - 2]! : s === 1 ? f[0]! : 1024);

export function writeTables(tables: Tables): Uint8Array {
  const out = new BitWriter();
  out.put(tables.frequencies.length, 5);
  for (const f of tables.frequencies) {
    let last = f.length - 1;
    while (f[last] === 0) last--;
    out.put(last, 8);
    for (let s = 0; s <= last; s++) {
      const p = predict(f, s);
      out.putGolomb(zigzag(f[s]! - p), golombOrder(p));
    }
  }
  for (let row = 0; row < CONTEXTS; row += 16) {
    const entries = tables.map.subarray(row, row + 16);
    const above = row === 0 ? new Uint8Array(16) : tables.map.subarray(row - 16, row);
    const same = entries.every((t, i) => t === above[i]);
    out.put(same ? 1 : 0, 1);
    for (let i = 0; !same && i < 16; i++) {
      const before = i === 0 ? above[0] : entries[i - 1];
      out.put(entries[i] === before ? 1 : 0, 1);
      if (entries[i] !== before) out.put(entries[i]!, 5);
    }
  }
  return out.finish();
}

/** `symbols`: how many tokens the mode has. */
export function readTables(bytes: Uint8Array, symbols: number): Tables {
  const bad = (message: string): never => {
    throw new PithError('RESIDUAL_MALFORMED', { message });
  };
  const input = new BitReader(bytes);
  const count = input.get(5);
  if (count === 0 || count > MAX_TABLES) bad(`${count} tables`);
  const frequencies = Array.from({ length: count }, () => {
    const last = input.get(8);
    if (last >= symbols) bad(`token ${last} of ${symbols}`);
    const f = new Uint16Array(last + 1);
    let sum = 0;
    for (let s = 0; s <= last; s++) {
      const p = predict(f, s);
      const v = p + unzigzag(input.getGolomb(golombOrder(p)));
      if (v < 0 || v > TOTAL) bad('a frequency is out of range');
      f[s] = v;
      sum += v;
    }
    if (sum !== TOTAL) bad(`frequencies sum to ${sum}`);
    return f;
  });
  const map = new Uint8Array(CONTEXTS);
  for (let i = 0; i < CONTEXTS;) {
    if (input.get(1) === 1) {
      if (i >= 16) map.copyWithin(i, i - 16, i);
      i += 16;
      continue;
    }
    for (const end = i + 16; i < end; i++) {
      const before = i % 16 > 0 ? map[i - 1]! : i >= 16 ? map[i - 16]! : 0;
      map[i] = input.get(1) === 1 ? before : input.get(5);
      if (map[i]! >= count) bad('a context names no table');
    }
  }
  return { map, frequencies };
}
