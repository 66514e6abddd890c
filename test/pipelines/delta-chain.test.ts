/** BASE+DELTA as a checkpoint: deltas on deltas, squashed and rebased, exact to the last file. */
import { expect } from 'chai';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { deltaRebase, deltaSquash } from '../../pipelines/delta-chain.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import type { RestoreReport } from '../../pipelines/delta-reports.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { diffCheckpoints } from '../../pipelines/diff.js';
import { inspectCheckpoint } from '../../pipelines/inspect.js';
import { storeAdd } from '../../pipelines/store-add.js';
import { storeGet } from '../../pipelines/store-get.js';
import { storeInit } from '../../pipelines/store-list.js';
import { checkpointName, openAny, resolveCheckpoint } from '../../workers/open.js';
import { expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const WRITE = { force: false, dryRun: false, resume: true };

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}
const encode = (base: string, tuned: string, out: string, more: Partial<EncodeOptions> = {}): Promise<EncodeReport> =>
  drain(deltaEncode({ ...RUN, ...WRITE, base, tuned, out, method: 'lossless', params: {}, selects: () => true, ...more }));
const restore = (base: string | undefined, delta: string, out: string): Promise<RestoreReport> => drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out }));

/** A checkpoint of a few bf16 tensors whose rows grow, one of more than a Scratch keeps in memory, and side files of which one changes. */
function make(folder: string, generation: number): string {
  const rng = new Rng(50);
  const path = join(folder, `gen${generation}`);
  mkdirSync(path);
  const view = (name: string, shape: number[], from = 0): TensorView => {
    const bytes = new Uint8Array(2 * shape.reduce((a, b) => a * b, 1));
    const r = rng.fork(name);
    for (let i = 0; i < bytes.length; i += 2) {
      bytes[i] = r.uint32();
      bytes[i + 1] = 0x3c;
    }
    for (let g = 1; g <= generation - from; g++) {
      const step = rng.fork(`${name} ${g}`);
      for (let k = 0; k < bytes.length / 20; k++) bytes[2 * step.integer(bytes.length / 2)]! ^= 1 + step.integer(7);
    }
    return { name, dtype: 'BF16', shape, bytes };
  };
  const views = [view('a.weight', [60, 40]), view('b.weight', [40, 60]), view('same', [64], generation), view('embed', [50 + 4 * generation, 16])];
  views.push(view('large', [2100, 2048], Math.min(generation, 1)));
  if (generation > 0) views.push(view('late', [30]));
  writeSafetensors(join(path, 'model.safetensors'), views, { format: 'pt', generation: String(generation) });
  writeFileSync(join(path, 'config.json'), '{"same":true}');
  writeFileSync(join(path, 'notes.txt'), `generation ${generation}`);
  return path;
}

