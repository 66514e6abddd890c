/** Pruned checkpoints without a base: files that shrink, come back byte for byte, and are checkpoints by themselves. */
import { expect } from 'chai';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import type { TensorView } from '../../core/tensor.js';
import { readerConfigFolder, readerSideFiles } from '../../formats/open-checkpoint.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { inspectCheckpoint } from '../../pipelines/inspect.js';
import { openAny } from '../../workers/open.js';
import { BASE, drain, encodePair, restoreTo, RUN, TUNED, WRITE } from '../support/delta-files.js';
import { expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const isPruned = (t: TensorView): boolean => t.shape.length === 2 && t.name.includes('layers.');

/** The smaller half of every row, or the two smaller of every four, to +0. */
function halved(t: TensorView, groups: boolean): TensorView {
  const w = decodeF32('BF16', t.bytes);
  const n = groups ? 4 : t.shape[1]!;
  for (let at = 0; at < w.length; at += n) {
    const order = Array.from({ length: n }, (_, j) => at + j).sort((a, b) => Math.abs(w[a]!) - Math.abs(w[b]!));
    for (const i of order.slice(0, n / 2)) w[i] = 0;
  }
  return { ...t, bytes: encodeAs('BF16', w) };
}

async function prunedTiny(folder: string, groups: boolean): Promise<string> {
  const out = join(folder, groups ? 'groups' : 'half');
  mkdirSync(out, { recursive: true });
  cpSync(TUNED, out, { recursive: true });
  await using reader = await openAny(TUNED);
  const views: TensorView[] = [];
  for (const name of reader.infos.keys()) {
    const t = await reader.read(name);
    views.push(isPruned(t) ? halved(t, groups) : t);
  }
  writeSafetensors(join(out, 'model.safetensors'), views);
  return out;
}

describe('pipelines/delta pruned', () => {
  const dir = tempDir();
  after(() => dir[Symbol.dispose]());
  const at = (name: string): string => join(dir.path, name);
  const encode = (tuned: string, out: string, threads = 2, params = {}) =>
    encodePair({ base: '', tuned }, at(out), 'pruned', params, { base: undefined, threads });
  let half = '';
  before(async () => {
    half = await prunedTiny(dir.path, false);
    await encode(half, 'half.safetensors');
  });

  it('half of every row: at most 0.37 of the pruned tensors; the same bytes at 1, 2 and 4 threads', async () => {
    const r = await encode(half, '1.safetensors', 1);
    const coded = r.tensors.filter((t) => t.method === 'pruned');
    await using reader = await openAny(half);
    expect(coded.map((t) => t.name).sort()).to.deep.equal(
      [...reader.infos.keys()].filter((n) => reader.infos.get(n)!.shape.length === 2 && n.includes('layers.')).sort(),
    );
    const sum = (key: 'bytes' | 'rawBytes'): number => coded.reduce((s, t) => s + t[key], 0);
    expect(sum('bytes') / sum('rawBytes')).to.be.lessThan(0.37);
    for (const t of coded) expect(t.facts).to.deep.include({ structure: 'unstructured', sparsity: 0.5 });
    await encode(half, '4.safetensors', 4);
    for (const other of ['1.safetensors', '4.safetensors']) expect(hashTree(at(other))).to.deep.equal(hashTree(at('half.safetensors')));
    expect(r.tensors.find((t) => t.name === 'model.embed_tokens.weight')!.method).to.equal('lossless');
  });

  it('2:4 is found, and takes less than 9/16', async () => {
    const r = await encode(await prunedTiny(dir.path, true), 'groups.safetensors');
    const coded = r.tensors.filter((t) => t.method === 'pruned');
    for (const t of coded) expect(t.facts?.['structure']).to.equal('2:4');
    expect(coded.reduce((s, t) => s + t.bytes, 0) / coded.reduce((s, t) => s + t.rawBytes, 0)).to.be.lessThan(0.37);
  });

  it('comes back byte for byte, every file of the folder, and verifies', async () => {
    const delta = at('half.safetensors');
    await drain(deltaRestore({ ...RUN, ...WRITE, base: undefined, delta, out: at('back') }));
    expect(hashTree(at('back'))).to.deep.equal(hashTree(half));
    expect(await drain(deltaVerify({ ...RUN, base: undefined, delta, tuned: half }))).to.deep.include({ ok: true, exact: true, mismatches: [] });
    const info = await deltaInfo(delta);
    expect(info.exact).to.equal(true);
  });

  it('is a checkpoint by itself: tensors, rows, side files, in a folder too', async () => {
    mkdirSync(at('folder'));
    cpSync(at('half.safetensors'), at('folder/model.safetensors'));
    await using plain = await openAny(half);
    for (const form of ['half.safetensors', 'folder']) {
      await using alone = await openAny(at(form));
      expect([...alone.infos.values()]).to.deep.equal([...plain.infos.values()]);
      for (const name of plain.infos.keys()) expect(Buffer.compare((await alone.read(name)).bytes, (await plain.read(name)).bytes), name).to.equal(0);
      const name = 'model.layers.1.mlp.up_proj.weight';
      const [own, want] = [await alone.read(name, [3, 17]), await plain.read(name, [3, 17])];
      expect(own).to.deep.equal(want);
      const sides = async (r: typeof alone): Promise<Map<string, string>> =>
        new Map((await readerSideFiles(r)).map((f) => [f.name, readFileSync(f.path, 'latin1')]));
      expect(await sides(alone)).to.deep.equal(await sides(plain));
      expect(readFileSync(join((await readerConfigFolder(alone))!, 'config.json'))).to.deep.equal(readFileSync(join(half, 'config.json')));
    }
    const report = await inspectCheckpoint(at('half.safetensors'));
    expect(report.parameters).to.equal((await inspectCheckpoint(half)).parameters);
  });

  it('a file that was made losslessly without a base is a checkpoint too, and a base', async () => {
    await encodePair({ base: '', tuned: BASE }, at('base.safetensors'), 'lossless', {}, { base: undefined });
    await using alone = await openAny(at('base.safetensors'));
    await using plain = await openAny(BASE);
    expect([...alone.infos.keys()]).to.deep.equal([...plain.infos.keys()]);
    await encodePair({ base: at('base.safetensors'), tuned: TUNED }, at('d.safetensors'), 'lossless');
    await restoreTo(at('base.safetensors'), at('d.safetensors'), at('tuned'));
    expect(hashTree(at('tuned'))).to.deep.equal(hashTree(TUNED));
  });

  it('without side files the config beside the file is taken', async () => {
    mkdirSync(at('beside'));
    await encode(join(half, 'model.safetensors'), 'beside/p.safetensors');
    writeFileSync(at('beside/config.json'), '{}');
    await using reader = await openAny(at('beside/p.safetensors'));
    expect(await readerConfigFolder(reader)).to.equal(at('beside'));
    expect(basename(reader.title!)).to.equal('model.safetensors');
  });

  it('a delta with a base is no checkpoint alone; a damaged file says so', async () => {
    await encodePair({ base: BASE, tuned: TUNED }, at('based.safetensors'), 'lossless');
    await using stored = await openAny(at('based.safetensors'));
    expect([...stored.infos.keys()]).to.include('model.norm.weight::residual');
    const bytes = readFileSync(at('half.safetensors'));
    const name = 'model.layers.0.mlp.up_proj.weight';
    const damaged = (edit: (b: Buffer) => void): string => {
      const copy = Buffer.from(bytes);
      edit(copy);
      writeFileSync(at('damaged.safetensors'), copy);
      return at('damaged.safetensors');
    };
    await expectCode('DELTA_MALFORMED', () => openAny(damaged((b) => b.write('X', b.indexOf('contentHash') + 20))));
    // the last bytes are those of a tensor's part
    await using reader = await openAny(damaged((b) => b.fill(0, b.length - 40_000)));
    await expectCode('DELTA_TENSOR', async () => {
      for (const t of reader.infos.keys()) await reader.read(t);
    });
    expect(reader.infos.has(name)).to.equal(true);
  });
});
