/** What every delta codec of the registry keeps to; a new one is covered by its line in methods/index.ts. */
import { expect } from 'chai';
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { listMethods, loadMethod, methodNames } from '../../methods/index.js';
import { deltaEncode } from '../../pipelines/delta-encode.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { openAny } from '../../workers/open.js';
import { expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, TINY } from '../support/files.js';

const RUN = { maxMemoryBytes: 1e9, seed: 7, device: 'cpu' as const, signal: new AbortController().signal };
const WRITE = { force: false, dryRun: false, resume: true };
const [BASE, TUNED] = [join(TINY, 'base'), join(TINY, 'tuned')];

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

/** Those for tensors without a base have a suite of their own: test/pipelines/pruned.test.ts. */
const standalone = async (name: string): Promise<boolean> => (await loadMethod('delta', name)).create({}).standalone === true;
const paired: string[] = [];
for (const name of methodNames('delta')) if (!(await standalone(name))) paired.push(name);

for (const method of paired) {
  describe(`conformance: delta codec ${method}`, () => {
    const dir = tempDir();
    after(() => dir[Symbol.dispose]());
    const at = (name: string): string => join(dir.path, name);
    const encode = (out: string, threads: number, selects: (name: string) => boolean = () => true) =>
      drain(deltaEncode({ ...RUN, ...WRITE, threads, base: BASE, tuned: TUNED, out: at(out), method, params: {}, selects }));

    it('with its defaults: smaller than the checkpoint, the same bytes at 1, 2 and 4 threads', async () => {
      const reports = [];
      for (const threads of [1, 2, 4]) reports.push(await encode(`${threads}.safetensors`, threads));
      expect(new Set([1, 2, 4].map((t) => hashTree(at(`${t}.safetensors`))[''])).size).to.equal(1);
      expect(reports[0]!.ratio).to.be.lessThan(1);
      expect(reports[0]!.tensors.some((t) => t.method === method)).to.equal(true);
    });

    it('restores every tensor in its dtype and shape, twice to the same bytes, as the file states; exactly when it says so', async () => {
      const delta = at('1.safetensors');
      for (const [threads, out] of [[1, 'a'], [2, 'b']] as const) await drain(deltaRestore({ ...RUN, ...WRITE, threads, base: BASE, delta, out: at(out) })); // prettier-ignore
      expect(hashTree(at('a'))).to.deep.equal(hashTree(at('b')));
      await using want = await openAny(TUNED);
      await using got = await openAny(at('a'));
      expect([...got.infos.values()]).to.deep.equal([...want.infos.values()]);
      const exact = (await loadMethod('delta', method)).create({}).lossless;
      expect((await deltaInfo(delta)).exact).to.equal(exact);
      if (exact) expect(hashTree(at('a'))).to.deep.equal(hashTree(TUNED));
      const verified = await drain(deltaVerify({ ...RUN, threads: 2, base: BASE, delta, tuned: exact ? TUNED : undefined }));
      expect(verified).to.deep.include({ ok: true, exact, mismatches: [] });
    });

    it('codes only what is selected; the rest is exact', async () => {
      const name = 'model.layers.0.mlp.up_proj.weight';
      const r = await encode('selected.safetensors', 2, (n) => n === name);
      expect(r.tensors.filter((t) => t.method !== 'lossless' && t.method !== 'identical').map((t) => t.name)).to.deep.equal(
        method === 'lossless' ? [] : [name],
      );
    });

    it('states what it is, and unknown parameters are refused', async () => {
      const stated = (await listMethods('delta')).find((m) => m.name === method)!;
      expect(stated.title).to.have.length.greaterThan(10);
      expect(new URL(stated.paper.url).protocol).to.equal('https:');
      const loaded = await loadMethod('delta', method);
      await expectCode('BAD_PARAMS', () => loaded.create({ noSuchParameter: 1 }));
    });
  });
}
