/**
 * A few seconds of hostile files for the readers of checkpoints, deltas, adapters and stores; CI sets PITH_FUZZ_SECONDS=60.
 * Only typed errors, no crash, no hang, no allocation above the file's own size class. A finding names seed and case:
 * PITH_FUZZ_SEED brings the run back, `node dist/test/fuzz/fuzz-child.js --seed S --only CASE --work DIR` the case.
 */
import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tempDir } from '../support/files.js';
import type { FuzzReport } from './fuzz-child.js';

const SECONDS = Number(process.env['PITH_FUZZ_SECONDS'] ?? '4');
const SEED = Number(process.env['PITH_FUZZ_SEED'] ?? Date.now() % 1_000_000_007);
const CHILD = fileURLToPath(new URL('./fuzz-child.js', import.meta.url));
/** Long enough for the rare targets, the commands with a pool of their own, to have their turn. */
const LONG_SECONDS = 30;
/** A case that takes longer than this hangs. */
const HANG_MS = 30_000;

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly hung: boolean;
}

const caseOf = (work: string): string => {
  try {
    return readFileSync(join(work, 'case'), 'utf8').trim();
  } catch {
    return 'none';
  }
};

function runChild(work: string): Promise<Ended> {
  const args = ['--max-old-space-size=512', CHILD, '--seconds', String(SECONDS), '--seed', String(SEED), '--work', work];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NODE_V8_COVERAGE: '' } });
  let [stdout, stderr, last, hung] = ['', '', '', false];
  let since = Date.now();
  child.stdout.on('data', (b: Buffer) => (stdout += b.toString('utf8')));
  child.stderr.on('data', (b: Buffer) => (stderr += b.toString('utf8')));
  const watch = setInterval(() => {
    const now = caseOf(work);
    if (now !== last) [last, since] = [now, Date.now()];
    else if (Date.now() - since > HANG_MS) {
      hung = true;
      child.kill('SIGKILL');
    }
  }, 500);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearInterval(watch);
      resolve({ code, signal, stdout, stderr, hung });
    });
  });
}

describe('fuzz', function () {
  this.timeout(SECONDS * 1000 + 4 * HANG_MS);

  it(`safetensors and GGUF headers, indexes, deltas, coder segments, adapters and stores for ${SECONDS} s (seed ${SEED})`, async () => {
    using dir = tempDir();
    const r = await runChild(dir.path);
    const where = `seed ${SEED}, case ${caseOf(dir.path)}`;
    expect(r.hung, `${where}: no end within ${HANG_MS} ms`).to.equal(false);
    expect(r.code, `${where}: ${r.signal ?? ''} ${r.stderr.slice(-2000)}`).to.equal(0);
    const report = JSON.parse(r.stdout) as FuzzReport;
    expect(report.findings.join('\n\n')).to.equal('');
    // the loop did reach every target, and hostile files were refused for more than one reason
    expect(Object.keys(report.byTarget).length).to.be.greaterThan(SECONDS < LONG_SECONDS ? 8 : 15);
    for (const t of ['safetensors', 'gguf', 'delta, hostile', 'coder segment', 'BASE+ADAPTER, hostile', 'delta as a checkpoint, hostile'])
      expect(Object.keys(report.byTarget[t]?.codes ?? {}), t).to.not.be.empty;
  });
});
