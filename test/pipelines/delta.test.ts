/** The main job through the pipelines: what goes in comes out, file by file, whatever the checkpoint looks like. */
import { expect } from 'chai';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DType } from '../../core/dtype.js';
import { Rng } from '../../core/rng.js';
import { byteLength } from '../../core/shape.js';
import type { TensorView } from '../../core/tensor.js';
import { SafetensorsWriter } from '../../formats/safetensors/writer.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import type { RestoreReport, VerifyReport } from '../../pipelines/delta-reports.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { diffCheckpoints } from '../../pipelines/diff.js';
import type { Pipeline } from '../../core/events.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, TINY, writeSafetensors } from '../support/files.js';

const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const WRITE = { force: false, dryRun: false, resume: true };

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}
const encode = (base: string | undefined, tuned: string, out: string, more: Partial<EncodeOptions> = {}): Promise<EncodeReport> =>
  drain(deltaEncode({ ...RUN, ...WRITE, base, tuned, out, method: 'lossless', params: {}, selects: () => true, ...more }));
const restore = (base: string | undefined, delta: string, out: string, more: object = {}): Promise<RestoreReport> =>
  drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out, ...more }));
const verify = (base: string | undefined, delta: string, tuned?: string): Promise<VerifyReport> => drain(deltaVerify({ ...RUN, base, delta, tuned }));

const rng = new Rng(21);
function view(name: string, dtype: DType, shape: number[], from?: TensorView): TensorView {
  const bytes = new Uint8Array(byteLength(dtype, shape));
  for (let i = 0; i < bytes.length; i++) bytes[i] = from === undefined ? rng.uint32() : (from.bytes[i] ?? rng.uint32()) ^ (rng.integer(4) === 0 ? 1 : 0);
  return { name, dtype, shape, bytes };
}

