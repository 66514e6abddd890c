/** Deltas of two layers: the lossy one by itself, the exact remainder behind it, taken apart and put together again. */
import { expect } from 'chai';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeAs, decodeF32 } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { DeltaFile } from '../../formats/delta/file.js';
import { EXACT_ROOM } from '../../formats/delta/layers.js';
import { SafetensorsFile } from '../../formats/safetensors/file.js';
import { SafetensorsWriter } from '../../formats/safetensors/writer.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { loadMethod, methodNames } from '../../methods/index.js';
import { deltaRebase, deltaSquash } from '../../pipelines/delta-chain.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import type { RestoreOptions, RestoreReport, VerifyReport } from '../../pipelines/delta-reports.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaJoin, deltaSplit } from '../../pipelines/delta-split.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { storeAdd } from '../../pipelines/store-add.js';
import { storeGet } from '../../pipelines/store-get.js';
import { storeInit } from '../../pipelines/store-list.js';
import { openAny } from '../../workers/open.js';
import { BASE, drain, encodePair, RUN, TUNED, view, WRITE } from '../support/delta-files.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, tempDir } from '../support/files.js';

const SIGNAL = RUN.signal;
const TINY_PAIR = { base: BASE, tuned: TUNED };
const LOSSY: string[] = [];
for (const name of methodNames('delta')) if (!(await loadMethod('delta', name)).create({}).lossless) LOSSY.push(name);

interface Pair {
  readonly base: string;
  readonly tuned: string;
}

const restore = (base: string, delta: string, out: string, more: Partial<RestoreOptions> = {}): Promise<RestoreReport> =>
  drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out, ...more }));
const verify = (base: string, delta: string, tuned?: string): Promise<VerifyReport> => drain(deltaVerify({ ...RUN, base, delta, tuned }));
const progressive = (pair: Pair, out: string, method: string, params: object = {}, more: Partial<EncodeOptions> = {}): Promise<EncodeReport> =>
  encodePair(pair, out, method, params, { progressive: true, ...more });
const split = (delta: string, lossy: string, exact: string, force = false) => drain(deltaSplit({ delta, lossy, exact, force, signal: SIGNAL }));
const join2 = (lossy: string, exact: string, out: string, force = false) => drain(deltaJoin({ lossy, exact, out, force, signal: SIGNAL }));

/** Matrices of every float type, one that does not fit a Scratch's memory, vectors, and every way in which two checkpoints differ; in shards, with side files. */
async function mixedPair(folder: string, seed = 60): Promise<Pair> {
  const rng = new Rng(seed);
  const weights = (name: string, dtype: DenseDType, ...shape: number[]): TensorView =>
    view(
      name,
      dtype,
      shape,
      rng
        .fork(name)
        .normals(shape.reduce((a, b) => a * b, 1))
        .map((v) => 0.02 * v),
    );
  const moved = (t: TensorView): TensorView => {
    const noise = rng.fork(`move ${t.name}`);
    const values = decodeF32(t.dtype, t.bytes).map((v) => v + 0.002 * noise.normal());
    return { ...t, bytes: encodeAs(t.dtype as DenseDType, values) };
  };
  const grown = (t: TensorView, rows: number): TensorView => {
    const more = weights(`${t.name} more`, t.dtype as DenseDType, rows, t.shape[1]!);
    return { ...t, shape: [t.shape[0]! + rows, t.shape[1]!], bytes: Buffer.concat([t.bytes, more.bytes]) };
  };
  const base = [weights('a.weight', 'BF16', 70, 90), weights('b.weight', 'F16', 90, 40), weights('c.weight', 'F32', 48, 50)];
  base.push(weights('conv.weight', 'BF16', 12, 8, 3, 3), weights('norm.weight', 'BF16', 90), weights('norm.bias', 'F32', 33));
  base.push(weights('large.weight', 'BF16', 2100, 2048), weights('model.embed_tokens.weight', 'BF16', 80, 16), weights('shrunk.weight', 'BF16', 60, 24));
  const tuned = base.map((t) => (t.name === 'large.weight' ? { ...t, bytes: t.bytes.map((b, i) => (i % 400 === 0 ? b ^ 1 : b)) } : moved(t)));
  tuned[7] = grown(tuned[7]!, 5);
  tuned[8] = { ...tuned[8]!, shape: [50, 24], bytes: tuned[8]!.bytes.slice(0, 2400) };
  const same = weights('same.weight', 'BF16', 20, 20);
  base.push(same, weights('reshaped.weight', 'F32', 6, 2), weights('retyped.weight', 'F32', 4, 4), weights('removed.weight', 'F32', 5));
  tuned.push(same, weights('reshaped.weight', 'F32', 3, 4), weights('retyped.weight', 'BF16', 4, 4), weights('added.weight', 'F16', 7, 3));
  tuned.push({ name: 'ids', dtype: 'I64', shape: [4], bytes: new Uint8Array(32).fill(3) });
  const pair = { base: join(folder, 'base'), tuned: join(folder, 'tuned') };
  for (const [path, views, shardBytes] of [
    [pair.base, base, 5_000_000],
    [pair.tuned, tuned, 30_000],
  ] as const) {
    const writer = new SafetensorsWriter(path, views, { shardBytes });
    for (const v of views) await writer.write(v);
    await writer.finalize();
    writeFileSync(join(path, 'config.json'), '{"same":true}');
    writeFileSync(join(path, 'tokenizer.json'), path === pair.base ? '{}' : '{"tuned":true}');
  }
  return pair;
}

