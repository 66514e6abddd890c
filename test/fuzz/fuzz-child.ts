/**
 * The fuzz loop, in a process of its own so that a hang or a crash is seen from outside:
 *   node dist/test/fuzz/fuzz-child.js --seconds 5 --seed 1 [--target store] [--only 4711] --work DIR
 * Case i of a seed is always the same input (`--only` runs that one alone; its state then is a fresh one; `--target`: those whose name has it in it, another sequence of cases). Prints one JSON line.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PithError } from '../../core/errors.js';
import { Rng } from '../../core/rng.js';
import type { Target } from './target.js';
import { targets } from './targets.js';

/** 65 malformed, 66 missing, 74 I/O (a claimed size that fits no disk, say). */
const EXIT_CODES = new Set([65, 66, 74]);
/** Beyond a few times the file: the coder's own memory and its scratch, the modules that load on first use. */
const CONSTANT_BYTES = 160 << 20;
const FILE_FACTOR = 8;

export interface FuzzReport {
  readonly seed: number;
  readonly cases: number;
  readonly ms: number;
  readonly byTarget: Readonly<Record<string, { cases: number; accepted: number; codes: Record<string, number> }>>;
  readonly slowestMs: number;
  readonly peakBytes: number;
  readonly findings: readonly string[];
}

const { values } = parseArgs({
  options: { seconds: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' }, target: { type: 'string' }, work: { type: 'string' } },
});
const seconds = Number(values.seconds ?? '5');
const seed = Number(values.seed ?? '1');
const work = values.work ?? '.';

/** The largest Uint8Array (or zeroed Buffer) that was asked for since the last look. */
let largest = 0;
function watchAllocations(): void {
  const note = (n: unknown): void => {
    if (typeof n === 'number' && n > largest) largest = n;
  };
  globalThis.Uint8Array = new Proxy(globalThis.Uint8Array, {
    construct: (target, args: unknown[], self) => {
      note(args[0]);
      return Reflect.construct(target, args, self) as object;
    },
  });
}

const held = (): number => {
  const m = process.memoryUsage();
  return m.arrayBuffers + m.external;
};

function choose(rng: Rng, all: readonly Target[]): Target {
  let at = rng.integer(all.reduce((sum, t) => sum + t.weight, 0));
  for (const t of all) if ((at -= t.weight) < 0) return t;
  return all[0]!;
}

async function loop(): Promise<FuzzReport> {
  const all = (await targets(work)).filter((t) => t.name.includes(values.target ?? ''));
  watchAllocations();
  const root = new Rng(seed);
  const marker = openSync(join(work, 'case'), 'w');
  const byTarget: Record<string, { cases: number; accepted: number; codes: Record<string, number> }> = {};
  const findings: string[] = [];
  const started = performance.now();
  let [slowestMs, peakBytes, cases] = [0, 0, 0];
  const only = values.only === undefined ? undefined : Number(values.only);
  for (let i = only ?? 0; only === undefined ? performance.now() - started < seconds * 1000 : i === only; i++) {
    const rng = root.fork(String(i));
    const target = choose(rng, all);
    writeSync(marker, String(i).padEnd(16), 0);
    const say = (what: string): void => void findings.push(`seed ${seed} case ${i} (${target.name}): ${what}`);
    const t0 = performance.now();
    const before = held();
    largest = 0;
    const { fileBytes, error } = await target.run(rng);
    const ms = performance.now() - t0;
    const grown = Math.max(held() - before, largest);
    slowestMs = Math.max(slowestMs, ms);
    peakBytes = Math.max(peakBytes, grown);
    if (grown > CONSTANT_BYTES + FILE_FACTOR * fileBytes) say(`${grown} bytes were allocated for a file of ${fileBytes}`);
    const counts = (byTarget[target.name] ??= { cases: 0, accepted: 0, codes: {} });
    cases++;
    counts.cases++;
    if (error === undefined) counts.accepted++;
    else if (error instanceof PithError) {
      counts.codes[error.code] = (counts.codes[error.code] ?? 0) + 1;
      if (!EXIT_CODES.has(error.exitCode))
        say(`${error.code} (exit ${error.exitCode}): ${error.message.slice(0, 300)}\n${String((error.cause as Error | undefined)?.stack ?? error.stack)}`);
    } else say(error instanceof Error ? String(error.stack) : 'something that is no Error was thrown');
    if (findings.length >= 20) break;
  }
  closeSync(marker);
  return { seed, cases, ms: performance.now() - started, byTarget, slowestMs, peakBytes, findings };
}

process.stdout.write(`${JSON.stringify(await loop())}\n`);
