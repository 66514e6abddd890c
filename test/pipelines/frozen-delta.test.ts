/** Delta files frozen at every container version: today's decoder must bring them back for ever. Never written by a test. */
import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaJoin, deltaSplit } from '../../pipelines/delta-split.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { hashTree, ROOT, tempDir } from '../support/files.js';

interface FrozenCase {
  readonly name: string;
  readonly method: string;
  readonly alone: boolean;
  readonly exact: boolean;
  readonly delta: string;
  readonly contentHash: string;
  readonly tensors: Readonly<Record<string, string>>;
  readonly restored: Readonly<Record<string, string>>;
  /** Of a file of two layers, what the lossy one gives and takes. */
  readonly lossy?: { readonly bytes: number; readonly contentHash: string; readonly restored: Readonly<Record<string, string>> };
}

const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const WRITE = { force: false, dryRun: false, resume: false };

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

const CASES = {
  1: ['dtypes', 'shapes', 'sharded', 'alone', 'ere-float', 'ere-int8', 'ere-int4'],
  2: ['shapes', 'sharded', 'ere-float', 'ecsq', 'lowrank-ecsq', 'bitdelta', 'int-2', 'int-5', 'sparse-bf16', 'sparse-exact', 'delta-come', 'pruned'],
  3: ['ecsq', 'auto', 'ere'],
};

for (const [number, names] of Object.entries(CASES)) {
  const FOLDER = join(ROOT, 'test', 'fixtures', `delta-v${number}`);
  const { version, cases } = JSON.parse(readFileSync(join(FOLDER, 'cases.json'), 'utf8')) as { version: number; cases: FrozenCase[] };

  describe(`frozen delta files, version ${number}`, () => {
    it('are there, one for every kind of pair', () => {
      expect(version).to.equal(Number(number));
      expect(cases.map((c) => c.name)).to.include.members(names);
    });

    for (const c of cases) {
      const delta = join(FOLDER, c.name, 'delta.safetensors');
      const base = c.alone ? undefined : join(FOLDER, c.name, 'base');

      it(`${c.name}: the file is the one that was frozen and says the same of itself`, async () => {
        expect(createHash('sha256').update(readFileSync(delta)).digest('hex')).to.equal(c.delta);
        const info = await deltaInfo(delta);
        expect(info.version).to.equal(version);
        expect(info.exact).to.equal(c.exact);
        expect(Object.fromEntries(info.tensors.map((t) => [t.name, t.method]))).to.deep.equal(c.tensors);
      });

      it(`${c.name}: restores to the frozen hashes, and verifies`, async () => {
        using dir = tempDir();
        const out = join(dir.path, 'back');
        const r = await drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out }));
        expect(r.exact).to.equal(c.exact);
        expect(r.contentHash).to.equal(c.contentHash);
        expect(hashTree(out)).to.deep.equal(c.restored);
        expect((await drain(deltaVerify({ ...RUN, base, delta, tuned: undefined }))).mismatches).to.deep.equal([]);
      });

      const { lossy } = c;
      if (lossy === undefined) continue;
      it(`${c.name}: the lossy layer restores to its frozen hashes; cut and joined the files are the frozen ones`, async () => {
        using dir = tempDir();
        const at = (name: string): string => join(dir.path, name);
        const frozen = (name: string): string => join(FOLDER, c.name, `${name}.safetensors`);
        const r = await drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out: at('back'), quality: 'lossy' }));
        expect(r).to.deep.include({ exact: false, contentHash: lossy.contentHash });
        expect(hashTree(at('back'))).to.deep.equal(lossy.restored);
        const { signal } = RUN;
        await drain(deltaSplit({ delta, lossy: at('lossy'), exact: at('exact'), force: false, signal }));
        await drain(deltaJoin({ lossy: frozen('lossy'), exact: frozen('exact'), out: at('delta'), force: false, signal }));
        // the exact file names the version of pith that made it
        for (const name of ['lossy', 'delta']) expect(hashTree(at(name)), name).to.deep.equal(hashTree(frozen(name)));
        await drain(deltaJoin({ lossy: at('lossy'), exact: at('exact'), out: at('again'), force: false, signal }));
        expect(hashTree(at('again'))).to.deep.equal(hashTree(delta));
        expect((await deltaInfo(frozen('lossy'))).bytes).to.equal(lossy.bytes);
      });
    }
  });
}