describe('pipelines/delta-chain', function () {
  this.timeout(180_000);

  it('a delta on a delta: both restore, the second names the content of the chain', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const [g0, g1, g2] = [make(dir.path, 0), make(dir.path, 1), make(dir.path, 2)];
    const first = await encode(g0, g1, p('d1.safetensors'));
    const second = await encode(`${g0}+${p('d1.safetensors')}`, g2, p('d2.safetensors'));
    expect(second.baseHash).to.equal(first.tunedHash);
    const plain = await encode(g1, g2, p('plain.safetensors'));
    expect(second.tunedHash).to.equal(plain.tunedHash);
    // they differ in the base's name
    expect(Math.abs(second.bytes - plain.bytes)).to.be.lessThan(100);
    const info = await deltaInfo(p('d2.safetensors'));
    expect(info.base!.name).to.equal('gen0+d1.safetensors');
    expect(info.sideFiles.find((f) => f.name === 'config.json')!.coding).to.equal('base');
    await restore(`${g0}+${p('d1.safetensors')}`, p('d2.safetensors'), p('back'));
    expect(hashTree(p('back'))).to.deep.equal(hashTree(g2));
    // found by its name, and by the plain checkpoint of the same content
    await restore(undefined, p('d2.safetensors'), p('found'));
    await restore(g1, p('d2.safetensors'), p('plainly'));
    expect(hashTree(p('found'))).to.deep.equal(hashTree(g2));
    expect(hashTree(p('plainly'))).to.deep.equal(hashTree(g2));
    const v = await drain(deltaVerify({ ...RUN, base: `${g0}+${p('d1.safetensors')}`, delta: p('d2.safetensors'), tuned: g2 }));
    expect(v.mismatches).to.deep.equal([]);
  });

  it('every reader takes a chain: inspect, diff, store add; the bytes are those of the files', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const [g0, g1] = [make(dir.path, 0), make(dir.path, 1)];
    await encode(g0, g1, p('d1.safetensors'));
    const chain = `${g0}+${p('d1.safetensors')}`;
    const [a, b] = [await inspectCheckpoint(chain), await inspectCheckpoint(g1)];
    expect({ ...a, source: '' }).to.deep.equal({ ...b, source: '' });
    const d = await drain(diffCheckpoints({ ...RUN, base: g1, tuned: chain, selects: () => true }));
    expect(d.tensors.every((t) => t.status === 'same')).to.equal(true);
    await using chained = await openAny(chain);
    await using plain = await openAny(g1);
    for (const name of ['embed', 'large', 'a.weight', 'embed']) {
      for (const rows of [undefined, [3, 9], [0, 0], [20, 9999]] as const) {
        const [x, y] = [await chained.read(name, rows), await plain.read(name, rows)];
        expect(x.shape).to.deep.equal(y.shape);
        expect(Buffer.compare(x.bytes, y.bytes), `${name} ${String(rows)}`).to.equal(0);
      }
    }
    await expectCode('TENSOR_MISSING', () => chained.read('nothing'));
    storeInit(p('store'));
    await drain(storeAdd({ ...RUN, store: p('store'), checkpoint: chain, name: undefined, force: false, dryRun: false }));
    await drain(storeGet({ ...RUN, ...WRITE, store: p('store'), model: 'gen1', out: p('got') }));
    expect(hashTree(p('got'))).to.deep.equal(hashTree(g1));
  });

  it('squash: one delta that gives the same files; rebase: the same files from another base', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const [g0, g1, g2, g3] = [make(dir.path, 0), make(dir.path, 1), make(dir.path, 2), make(dir.path, 3)];
    await encode(g0, g1, p('d1'));
    await encode(`${g0}+${p('d1')}`, g2, p('d2'));
    await encode(`${g0}+${p('d1')}+${p('d2')}`, g3, p('d3'));
    const squashed = await drain(deltaSquash({ ...RUN, ...WRITE, base: g0, deltas: [p('d1'), p('d2'), p('d3')], out: p('all') }));
    const direct = await encode(g0, g3, p('direct'));
    expect(squashed.tunedHash).to.equal(direct.tunedHash);
    expect(hashTree(p('all'))).to.deep.equal(hashTree(p('direct')));
    await restore(g0, p('all'), p('back'));
    expect(hashTree(p('back'))).to.deep.equal(hashTree(g3));
    const rebased = await drain(deltaRebase({ ...RUN, ...WRITE, base: g0, delta: p('all'), onto: g2, out: p('onto2') }));
    expect(rebased.bytes).to.be.lessThan(direct.bytes);
    await restore(g2, p('onto2'), p('back2'));
    expect(hashTree(p('back2'))).to.deep.equal(hashTree(g3));
  });

  it('the end of a lossy chain squashes to what it restores to', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const [g0, g1, g2] = [make(dir.path, 0), make(dir.path, 1), make(dir.path, 2)];
    const skip = { selects: (name: string) => name !== 'large' };
    await encode(g0, g1, p('d1'), { method: 'ere', params: { rank: 4 }, ...skip });
    await restore(g0, p('d1'), p('lossy'));
    const second = await encode(`${g0}+${p('d1')}`, g2, p('d2'), { method: 'ere', params: { rank: 4 }, ...skip });
    expect(second.baseHash).to.equal((await deltaInfo(p('d1'))).tuned.restoredContentHash);
    await restore(p('lossy'), p('d2'), p('end'));
    await drain(deltaSquash({ ...RUN, ...WRITE, base: g0, deltas: [p('d1'), p('d2')], out: p('all') }));
    const r = await restore(g0, p('all'), p('back'));
    expect(r.exact).to.equal(true);
    expect(hashTree(p('back'))).to.deep.equal(hashTree(p('end')));
  });

  it('refuses: deltas out of order, a wrong base, a damaged step, a delta that stands alone', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const [g0, g1, g2] = [make(dir.path, 0), make(dir.path, 1), make(dir.path, 2)];
    await encode(g0, g1, p('d1'));
    await encode(g1, g2, p('d2'));
    const squash = (deltas: string[], base = g0): Promise<EncodeReport> => drain(deltaSquash({ ...RUN, ...WRITE, resume: false, base, deltas, out: p('all') }));
    await expectCode('WRONG_BASE', () => squash([p('d1'), p('d1')]));
    await expectCode('SHAPE_MISMATCH', () => squash([p('d2')]));
    writeSafetensors(join(g0, 'model.safetensors'), JSON.parse('[]') as TensorView[]);
    await expectCode('TENSOR_MISSING', () => squash([p('d1'), p('d2')]));
    const [h0] = [join(dir.path, 'again')];
    mkdirSync(h0);
    const other = make(h0, 0);
    const bytes = readFileSync(join(other, 'model.safetensors'));
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(join(other, 'model.safetensors'), bytes);
    expect((await expectCode('WRONG_BASE', () => squash([p('d1'), p('d2')], other))).message).to.contain('tensor "');
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(join(other, 'model.safetensors'), bytes);
    const good = readFileSync(p('d1'));
    const bad = Buffer.from(good);
    bad[good.length - 5]! ^= 1;
    writeFileSync(p('d1'), bad);
    expect((await expectCode('DELTA_TENSOR', () => squash([p('d1'), p('d2')], other))).exitCode).to.equal(65);
    await encode(undefined as unknown as string, g2, p('alone'));
    await expectCode('NOT_A_DELTA', () => squash([p('alone')], other));
  });

  it('arguments: a path that exists wins over a chain; relative parts resolve each on its own', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const g0 = make(dir.path, 0);
    mkdirSync(p('a+b'));
    writeFileSync(p('x.safetensors'), 'x');
    expect(resolveCheckpoint(p('a+b'))).to.equal(p('a+b'));
    expect(resolveCheckpoint(`${relative(process.cwd(), g0)}+${relative(process.cwd(), p('x.safetensors'))}`)).to.equal(`${g0}+${p('x.safetensors')}`);
    expect(checkpointName(`${p('a+b')}+${p('x.safetensors')}`)).to.equal('a+b+x.safetensors');
    await expectCode('NOT_FOUND', () => openAny(`${g0}+${p('nothing')}`));
  });
});