describe('pipelines/progressive: the tiny pair', function () {
  this.timeout(300_000);
  const dir = tempDir();
  after(() => dir[Symbol.dispose]());
  const at = (name: string): string => join(dir.path, name);
  const target = { bytes: 230_000 };
  let report: EncodeReport;

  before(async () => {
    report = await progressive(TINY_PAIR, at('d'), 'auto', {}, { target });
  });

  it('the target counts the lossy layer, header included: the file that is left when the exact one is cut off', async () => {
    expect(report.bytes).to.equal(statSync(at('d')).size);
    expect(report.layers!.lossy + report.layers!.exact).to.equal(report.bytes);
    expect(report.layers!.lossy).to.be.within(0.99 * target.bytes, target.bytes);
    await split(at('d'), at('l'), at('e'));
    expect(statSync(at('l')).size).to.equal(report.layers!.lossy);
    const plain = await encodePair(TINY_PAIR, at('plain'), 'auto', {}, { target });
    expect(report.error).to.be.within(0.98 * plain.error!, 1.03 * plain.error!);
  });

  it('exact: every file byte for byte; lossy: what the cut file restores to; both as the header promises', async () => {
    using delta = DeltaFile.open(at('d'));
    const { tuned } = delta.manifest;
    const exact = await restore(BASE, at('d'), at('exact'));
    expect(exact).to.deep.include({ exact: true, contentHash: tuned.contentHash });
    expect(hashTree(at('exact'))).to.deep.equal(hashTree(TUNED));
    const lossy = await restore(BASE, at('d'), at('lossy'), { quality: 'lossy' });
    expect(lossy).to.deep.include({ exact: false, contentHash: tuned.restoredContentHash });
    const cut = await restore(BASE, at('l'), at('cut'));
    expect(cut).to.deep.include({ exact: false, contentHash: tuned.restoredContentHash });
    expect(hashTree(at('lossy'))).to.deep.equal(hashTree(at('cut')));
    expect(hashTree(at('lossy'))).to.not.deep.equal(hashTree(TUNED));
    expect(await verify(BASE, at('d'), TUNED)).to.deep.include({ ok: true, exact: true, checked: 38 });
    expect(await verify(BASE, at('l'))).to.deep.include({ ok: true, exact: false });
  });

  it('both layers together are not much more than a lossless delta', async () => {
    const lossless = await encodePair(TINY_PAIR, at('lossless'), 'lossless');
    expect(report.bytes).to.be.lessThan(1.02 * lossless.bytes);
  });

  it('info: the layers and their bytes, in the file and of each tensor', async () => {
    const info = await deltaInfo(at('d'));
    expect(info).to.deep.include({ version: 3, exact: true, layers: report.layers });
    const encoded = new Map(report.tensors.map((t) => [t.name, t]));
    for (const t of info.tensors) {
      expect(t.bytes, t.name).to.equal(encoded.get(t.name)!.bytes);
      expect(t.exactBytes, t.name).to.equal(encoded.get(t.name)!.exactBytes);
    }
    expect(info.tensors.some((t) => t.exactBytes !== undefined)).to.equal(true);
    expect(await deltaInfo(at('l'))).to.deep.include({ version: 2, exact: false, bytes: report.layers!.lossy });
  });

  it('the same bytes at 1, 2 and 4 threads', async () => {
    for (const threads of [1, 2, 4]) await progressive(TINY_PAIR, at(`t${threads}`), 'lowrank-ecsq', { step: 2 }, { threads });
    expect(new Set([1, 2, 4].map((t) => hashTree(at(`t${t}`))[''])).size).to.equal(1);
  });

  it('a ratio and an error are of the lossy layer too', async () => {
    const ratio = await progressive(TINY_PAIR, at('ratio'), 'ecsq', {}, { target: { ratio: 20 } });
    expect(ratio.layers!.lossy).to.be.within(0.99 * (ratio.rawBytes / 20), ratio.rawBytes / 20);
    const error = await progressive(TINY_PAIR, at('error'), 'auto', {}, { target: { maxError: 0.4 } });
    expect(error.error).to.be.within(0.38, 0.4);
    await restore(BASE, at('error'), at('error-exact'));
    expect(hashTree(at('error-exact'))).to.deep.equal(hashTree(TUNED));
  });

  it('where everything fits exactly there is one layer, the file that it is without --progressive', async () => {
    const target = { bytes: 5_000_000 };
    const r = await progressive(TINY_PAIR, at('all'), 'auto', {}, { target });
    expect(r.layers).to.equal(undefined);
    await encodePair(TINY_PAIR, at('all-plain'), 'auto', {}, { target });
    expect(hashTree(at('all'))).to.deep.equal(hashTree(at('all-plain')));
    await restore(BASE, at('all'), at('all-exact'), { quality: 'exact' });
    expect(hashTree(at('all-exact'))).to.deep.equal(hashTree(TUNED));
  });
});