describe('pipelines/delta', () => {
  it('the tiny pair: every file byte for byte, the same delta at 1, 2 and 4 threads', async () => {
    using dir = tempDir();
    const deltas: string[] = [];
    for (const threads of [1, 2, 4]) {
      const out = join(dir.path, `${threads}.safetensors`);
      const r = await encode(join(TINY, 'base'), join(TINY, 'tuned'), out, { threads });
      expect(r.ratio).to.be.lessThan(0.52);
      deltas.push(hashTree(out)['']!);
      expect(readdirSync(dir.path).filter((n) => n.includes('partial') || n.includes('tmp'))).to.deep.equal([]);
    }
    expect(new Set(deltas).size).to.equal(1);
    const back = join(dir.path, 'back');
    const r = await restore(join(TINY, 'base'), join(dir.path, '1.safetensors'), back);
    expect(r.exact).to.equal(true);
    expect(hashTree(back)).to.deep.equal(hashTree(join(TINY, 'tuned')));
    expect((await verify(join(TINY, 'base'), join(dir.path, '1.safetensors'), join(TINY, 'tuned'))).ok).to.equal(true);
  });

  it('without a base', async () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    expect((await encode(undefined, join(TINY, 'tuned'), d)).ratio).to.be.lessThan(0.7);
    await restore(undefined, d, join(dir.path, 'back'));
    expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(join(TINY, 'tuned')));
  });

  it('all dtypes, empty and 0-d tensors, added, removed, reshaped, grown and shrunk ones, odd headers, side files', async () => {
    using dir = tempDir();
    const [b, t] = [join(dir.path, 'base'), join(dir.path, 'tuned')];
    for (const p of [b, t]) mkdirSync(join(p, 'sub'), { recursive: true });
    const dtypes: DType[] = [
      'BOOL',
      'F4',
      'F6_E2M3',
      'U8',
      'I8',
      'F8_E5M2',
      'F8_E4M3',
      'F8_E8M0',
      'I16',
      'U16',
      'F16',
      'BF16',
      'I32',
      'U32',
      'F32',
      'C64',
      'F64',
      'I64',
      'U64',
    ];
    const base = dtypes.map((d) => view(`d.${d}`, d, [16, 9]));
    const tuned = base.map((v) => view(v.name, v.dtype, [...v.shape], v));
    base.push(view('scalar', 'F32', []), view('empty', 'BF16', [0, 4]), view('same', 'F32', [33]), view('removed', 'F32', [5]));
    base.push(view('embed', 'BF16', [100, 8]), view('shrunk', 'BF16', [40, 8]), view('reshaped', 'F32', [6, 2]), view('retyped', 'F32', [4]));
    const of = (name: string): TensorView => base.find((v) => v.name === name)!;
    tuned.push(view('scalar', 'F32', [], of('scalar')), of('empty'), of('same'), view('added', 'I64', [7]));
    tuned.push(
      view('embed', 'BF16', [117, 8], of('embed')),
      view('shrunk', 'BF16', [30, 8], of('shrunk')),
      view('reshaped', 'F32', [3, 4]),
      view('retyped', 'BF16', [4]),
    );
    writeSafetensors(join(b, 'model.safetensors'), base, { format: 'pt' });
    writeSafetensors(join(t, 'model.safetensors'), tuned, { format: 'pt', 'x y': '"\n' });
    writeFileSync(join(b, 'config.json'), '{}');
    writeFileSync(join(t, 'config.json'), '{}');
    writeFileSync(join(t, 'sub', 'own.bin'), Buffer.alloc(1000, 7));
    writeFileSync(join(t, 'empty.txt'), '');
    const d = join(dir.path, 'd.safetensors');
    const r = await encode(b, t, d);
    const methods = new Map(r.tensors.map((x) => [x.name, x.method]));
    expect(methods.get('same')).to.equal('identical');
    expect(r.sideFiles).to.deep.include({ name: 'config.json', coding: 'base' });
    expect((await deltaInfo(d)).removed).to.deep.equal(['removed']);
    await restore(b, d, join(dir.path, 'back'));
    expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(t));
    expect((await verify(b, d, t)).ok).to.equal(true);
  });

  it('a sharded pair, the shards split differently', async () => {
    using dir = tempDir();
    const [b, t] = [join(dir.path, 'base'), join(dir.path, 'tuned')];
    const base = Array.from({ length: 9 }, (_, i) => view(`t${i}`, 'BF16', [20 + i, 10]));
    const tuned = base.map((v) => view(v.name, v.dtype, [...v.shape], v));
    for (const [out, views, shardBytes] of [
      [b, base, 1000],
      [t, tuned, 1700],
    ] as const) {
      const w = new SafetensorsWriter(out, views, { shardBytes });
      for (const v of views) await w.write(v);
      await w.finalize();
    }
    await encode(b, t, join(dir.path, 'd.safetensors'));
    await restore(b, join(dir.path, 'd.safetensors'), join(dir.path, 'back'));
    expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(t));
  });

  it('a single file restores to a single file', async () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const tuned = join(TINY, 'tuned', 'model.safetensors');
    await encode(join(TINY, 'base', 'model.safetensors'), tuned, d);
    await restore(join(TINY, 'base'), d, join(dir.path, 'm.safetensors'));
    expect(hashTree(join(dir.path, 'm.safetensors'))).to.deep.equal(hashTree(tuned));
  });

  it('diff: changed share and norms', async () => {
    using dir = tempDir();
    const f = (a: number[]): Uint8Array => new Uint8Array(Float32Array.from(a).buffer);
    writeSafetensors(join(dir.path, 'a.safetensors'), [{ name: 'w', dtype: 'F32', shape: [4], bytes: f([3, 0, 4, 0]) }]);
    writeSafetensors(join(dir.path, 'b.safetensors'), [{ name: 'w', dtype: 'F32', shape: [4], bytes: f([3, 2, 4, 0]) }]);
    const r = await drain(diffCheckpoints({ ...RUN, base: join(dir.path, 'a.safetensors'), tuned: join(dir.path, 'b.safetensors'), selects: () => true }));
    expect(r.tensors[0]).to.deep.include({ status: 'changed', changedShare: 0.25, relativeNorm: 2 / 5, maxAbs: 2 });
  });

  describe('refuses', () => {
    const base = join(TINY, 'base');
    const tuned = join(TINY, 'tuned');
    it('a wrong base, by content and by shape; nothing is written', async () => {
      using dir = tempDir();
      const d = join(dir.path, 'd.safetensors');
      await encode(base, tuned, d);
      const error = await expectCode('WRONG_BASE', () => restore(tuned, d, join(dir.path, 'back')));
      expect(error.exitCode).to.equal(65);
      expect(error.message).to.match(/tensor "/);
      const report = await verify(tuned, d);
      expect(report.ok).to.equal(false);
      expect(report.mismatches[0]!.tensor).to.be.a('string');
      writeSafetensors(join(dir.path, 'x.safetensors'), [view('model.embed_tokens.weight', 'BF16', [2, 2])]);
      await expectCode('SHAPE_MISMATCH', () => restore(join(dir.path, 'x.safetensors'), d, join(dir.path, 'back')));
      expect(readdirSync(dir.path)).to.not.include('back');
    });

    it('an existing output, a folder that is not there, an unknown method, a pair with nothing in common', async () => {
      using dir = tempDir();
      const d = join(dir.path, 'd.safetensors');
      writeFileSync(d, 'mine');
      await expectCode('OUTPUT_EXISTS', () => encode(base, tuned, d));
      expect(readFileSync(d, 'utf8')).to.equal('mine');
      await expectCode('NOT_FOUND', () => encode(base, tuned, join(dir.path, 'no', 'd.safetensors')));
      await expectCode('UNKNOWN_METHOD', () => encode(base, tuned, join(dir.path, 'e.safetensors'), { method: 'losless' }));
      await expectCode('BAD_PARAMS', () => encode(base, tuned, join(dir.path, 'e.safetensors'), { params: { rank: 3 } }));
      writeSafetensors(join(dir.path, 'x.safetensors'), [view('w', 'BF16', [2, 2])]);
      await expectCode('SHAPE_MISMATCH', () => encode(base, join(dir.path, 'x.safetensors'), join(dir.path, 'e.safetensors')));
      expect(readdirSync(dir.path).sort()).to.deep.equal(['d.safetensors', 'x.safetensors']);
    });

    it('what a run killed right after its last rename left is cleared away, an unfinished one of another run is kept', async () => {
      using dir = tempDir();
      const d = join(dir.path, 'd.safetensors');
      await encode(base, tuned, d);
      const partial = `${d}.pith-partial`;
      mkdirSync(partial);
      writeFileSync(join(partial, 'journal.ndjson'), '{"plan":"any"}\n');
      await expectCode('OUTPUT_EXISTS', () => encode(base, tuned, d));
      expect(readdirSync(dir.path).length).to.equal(2);
      writeFileSync(join(partial, 'journal.ndjson'), '{"plan":"any"}\n{"publishing":true}\n');
      await expectCode('OUTPUT_EXISTS', () => encode(base, tuned, d));
      expect(readdirSync(dir.path)).to.deep.equal(['d.safetensors']);
    });

    it('verify meets damage in headers and side files too', async () => {
      using dir = tempDir();
      const d = join(dir.path, 'd.safetensors');
      const folder = join(dir.path, 'tuned');
      cpSync(tuned, folder, { recursive: true });
      writeFileSync(join(folder, 'note.txt'), 'only in tuned '.repeat(40));
      await encode(base, folder, d);
      const good = readFileSync(d);
      const headerBytes = Number(good.readBigUInt64LE(0));
      const header = JSON.parse(good.toString('utf8', 8, 8 + headerBytes)) as Record<string, { data_offsets: [number, number] }>;
      for (const key of ['__pith__::headers', '__pith__::sideFiles']) {
        const bad = Buffer.from(good);
        bad[8 + headerBytes + header[key]!.data_offsets[0] + 5]! ^= 1;
        writeFileSync(d, bad);
        await expectCode('DELTA_MALFORMED', () => verify(base, d));
      }
    });

    it('another plan in the partial folder, unless told to start anew', async () => {
      using dir = tempDir();
      const d = join(dir.path, 'd.safetensors');
      mkdirSync(`${d}.pith-partial`);
      writeFileSync(join(`${d}.pith-partial`, 'journal.ndjson'), '{"plan":"other"}\n');
      await expectCode('JOURNAL_FOREIGN', () => encode(base, tuned, d));
      await encode(base, tuned, d, { resume: false });
    });

    it('one flipped byte, anywhere in the file', async function () {
      this.timeout(600_000);
      using dir = tempDir();
      const [b, t] = [join(dir.path, 'b.safetensors'), join(dir.path, 't.safetensors')];
      const w = view('w', 'BF16', [30, 10]);
      writeSafetensors(b, [w, view('n', 'F32', [9])]);
      writeSafetensors(t, [view('w', 'BF16', [30, 10], w), view('n', 'F32', [9])]);
      const d = join(dir.path, 'd.safetensors');
      await encode(b, t, d);
      const good = readFileSync(d);
      const bad = join(dir.path, 'bad.safetensors');
      const headerBytes = 8 + Number(good.readBigUInt64LE(0));
      for (let i = 0; i < good.length; i++) {
        const bytes = Buffer.from(good);
        bytes[i]! ^= i % 2 === 0 ? 0x29 : 0x01;
        writeFileSync(bad, bytes);
        // most of the header without the threads of a restore: it opens the file in the same way
        const inHeader = i < headerBytes && i % 16 !== 0;
        const error = await errorOf(() => (inHeader ? deltaInfo(bad) : restore(b, bad, join(dir.path, 'back'))));
        expect(error.exitCode, `byte ${i}: ${error.message}`).to.equal(65);
        expect(readdirSync(dir.path), `byte ${i}`).to.not.include('back');
        rmSync(join(dir.path, 'back.pith-partial'), { recursive: true, force: true });
      }
      for (const cut of [0, 7, 100, good.length >> 1, good.length - 9, good.length - 1]) {
        writeFileSync(bad, good.subarray(0, cut));
        expect((await errorOf(() => restore(b, bad, join(dir.path, 'back')))).exitCode).to.equal(65);
      }
    });

    it('a side file of the base that changed', async () => {
      using dir = tempDir();
      const own = join(dir.path, 'base');
      cpSync(base, own, { recursive: true });
      const d = join(dir.path, 'd.safetensors');
      await encode(own, tuned, d);
      writeFileSync(join(own, 'tokenizer.json'), '{}');
      await expectCode('WRONG_BASE', () => restore(own, d, join(dir.path, 'back')));
    });
  });

  it('a cancelled run leaves nothing under the final name and the next one goes on', async () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const abort = new AbortController();
    const run = deltaEncode({
      ...RUN,
      ...WRITE,
      signal: abort.signal,
      base: join(TINY, 'base'),
      tuned: join(TINY, 'tuned'),
      out: d,
      method: 'lossless',
      params: {},
      selects: () => true,
    });
    await expectCode('CANCELLED', async () => {
      for (let step = await run.next(); step.done !== true; step = await run.next()) if (step.value.type === 'tensor.done') abort.abort();
    });
    expect(readdirSync(dir.path)).to.deep.equal(['d.safetensors.pith-partial']);
    await encode(join(TINY, 'base'), join(TINY, 'tuned'), d);
    await restore(join(TINY, 'base'), d, join(dir.path, 'back'));
    expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(join(TINY, 'tuned')));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['back', 'd.safetensors']);
  });
});
