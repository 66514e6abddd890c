/** Every write, fsync, rename, read, open, mkdir and remove of an encode and of a restore fails once, for n = 1, 2, ... until none is left to fail. */
import { expect } from 'chai';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deltaEncode } from '../../pipelines/delta-encode.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { drain, RUN } from '../support/adapters.js';
import { pith } from '../support/cli.js';
import { everyFault, everyFaultOfProgram, FAULTS, outputCheck } from '../support/faults.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const bytes = (seed: number): Uint8Array => Uint8Array.from({ length: 600 }, (_, i) => (i * 7 + (i % 3 === 0 ? seed : 0)) & 63);

/** Two folders with a tensor and a side file each, and the delta. */
async function pair(dir: string) {
  for (const [name, seed] of [
    ['base', 0],
    ['tuned', 1],
  ] as const) {
    mkdirSync(join(dir, name));
    writeSafetensors(join(dir, name, 'model.safetensors'), [{ name: 'w', dtype: 'BF16', shape: [30, 10], bytes: bytes(seed) }]);
    writeFileSync(join(dir, name, 'config.json'), `{"seed":${seed}}`);
  }
  const [base, tuned, delta] = ['base', 'tuned', 'delta.safetensors'].map((n) => join(dir, n)) as [string, string, string];
  const run = { ...RUN, threads: 1, base, dryRun: false, resume: true };
  const encode = (out: string, force = false) => drain(deltaEncode({ ...run, tuned, out, force, method: 'lossless', params: {}, selects: () => true }));
  const restore = (out: string, force = false) => drain(deltaRestore({ ...run, delta, out, force }));
  await encode(delta);
  return { base, tuned, delta, encode, restore };
}

describe('faults', function () {
  this.timeout(300_000);

  for (const fault of FAULTS) {
    it(`${fault} at every place of an encode and of a restore`, async () => {
      using dir = tempDir();
      const p = await pair(dir.path);
      for (const [run, right] of [
        [p.encode, p.delta],
        [p.restore, p.tuned],
      ] as const) {
        const out = join(dir.path, 'work', 'out');
        mkdirSync(join(dir.path, 'work'), { recursive: true });
        const again = (): Promise<unknown> => run(out);
        const fired = await everyFault(fault, { run: again, check: outputCheck({ out, right: hashTree(right), again }) });
        expect(fired).to.be.greaterThan(0);
      }
    });
  }

  it('over an older output: it stays until the new one has its place', async () => {
    using dir = tempDir();
    const p = await pair(dir.path);
    mkdirSync(join(dir.path, 'work'));
    const out = join(dir.path, 'work', 'out');
    const run = (): Promise<unknown> => p.restore(out, true);
    for (const [fault, from] of [
      ['rename:EIO', p.base],
      ['fsync:EIO', p.base],
      ['rename:EIO', p.delta],
    ] as const) {
      const older = (): Record<string, string> => {
        cpSync(from, out, { recursive: true });
        return hashTree(out);
      };
      const check = outputCheck({ out, right: hashTree(p.tuned), again: run, older });
      expect(await everyFault(fault, { run, check }), fault).to.be.greaterThan(0);
    }
  });

  it('the program itself: exit codes, calls that remove', async () => {
    using dir = tempDir();
    const p = await pair(dir.path);
    const out = join(dir.path, 'out');
    const args = ['delta', 'restore', '--base', p.base, '--delta', p.delta, '--out', out, '-j', '1'];
    for (const fault of ['remove:EACCES', 'rename:EIO']) {
      const right = hashTree(p.tuned);
      const again = async (): Promise<void> => {
        rmSync(out, { recursive: true, force: true });
        const r = pith(args);
        expect(r.code, r.stderr).to.equal(0);
      };
      const check = outputCheck({ out, right, again });
      const fired = await everyFaultOfProgram(fault, args, (where, code) => check(where, code));
      expect(fired, fault).to.be.greaterThan(0);
      expect(hashTree(out)).to.deep.equal(right);
    }
    expect(readFileSync(join(out, 'config.json'), 'utf8')).to.equal('{"seed":1}');
  });
});
