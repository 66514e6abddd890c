/** `pith demo`: the main job on the pair that ships with pith, each result proven. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PithError } from '../core/errors.js';
import type { Pipeline } from '../core/events.js';
import type { DeltaTarget } from './delta-budget.js';
import { deltaEncode } from './delta-encode.js';
import { deltaRestore } from './delta-restore.js';
import { deltaVerify } from './delta-verify.js';
import type { RunOptions } from './run-options.js';

export interface DemoRow {
  readonly what: string;
  readonly method: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly encodeMs: number;
  readonly restoreMs: number;
  readonly proof: string;
}

export interface DemoReport {
  readonly pair: string;
  readonly rows: readonly DemoRow[];
}

/** The shipped pair, seen from dist/pipelines. */
const TINY = fileURLToPath(new URL('../../examples/tiny/', import.meta.url));

interface Case {
  readonly what: string;
  readonly method: string;
  readonly base: string | undefined;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly target?: DeltaTarget;
}

export async function* demo(o: RunOptions): Pipeline<DemoReport> {
  const work = mkdtempSync(join(tmpdir(), 'pith-demo-'));
  const cases: Case[] = [
    { what: 'fine-tune against its base', method: 'lossless', base: join(TINY, 'base') },
    { what: 'fine-tune alone, without a base', method: 'lossless', base: undefined },
    { what: 'low-rank delta, rank 16', method: 'ere', base: join(TINY, 'base'), params: { rank: 16 } },
    { what: 'low-rank delta, 8 x smaller', method: 'ere', base: join(TINY, 'base'), params: { factors: 'int8' }, target: { ratio: 8 } },
  ];
  try {
    const rows: DemoRow[] = [];
    for (const [i, c] of cases.entries()) rows.push(yield* runCase(o, c, join(work, String(i))));
    return { pair: 'examples/tiny', rows };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function* runCase(o: RunOptions, c: Case, prefix: string): Pipeline<DemoRow> {
  const tuned = join(TINY, 'tuned');
  const delta = `${prefix}.delta.safetensors`;
  const out = `${prefix}.restored`;
  const write = { force: false, dryRun: false, resume: true };
  const t0 = performance.now();
  const chosen = { method: c.method, params: c.params ?? {}, ...(c.target === undefined ? {} : { target: c.target }) };
  const encoded = yield* deltaEncode({ ...o, ...write, ...chosen, base: c.base, tuned, out: delta, selects: () => true });
  const t1 = performance.now();
  yield* deltaRestore({ ...o, ...write, base: c.base, delta, out });
  const t2 = performance.now();
  const exact = encoded.error === undefined;
  const verified = yield* deltaVerify({ ...o, base: c.base, delta, tuned: exact ? tuned : undefined });
  if (!verified.ok) throw new PithError('VERIFY_MISMATCH', { file: delta, count: verified.mismatches.length, total: verified.checked });
  const checked = `${verified.checked} tensors verified`;
  const proof = exact
    ? `${sameFiles(tuned, out)} of ${readdirSync(tuned).length} files equal by sha256, ${checked}`
    : `${checked}; error ${encoded.error.toFixed(3)} of the change`;
  return {
    what: c.what,
    method: c.method,
    bytes: encoded.bytes,
    rawBytes: encoded.rawBytes,
    encodeMs: Math.round(t1 - t0),
    restoreMs: Math.round(t2 - t1),
    proof,
  };
}

/** Number of files, all equal; HASH_MISMATCH otherwise. */
function sameFiles(expectedFolder: string, gotFolder: string): number {
  const names = readdirSync(expectedFolder);
  const sha = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
  for (const name of names) {
    const [expected, got] = [sha(join(expectedFolder, name)), sha(join(gotFolder, name))];
    if (expected !== got) throw new PithError('HASH_MISMATCH', { file: gotFolder, tensor: name, expected, got });
  }
  return names.length;
}
