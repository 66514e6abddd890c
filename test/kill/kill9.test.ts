/** kill -9 at a few random moments of an encode and of a restore of the tiny pair; bench/kill9.ts does 30 of each on a real pair. */
import { expect } from 'chai';
import { join } from 'node:path';
import { pith } from '../support/cli.js';
import { ROOT, tempDir, TINY } from '../support/files.js';
import { killRuns } from './kill-nine.js';

const MOMENTS = 5;

describe('kill -9', function () {
  this.timeout(120_000);
  /** Another moment in every run; a failure names the seed, PITH_KILL_SEED brings it back. */
  const seed = Number(process.env['PITH_KILL_SEED'] ?? Date.now() % 1_000_000_007);
  const base = join(TINY, 'base');

  it(`of an encode: the rerun gives the right bytes and leaves nothing behind (seed ${seed})`, async () => {
    using dir = tempDir();
    const out = join(dir.path, 'd.safetensors');
    const r = await killRuns({ args: ['delta', 'encode', '--base', base, '--tuned', join(TINY, 'tuned'), '--out', out], out, moments: MOMENTS, seed });
    expect(r.faults.join('\n')).to.equal('');
  });

  it(`of a progressive encode: the same (seed ${seed})`, async () => {
    using dir = tempDir();
    const out = join(dir.path, 'd.safetensors');
    const codec = ['--method', 'int', '--set', 'bits=2', '--progressive'];
    const args = ['delta', 'encode', '--base', base, '--tuned', join(TINY, 'tuned'), ...codec, '--out', out];
    expect((await killRuns({ args, out, moments: MOMENTS, seed })).faults.join('\n')).to.equal('');
  });

  it(`of a restore: the rerun gives the right files and leaves nothing behind (seed ${seed})`, async () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const out = join(dir.path, 'back');
    expect(pith(['delta', 'encode', '--base', base, '--tuned', join(TINY, 'tuned'), '--out', d]).code).to.equal(0);
    const r = await killRuns({ args: ['delta', 'restore', '--base', base, '--delta', d, '--out', out], out, moments: MOMENTS, seed });
    expect(r.faults.join('\n')).to.equal('');
  });

  it(`of a calibration: the rerun goes on at a block, gives the right bytes and leaves nothing behind (seed ${seed})`, async () => {
    using dir = tempDir();
    const out = join(dir.path, 's.safetensors');
    const text = join(ROOT, 'test/fixtures/eval/rows.jsonl');
    const args = ['calibrate', base, '--dataset', text, '--nsamples', '6', '--seqlen', '128', '--fisher', 'row', '-j', '1', '--out', out];
    const r = await killRuns({ args, out, moments: MOMENTS, seed });
    expect(r.faults.join('\n')).to.equal('');
  });
});
