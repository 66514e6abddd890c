/** One failing system call at every place of the commands that write adapters, or merge them. */
import { expect } from 'chai';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { adapterExtract } from '../../pipelines/adapter-extract.js';
import { adapterFuse, adapterFuseDelta } from '../../pipelines/adapter-fuse.js';
import { adapterLint } from '../../pipelines/adapter-lint.js';
import { adapterResize } from '../../pipelines/adapter-resize.js';
import { drain, PREFIX, random, RUN, view, writeAdapter, writeBase } from '../support/adapters.js';
import { pith } from '../support/cli.js';
import { everyFault, everyFaultOfProgram, FAULTS, outputCheck } from '../support/faults.js';
import { hashTree, tempDir } from '../support/files.js';

type Write = (out: string, force?: boolean) => Promise<unknown>;

/** A base, a fine-tune of it and an adapter: factors, a full copy, a side file. */
function inputs(dir: string): { base: string; tuned: string; adapter: string } {
  const rng = new Rng(11);
  const base = [random(rng, 'm.q.weight', 8, 6), random(rng, 'm.norm.weight', 6)];
  const plus = (t: TensorView): TensorView =>
    view(
      t.name,
      t.shape,
      new Float32Array(t.bytes.slice().buffer).map((v, i) => v + Math.sin(i + 1)),
    );
  const factors = [random(rng, `${PREFIX}m.q.lora_A.weight`, 4, 6), random(rng, `${PREFIX}m.q.lora_B.weight`, 8, 4), random(rng, `${PREFIX}m.norm.weight`, 6)];
  const paths = {
    base: writeBase(join(dir, 'base'), base),
    tuned: writeBase(join(dir, 'tuned'), base.map(plus)),
    adapter: writeAdapter(join(dir, 'adapter'), factors, { modules_to_save: ['norm'] }),
  };
  writeFileSync(join(paths.base, 'tokenizer.json'), '{}');
  return paths;
}

function commands({ base, tuned, adapter }: ReturnType<typeof inputs>): Record<string, Write> {
  const run = { ...RUN, threads: 1, dryRun: false };
  const select = { embedLora: false, saveModules: [], include: [], exclude: [], skipUndecomposable: false, distributeScale: true };
  const encode = { method: 'lossless', params: {}, selects: () => true };
  return {
    extract: (out, force = false) => drain(adapterExtract({ ...run, ...select, base, tuned, out, rule: { maxRank: 2 }, force })),
    // two shards and an index
    fuse: (out, force = false) => drain(adapterFuse({ ...run, base, adapter, out, shardBytes: 100, force })),
    'fuse to a delta': (out, force = false) => drain(adapterFuseDelta({ ...run, base, adapter, out, force }, encode)),
    resize: (out, force = false) => drain(adapterResize({ ...run, adapter, out, rule: { maxRank: 2 }, force })),
    lint: (out, force = false) => drain(adapterLint({ ...run, adapter, target: 'peft', base, out, force })),
  };
}

describe('faults of adapters', function () {
  this.timeout(300_000);

  for (const name of Object.keys(commands({ base: '', tuned: '', adapter: '' }))) {
    it(`${name}: every place`, async () => {
      using dir = tempDir();
      const run = commands(inputs(dir.path))[name]!;
      const out = join(dir.path, 'work', 'out');
      mkdirSync(join(dir.path, 'work'));
      await run(out);
      const right = hashTree(out);
      const again = (): Promise<unknown> => run(out);
      // a fuse to a delta is a fuse and an encode: its many reads fail in one way only
      for (const fault of FAULTS.filter((f) => name !== 'fuse to a delta' || f !== 'read:short')) {
        const fired = await everyFault(fault, { run: again, check: outputCheck({ out, right, again }) });
        expect(fired, fault).to.be.greaterThan(0);
      }
    });
  }

  it('over an older output, a folder or a file: it stays until the new one has its place', async () => {
    using dir = tempDir();
    const paths = inputs(dir.path);
    const work = join(dir.path, 'work');
    mkdirSync(work);
    for (const [name, from] of [
      ['fuse', paths.tuned],
      ['extract', join(paths.base, 'config.json')],
      ['fuse to a delta', join(paths.base, 'config.json')],
    ] as const) {
      const out = join(work, 'out');
      const run = (): Promise<unknown> => commands(paths)[name]!(out, true);
      await run();
      const right = hashTree(out);
      const older = (): Record<string, string> => {
        cpSync(from, out, { recursive: true });
        return hashTree(out);
      };
      for (const fault of ['rename:EIO', 'fsync:EIO', 'mkdir:ENOSPC']) {
        const fired = await everyFault(fault, { run, check: outputCheck({ out, right, again: run, older }) });
        expect(fired, `${name} ${fault}`).to.be.greaterThan(0);
      }
      rmSync(out, { recursive: true });
    }
  });

  it('the program itself: exit codes, calls that remove', async () => {
    using dir = tempDir();
    const { base, adapter } = inputs(dir.path);
    const out = join(dir.path, 'work', 'out');
    mkdirSync(join(dir.path, 'work'));
    const args = ['adapter', 'fuse', base, adapter, '--out', out, '-j', '1'];
    expect(pith(args).code).to.equal(0);
    const right = hashTree(out);
    const again = async (): Promise<void> => {
      rmSync(out, { recursive: true, force: true });
      const r = pith(args);
      expect(r.code, r.stderr).to.equal(0);
    };
    const check = outputCheck({ out, right, again });
    for (const fault of ['remove:EACCES', 'rename:EIO']) {
      expect(await everyFaultOfProgram(fault, args, check), fault).to.be.greaterThan(0);
      rmSync(out, { recursive: true, force: true });
    }
  });
});
