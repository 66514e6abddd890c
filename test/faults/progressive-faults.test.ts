/** One failing system call at every place of a progressive encode, of restores at both qualities, of a split and of a join. */
import { expect } from 'chai';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import { deltaEncode } from '../../pipelines/delta-encode.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaJoin, deltaSplit } from '../../pipelines/delta-split.js';
import { pith } from '../support/cli.js';
import { drain, matrixPair, RUN } from '../support/delta-files.js';
import { everyFault, everyFaultOfProgram, FAULTS, outputCheck } from '../support/faults.js';
import { hashTree, tempDir } from '../support/files.js';

type Write = (out: string) => Promise<unknown>;

/** The pair's delta and its two layers, and what makes each of them and both restores. */
async function prepared(dir: string): Promise<{ commands: Record<string, Write>; other: string }> {
  const pair = matrixPair(dir, 'BF16', [30, 10], new Rng(1).normals(300), new Rng(2).normals(300));
  const [d, l, e, other] = ['d', 'l', 'e', 'other'].map((n) => join(dir, n)) as [string, string, string, string];
  const run = { ...RUN, threads: 1, force: false, dryRun: false, resume: true };
  const encode: Write = (out) => drain(deltaEncode({ ...run, ...pair, out, method: 'int', params: { bits: 3 }, selects: () => true, progressive: true }));
  await encode(d);
  const split = (outs: object) => drain(deltaSplit({ delta: d, ...outs, force: false, signal: RUN.signal }));
  await split({ lossy: l, exact: e });
  mkdirSync(other);
  const restore = (out: string, quality: 'lossy' | 'exact') => drain(deltaRestore({ ...run, base: pair.base, delta: d, out, quality }));
  const commands: Record<string, Write> = {
    'delta encode --progressive': encode,
    'delta restore --quality exact': (out) => restore(out, 'exact'),
    'delta restore --quality lossy': (out) => restore(out, 'lossy'),
    'delta split, lossy': (lossy) => split({ lossy }),
    'delta split, exact': (exact) => split({ exact }),
    'delta split, both': (lossy) => {
      rmSync(join(other, 'e'), { force: true });
      return split({ lossy, exact: join(other, 'e') });
    },
    'delta join': (out) => drain(deltaJoin({ lossy: l, exact: e, out, force: false, signal: RUN.signal })),
  };
  return { commands, other };
}

const NAMES = [
  'delta encode --progressive',
  'delta restore --quality exact',
  'delta restore --quality lossy',
  'delta split, lossy',
  'delta split, exact',
  'delta split, both',
  'delta join',
];

describe('faults of deltas of two layers', function () {
  this.timeout(300_000);

  for (const name of NAMES) {
    it(`${name}: every place`, async () => {
      using dir = tempDir();
      const { commands, other } = await prepared(dir.path);
      const out = join(dir.path, 'work', 'out');
      mkdirSync(join(dir.path, 'work'));
      const again = (): Promise<unknown> => commands[name]!(out);
      await again();
      const right = hashTree(out);
      const second = existsSync(join(other, 'e')) ? hashTree(join(other, 'e')) : undefined;
      for (const fault of FAULTS) {
        const one = outputCheck({ out, right, again });
        const fired = await everyFault(fault, {
          run: again,
          check: async (where, error) => {
            if (existsSync(join(other, 'e'))) expect(hashTree(join(other, 'e')), where).to.deep.equal(second);
            await one(where, error);
          },
        });
        expect(fired, fault).to.be.greaterThan(0);
      }
    });
  }

  it('the program itself: exit codes, calls that remove', async () => {
    using dir = tempDir();
    await prepared(dir.path);
    const [l, e, out] = ['l', 'e', 'work/out'].map((n) => join(dir.path, n)) as [string, string, string];
    mkdirSync(join(dir.path, 'work'));
    const args = ['delta', 'join', l, e, '--out', out];
    const right = hashTree(join(dir.path, 'd'));
    const again = async (): Promise<void> => {
      rmSync(out, { force: true });
      const r = pith(args);
      expect(r.code, r.stderr).to.equal(0);
    };
    for (const fault of ['remove:EACCES', 'rename:EIO']) {
      expect(await everyFaultOfProgram(fault, args, outputCheck({ out, right, again })), fault).to.be.greaterThan(0);
      expect(hashTree(out)).to.deep.equal(right);
      rmSync(out);
    }
  });
});