describe('pipelines/progressive: every kind of tensor', function () {
  this.timeout(300_000);
  const dir = tempDir();
  after(() => dir[Symbol.dispose]());
  const at = (name: string): string => join(dir.path, name);
  let pair: Pair;
  const selects = (name: string): boolean => name !== 'large.weight';
  const cases: [string, object, Partial<EncodeOptions>][] = [...LOSSY.map((m): [string, object, Partial<EncodeOptions>] => [m, {}, {}]), ['auto', {}, { target: { maxError: 0.3 } }]]; // prettier-ignore

  before(async () => {
    pair = await mixedPair(dir.path);
  });

  for (const [method, params, more] of cases) {
    it(`${method}: exact is the original, lossy what the method alone gives`, async () => {
      const d = at(`${method}.d`);
      const r = await progressive(pair, d, method, params, { ...more, selects });
      const used = r.tensors.filter((t) => t.exactBytes !== undefined);
      expect(used.length).to.be.greaterThan(0);
      for (const t of used) expect(t.method).to.not.be.oneOf(['lossless', 'identical']);
      await restore(pair.base, d, at(`${method}.exact`));
      expect(hashTree(at(`${method}.exact`))).to.deep.equal(hashTree(pair.tuned));
      await encodePair(pair, at(`${method}.plain`), method, params, { ...more, selects });
      await restore(pair.base, d, at(`${method}.lossy`), { quality: 'lossy' });
      await restore(pair.base, at(`${method}.plain`), at(`${method}.want`));
      expect(hashTree(at(`${method}.lossy`))).to.deep.equal(hashTree(at(`${method}.want`)));
      expect((await verify(pair.base, d, pair.tuned)).mismatches).to.deep.equal([]);
      // without a budget the lossy layer is the plain delta with room in its header, tensor by tensor
      await split(d, at(`${method}.l`), at(`${method}.e`));
      const data = (path: string): Buffer => {
        using file = SafetensorsFile.open(path);
        return readFileSync(path).subarray(file.dataStart);
      };
      expect(Buffer.compare(data(at(`${method}.l`)), data(at(`${method}.plain`)))).to.equal(0);
      expect(statSync(at(`${method}.l`)).size - statSync(at(`${method}.plain`)).size).to.equal(EXACT_ROOM);
      await join2(at(`${method}.l`), at(`${method}.e`), at(`${method}.joined`));
      expect(hashTree(at(`${method}.joined`))).to.deep.equal(hashTree(d));
    });
  }

  it('a tensor beyond what is kept in memory', async () => {
    const d = at('large.d');
    const r = await progressive(pair, d, 'sparse', { density: 0.001 }, { selects: (name) => name === 'large.weight' });
    expect(r.tensors.filter((t) => t.exactBytes !== undefined).map((t) => t.name)).to.deep.equal(['large.weight']);
    await restore(pair.base, d, at('large.exact'));
    expect(hashTree(at('large.exact'))).to.deep.equal(hashTree(pair.tuned));
  });

  it('as BASE+DELTA it is the original: read, squashed, rebased, put into a store, the base of another delta', async () => {
    const d = at('chain.d');
    const encoded = await progressive(pair, d, 'ere', { rank: 4 }, { selects });
    const chain = `${pair.base}+${d}`;
    await using got = await openAny(chain);
    await using want = await openAny(pair.tuned);
    for (const name of want.infos.keys()) expect(Buffer.compare((await got.read(name)).bytes, (await want.read(name)).bytes), name).to.equal(0);
    await drain(deltaSquash({ ...RUN, ...WRITE, base: pair.base, deltas: [d], out: at('squashed') }));
    await restore(pair.base, at('squashed'), at('squashed.back'));
    expect(hashTree(at('squashed.back'))).to.deep.equal(hashTree(pair.tuned));
    await drain(deltaRebase({ ...RUN, ...WRITE, base: pair.base, delta: d, onto: pair.tuned, out: at('rebased') }));
    await restore(pair.tuned, at('rebased'), at('rebased.back'));
    expect(hashTree(at('rebased.back'))).to.deep.equal(hashTree(pair.tuned));
    storeInit(at('store'));
    await drain(storeAdd({ ...RUN, store: at('store'), checkpoint: chain, name: 'm', force: false, dryRun: false }));
    await drain(storeGet({ ...RUN, ...WRITE, store: at('store'), model: 'm', out: at('got') }));
    expect(hashTree(at('got'))).to.deep.equal(hashTree(pair.tuned));
    const next = await encodePair({ base: chain, tuned: pair.base }, at('next'), 'lossless');
    expect(next.baseHash).to.equal(encoded.tunedHash);
    await restore(chain, at('next'), at('next.back'));
    expect(hashTree(at('next.back'))).to.deep.equal(hashTree(pair.base));
  });
});

