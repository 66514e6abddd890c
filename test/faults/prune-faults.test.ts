/** One failing system call at every place of prune: layers side by side with masks, and block by block. */
import { expect } from 'chai';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { everyFault, FAULTS, outputCheck } from '../support/faults.js';
import { hashTree, tempDir } from '../support/files.js';
import { modelFolder } from '../support/goldens.js';
import { DATA, runPrune, statsOf } from '../support/prune-runs.js';

const LLAMA = modelFolder('llama');
// one layer is enough for every kind of call
const selects = (weight: string): boolean => weight === 'model.layers.1.mlp.up_proj.weight';

describe('faults of prune', function () {
  this.timeout(600_000);
  const shared = tempDir();
  const stats = join(shared.path, 'stats');
  before(() => statsOf(LLAMA, stats));
  after(() => shared[Symbol.dispose]());

  const cases = {
    'by statistics': { of: () => ({ stats }), faults: FAULTS },
    // what reads and opens is the same, and its passes take long
    'block by block': { of: () => ({ data: DATA }), faults: ['write:ENOSPC', 'rename:EIO', 'mkdir:ENOSPC'] },
  };
  for (const [name, { of, faults }] of Object.entries(cases)) {
    for (const fault of faults) {
      it(`${name}, ${fault}: the whole result or nothing, and the same call again gives it`, async () => {
        using dir = tempDir();
        const out = join(dir.path, 'o');
        const run = (): Promise<unknown> => runPrune(LLAMA, out, { ...of(), selects, threads: 1 });
        await run();
        const right = hashTree(out);
        const fired = await everyFault(fault, { run, check: outputCheck({ out, right, again: run }) });
        if (fault === 'write:ENOSPC') expect(fired).to.be.above(5);
      });
    }
  }

  it('with masks beside it: both in the end, whatever failed', async () => {
    using dir = tempDir();
    const [out, mask] = [join(dir.path, 'o'), join(dir.path, 'mask')];
    const run = (): Promise<unknown> => runPrune(LLAMA, out, { stats, selects, threads: 1, saveMask: mask });
    await run();
    const right = { out: hashTree(out), mask: hashTree(mask) };
    const clear = (): void => {
      for (const f of readdirSync(dir.path)) rmSync(join(dir.path, f), { recursive: true });
    };
    for (const fault of ['write:ENOSPC', 'rename:EIO']) {
      clear();
      const fired = await everyFault(fault, {
        run,
        check: async (where) => {
          if (!existsSync(out)) await run();
          expect({ out: hashTree(out), mask: hashTree(mask) }, where).to.deep.equal(right);
          clear();
        },
      });
      expect(fired, fault).to.be.above(1);
    }
  });
});
