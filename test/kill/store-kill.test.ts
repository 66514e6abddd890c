/** kill -9 at a few random moments of an add and of a gc; bench/store.ts does 30 of each. */
import { expect } from 'chai';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import { tempDir, TINY, writeSafetensors } from '../support/files.js';
import { killStore, prepareStore } from './store-kill.js';

const MOMENTS = 3;

/** A checkpoint of many small tensors: an add and a gc of it take many steps. */
export function manyTensors(path: string, count: number, seed: number): void {
  const rng = new Rng(seed);
  const bytes = (): Uint8Array => Uint8Array.from({ length: 64 }, () => rng.uint32());
  writeSafetensors(
    path,
    Array.from({ length: count }, (_, i) => ({ name: `t${i}`, dtype: 'BF16', shape: [32], bytes: bytes() })),
  );
}

describe('kill -9 of a store', function () {
  this.timeout(300_000);
  const seed = Number(process.env['PITH_KILL_SEED'] ?? Date.now() % 1_000_000_007);
  const models = new Map([['base', join(TINY, 'base')]]);

  it(`add: nothing is lost, the same command again completes it (seed ${seed})`, async () => {
    using dir = tempDir();
    const prepared = join(dir.path, 'prepared');
    prepareStore(prepared, models);
    const add = { name: 'tuned', path: join(TINY, 'tuned') };
    const r = await killStore({ prepared, models, add, work: dir.path, moments: MOMENTS, seed });
    expect(r.faults.join('\n')).to.equal('');
    expect(r.killed).to.be.greaterThan(0);
  });

  it(`gc: nothing that a model needs is lost (seed ${seed})`, async () => {
    using dir = tempDir();
    const [prepared, junk] = [join(dir.path, 'prepared'), join(dir.path, 'junk.safetensors')];
    manyTensors(junk, 150, 1);
    prepareStore(prepared, models, [junk]);
    const r = await killStore({ prepared, models, work: dir.path, moments: MOMENTS, seed });
    expect(r.faults.join('\n')).to.equal('');
    expect(r.killed).to.be.greaterThan(0);
  });
});