describe('pipelines/progressive: cut, joined, damaged', function () {
  this.timeout(300_000);
  const dir = tempDir();
  after(() => dir[Symbol.dispose]());
  const at = (name: string): string => join(dir.path, name);
  let pair: Pair;
  let bytes: Buffer;
  let lossyBytes: number;
  const write = (name: string, change: (copy: Buffer) => void): string => {
    const copy = Buffer.from(bytes);
    change(copy);
    writeFileSync(at(name), copy);
    return at(name);
  };

  before(async () => {
    const [w, n] = [new Rng(1).normals(3000), new Rng(2).normals(3000)];
    mkdirSync(at('base'));
    mkdirSync(at('tuned'));
    pair = { base: at('base'), tuned: at('tuned') };
    for (const [path, values] of [
      [pair.base, w],
      [pair.tuned, w.map((v, i) => v + 0.1 * n[i]!)],
    ] as const) {
      const views = [view('w.weight', 'BF16', [60, 50], values), view('v.weight', 'F32', [30, 100], values), view('b', 'BF16', [40], values.slice(0, 40))];
      const writer = new SafetensorsWriter(join(path, 'model.safetensors'), views);
      for (const v of views) await writer.write(v);
      await writer.finalize();
    }
    const r = await progressive(pair, at('d'), 'int', { bits: 3 });
    lossyBytes = r.layers!.lossy;
    bytes = readFileSync(at('d'));
    await split(at('d'), at('l'), at('e'));
  });

  it("cutting moves no byte of the lossy layer; what is appended are the exact file's own bytes", () => {
    const [lossy, exact] = [readFileSync(at('l')), readFileSync(at('e'))];
    const dataStart = 8 + Number(bytes.readBigUInt64LE(0));
    expect(lossy.length).to.equal(lossyBytes);
    expect(Number(lossy.readBigUInt64LE(0)) + 8).to.equal(dataStart);
    expect(Buffer.compare(lossy.subarray(dataStart), bytes.subarray(dataStart, lossyBytes))).to.equal(0);
    const exactStart = 8 + Number(exact.readBigUInt64LE(0));
    const tail = bytes.subarray(lossyBytes);
    expect(Buffer.compare(exact.subarray(exactStart, exactStart + tail.length), tail)).to.equal(0);
  });

  it('either layer alone is cut as it is with the other', async () => {
    await drain(deltaSplit({ delta: at('d'), lossy: at('l2'), force: false, signal: SIGNAL }));
    await drain(deltaSplit({ delta: at('d'), exact: at('e2'), force: false, signal: SIGNAL }));
    for (const name of ['l', 'e']) expect(hashTree(at(`${name}2`))).to.deep.equal(hashTree(at(name)));
  });

  it('refuses what is not there or in the way: layers of a file of one, no output, an existing one, a lossless method', async () => {
    await expectCode('NO_EXACT_LAYER', () => split(at('l'), at('x'), at('y')));
    await expectCode('NO_EXACT_LAYER', () => restore(pair.base, at('l'), at('x'), { quality: 'exact' }));
    await expectCode('USAGE', () => drain(deltaSplit({ delta: at('d'), force: false, signal: SIGNAL })));
    await expectCode('USAGE', () => split(at('d'), at('x'), at('x')));
    await expectCode('OUTPUT_EXISTS', () => split(at('d'), at('l'), at('x')));
    await expectCode('OUTPUT_EXISTS', () => join2(at('l'), at('e'), at('d')));
    await expectCode('USAGE', () => progressive(pair, at('x'), 'lossless'));
    await expectCode('USAGE', () => progressive(pair, at('x'), 'pruned'));
    await expectCode('USAGE', () => drain(deltaEncode({ ...RUN, ...WRITE, base: undefined, tuned: pair.tuned, out: at('x'), method: 'int', params: {}, selects: () => true, progressive: true }))); // prettier-ignore
    const error = await expectCode('NOT_A_DELTA', () => restore(pair.base, at('e'), at('x')));
    expect(error.message).to.contain('delta join');
    await expectCode('NOT_A_DELTA', () => join2(at('l'), at('l'), at('x')));
    await expectCode('NOT_A_DELTA', () => join2(at('e'), at('e'), at('x')));
    await expectCode('LAYERS_MISMATCH', () => join2(at('d'), at('e'), at('x')));
    expect(readdirSync(dir.path).filter((n) => n === 'x' || n === 'y' || /partial|tmp/.test(n))).to.deep.equal([]);
    await split(at('d'), at('l'), at('e'), true);
    await join2(at('l'), at('e'), at('d'), true);
    expect(Buffer.compare(readFileSync(at('d')), bytes)).to.equal(0);
  });

  it('layers of two deltas are refused: other parameters, another base, another tuned checkpoint', async () => {
    await progressive(pair, at('d4'), 'int', { bits: 4 });
    await progressive({ base: pair.tuned, tuned: pair.base }, at('dr'), 'int', { bits: 3 });
    for (const name of ['d4', 'dr']) {
      await split(at(name), at(`${name}.l`), at(`${name}.e`));
      for (const [l, e] of [
        [at('l'), at(`${name}.e`)],
        [at(`${name}.l`), at('e')],
      ] as const) {
        const error = await expectCode('LAYERS_MISMATCH', () => join2(l, e, at('x')));
        expect(error.exitCode).to.equal(65);
      }
    }
    // the ordinary lossy delta has the same data and no room
    await encodePair(pair, at('plain'), 'int', { bits: 3 });
    await expectCode('LAYERS_MISMATCH', () => join2(at('plain'), at('e'), at('x')));
    expect(existsSync(at('x'))).to.equal(false);
  });

  it("one flipped byte of either layer's file: no joined file", async () => {
    for (const name of ['l', 'e'] as const) {
      const good = readFileSync(at(name));
      for (let i = 0; i < good.length; i += name === 'l' ? 97 : 89) {
        const bad = Buffer.from(good);
        bad[i]! ^= 0x10;
        writeFileSync(at('bad'), bad);
        const error = await errorOf(() => (name === 'l' ? join2(at('bad'), at('e'), at('x')) : join2(at('l'), at('bad'), at('x'))));
        expect(error.exitCode, `${name} byte ${i}: ${error.message}`).to.equal(65);
        expect(existsSync(at('x'))).to.equal(false);
      }
    }
  });

  it('a lossy restore reads nothing of the exact layer; an exact one meets every fault of it', async () => {
    await restore(pair.base, at('d'), at('want'), { quality: 'lossy' });
    const noise = write('noise', (copy) => void copy.fill(0x5a, lossyBytes));
    await restore(pair.base, noise, at('lossy'), { quality: 'lossy' });
    expect(hashTree(at('lossy'))).to.deep.equal(hashTree(at('want')));
    await expectCode('DELTA_MALFORMED', () => restore(pair.base, noise, at('x')));
    await expectCode('DELTA_MALFORMED', () => split(noise, at('x'), at('y')));
    const one = write('one', (copy) => void (copy[lossyBytes + 40]! ^= 1));
    await expectCode('DELTA_TENSOR', () => restore(pair.base, one, at('x'), { resume: false }));
    await expectCode('DELTA_MALFORMED', () => split(one, at('x'), at('y')));
    const report = await verify(pair.base, one);
    expect(report.mismatches.map((m) => m.what)).to.deep.equal(['exact']);
    for (const name of ['x', 'y']) expect(existsSync(at(name)), name).to.equal(false);
  });

  it('damage in the lossy layer is told from damage in the exact one', async () => {
    using delta = DeltaFile.open(at('d'));
    const [begin] = delta.span('w.weight::codes');
    const bad = write('bad', (copy) => void (copy[begin + 9]! ^= 4));
    const report = await verify(pair.base, bad);
    expect(report.ok).to.equal(false);
    expect(report.mismatches.map((m) => [m.tensor, m.what])).to.deep.equal([['w.weight', 'data']]);
    await expectCode('DELTA_TENSOR', () => restore(pair.base, bad, at('x'), { quality: 'lossy', resume: false }));
    await expectCode('DELTA_TENSOR', () => restore(pair.base, bad, at('x'), { resume: false }));
  });

  it('a wrong base is named as such, at both qualities and by verify', async () => {
    for (const quality of ['lossy', 'exact'] as const) await expectCode('WRONG_BASE', () => restore(pair.tuned, at('d'), at('x'), { quality, resume: false }));
    const report = await verify(pair.tuned, at('d'));
    expect(new Set(report.mismatches.map((m) => m.what))).to.deep.equal(new Set(['base']));
    expect((await verify(pair.base, at('d'), pair.base)).mismatches.map((m) => m.what)).to.include('tuned');
  });

  it('a file that ends early, anywhere, or that goes on: 65', async () => {
    for (const cut of [0, 7, 300, lossyBytes - 1, lossyBytes, lossyBytes + 1, bytes.length - 1]) {
      writeFileSync(at('bad'), bytes.subarray(0, cut));
      for (const quality of ['lossy', 'exact'] as const) {
        expect((await errorOf(() => restore(pair.base, at('bad'), at('x'), { quality }))).exitCode).to.equal(65);
      }
    }
    writeFileSync(at('bad'), Buffer.concat([bytes, Buffer.alloc(8)]));
    await expectCode('FILE_NOT_COVERED', () => restore(pair.base, at('bad'), at('x')));
  });

  it('one flipped byte, here and there in the whole file: an exact restore ends with 65', async () => {
    const dataStart = 8 + Number(bytes.readBigUInt64LE(0));
    for (let i = 0; i < bytes.length; i += i < dataStart ? 7 : 149) {
      const bad = write('bad', (copy) => void (copy[i]! ^= i % 2 === 0 ? 0x29 : 0x01));
      const error = await errorOf(() => (i < dataStart ? deltaInfo(bad) : restore(pair.base, bad, at('x'), { threads: 1, resume: false })));
      expect(error.exitCode, `byte ${i}: ${error.message}`).to.equal(65);
      expect(existsSync(at('x')), `byte ${i}`).to.equal(false);
    }
  });
});

describe('pipelines/progressive: interrupted', function () {
  this.timeout(180_000);

  it('a cancelled encode goes on with the remainders that it has', async () => {
    using dir = tempDir();
    const at = (name: string): string => join(dir.path, name);
    await progressive(TINY_PAIR, at('want'), 'int', { bits: 2 });
    const journal = join(`${at('d')}.pith-partial`, 'journal.ndjson');
    const done = (): string[] =>
      (existsSync(journal) ? readFileSync(journal, 'utf8') : '').split('\n').flatMap((l) => /"key":"(exact:[^"]+)"/.exec(l)?.[1] ?? []);
    const abort = new AbortController();
    const encode = (signal: AbortSignal) =>
      deltaEncode({
        ...RUN,
        ...WRITE,
        ...TINY_PAIR,
        signal,
        threads: 1,
        out: at('d'),
        method: 'int',
        params: { bits: 2 },
        selects: () => true,
        progressive: true,
      });
    await expectCode('CANCELLED', async () => {
      const run = encode(abort.signal);
      const watch = setInterval(() => done().length > 2 && abort.abort(), 2);
      try {
        for (let step = await run.next(); step.done !== true; step = await run.next());
      } finally {
        clearInterval(watch);
      }
    });
    const before = done();
    expect(before.length).to.be.within(3, 37);
    expect(existsSync(at('d'))).to.equal(false);
    let last: string[] = [];
    const again = encode(SIGNAL);
    for (let step = await again.next(); step.done !== true; step = await again.next()) last = existsSync(journal) ? done() : last;
    // none of them was coded twice
    expect(last.slice(0, before.length)).to.deep.equal(before);
    expect(new Set(last).size).to.equal(last.length);
    expect(hashTree(at('d'))).to.deep.equal(hashTree(at('want')));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['d', 'want']);
  });

  it('a restore at one quality does not go on from one at the other', async () => {
    using dir = tempDir();
    const at = (name: string): string => join(dir.path, name);
    await progressive(TINY_PAIR, at('d'), 'int', { bits: 2 });
    const abort = new AbortController();
    await expectCode('CANCELLED', async () => {
      const run = deltaRestore({ ...RUN, ...WRITE, signal: abort.signal, base: BASE, delta: at('d'), out: at('r'), quality: 'lossy' });
      for (let step = await run.next(); step.done !== true; step = await run.next()) if (step.value.type === 'progress') abort.abort();
    });
    await expectCode('JOURNAL_FOREIGN', () => restore(BASE, at('d'), at('r')));
    await restore(BASE, at('d'), at('r'), { resume: false });
    expect(hashTree(at('r'))).to.deep.equal(hashTree(TUNED));
  });
});
