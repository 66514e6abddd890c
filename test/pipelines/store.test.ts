/** Stores: what goes in comes out, once and for all, whatever happens to the folder. */
import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DType } from '../../core/dtype.js';
import type { Pipeline } from '../../core/events.js';
import { Rng } from '../../core/rng.js';
import { byteLength } from '../../core/shape.js';
import type { TensorView } from '../../core/tensor.js';
import { StoreFolder } from '../../formats/store/folder.js';
import { ObjectFile } from '../../formats/store/object.js';
import { MAX_DEPTH, type StoredModel } from '../../formats/store/schema.js';
import { storeAdd, type StoreAddOptions, type StoreAddReport } from '../../pipelines/store-add.js';
import { storeGet, type StoreGetReport } from '../../pipelines/store-get.js';
import { storeGc, storeInit, storeList, storeVerify, type StoreGcReport, type StoreVerifyReport } from '../../pipelines/store-list.js';
import { livePins, locked, Work } from '../../pipelines/store-lock.js';
import { expectCode } from '../support/expect-error.js';
import { BIN, hashTree, tempDir, TINY, writeSafetensors } from '../support/files.js';
import { writeVariants } from '../support/variants.js';

const SIGNAL = new AbortController().signal;
const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: SIGNAL };
const HOUR_MS = 3_600_000;

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}
const add = (store: string, checkpoint: string, more: Partial<StoreAddOptions> = {}): Promise<StoreAddReport> =>
  drain(storeAdd({ ...RUN, store, checkpoint, name: undefined, force: false, dryRun: false, ...more }));
const get = (store: string, model: string, out: string): Promise<StoreGetReport> =>
  drain(storeGet({ ...RUN, store, model, out, force: true, dryRun: false, resume: true }));
const verify = (store: string): Promise<StoreVerifyReport> => drain(storeVerify(store, RUN));
const gc = (store: string, olderThanMs = HOUR_MS, dryRun = false): Promise<StoreGcReport> => storeGc(store, { olderThanMs, dryRun, signal: SIGNAL });

const base = join(TINY, 'base');
const tuned = join(TINY, 'tuned');

function madeStore(dir: string): string {
  const store = join(dir, 'store');
  storeInit(store);
  return store;
}

const rng = new Rng(31);
function view(name: string, dtype: DType, shape: number[], from?: TensorView): TensorView {
  const bytes = new Uint8Array(byteLength(dtype, shape));
  for (let i = 0; i < bytes.length; i++) bytes[i] = from === undefined ? rng.uint32() : (from.bytes[i] ?? rng.uint32()) ^ (rng.integer(4) === 0 ? 1 : 0);
  return { name, dtype, shape, bytes };
}

const objectPath = (store: string, hash: string): string => StoreFolder.open(store).object(hash);

/** Flips a byte in the stored data of an object. */
function damage(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length - 3]! ^= 0x10;
  writeFileSync(path, bytes);
}

describe('pipelines/store', function () {
  this.timeout(300_000);

  it('20 variants of the tiny base in at most 25 % of their bytes, each file of each one byte for byte', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    const paths = await writeVariants(join(dir.path, 'variants'));
    expect(paths.size).to.equal(20);
    const reports = new Map<string, StoreAddReport>();
    for (const [name, path] of paths) reports.set(name, await add(store, path));
    const list = storeList(store);
    expect(list.ratio).to.be.lessThan(0.25);
    expect(list.rawBytes).to.equal([...paths.values()].reduce((sum, p) => sum + folderBytes(p), 0));
    expect(list.bytes).to.equal([...reports.values()].reduce((sum, r) => sum + r.bytes, 0));
    for (const name of ['base-copy', 'tuned-copy', 'top-layer', 'base-sharded']) {
      expect(
        reports.get(name)!.tensors.every((t) => t.how === 'reused' && t.bytes === 0),
        name,
      ).to.equal(true);
    }
    // the grown embedding costs its new rows, not itself
    expect(reports.get('tuned-grown')!.bytes).to.be.lessThan(50_000);
    for (const [name, path] of paths) {
      await get(store, name, join(dir.path, 'back'));
      expect(hashTree(join(dir.path, 'back')), name).to.deep.equal(hashTree(path));
    }
    expect((await verify(store)).damaged).to.deep.equal([]);
    expect((await gc(store, 0)).removed.objects).to.equal(0);
  });

  const folderBytes = (path: string): number => Object.keys(hashTree(path)).reduce((sum, f) => sum + readFileSync(join(path, f)).length, 0);

  it('all dtypes, empty and 0-d tensors, tied ones, grown and shrunk ones, side files in folders, empty files', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    const dtypes: DType[] = ['BOOL', 'F4', 'F6_E2M3', 'U8', 'I8', 'F8_E5M2', 'F8_E4M3', 'F8_E8M0', 'I16', 'U16', 'F16', 'BF16', 'I32', 'U32', 'F32', 'C64', 'F64', 'I64', 'U64']; // prettier-ignore
    const first = dtypes.map((d) => view(`d.${d}`, d, [160, 9]));
    const second = first.map((v) => view(v.name, v.dtype, [...v.shape], v));
    first.push(view('scalar', 'F32', []), view('empty', 'BF16', [0, 4]), view('__proto__', 'F32', [33]), view('7', 'F32', [5]));
    first.push(view('embed', 'BF16', [100, 8]), view('shrunk', 'BF16', [40, 8]));
    const of = (name: string): TensorView => first.find((v) => v.name === name)!;
    second.push({ ...of('embed'), name: 'tied' }, { ...of('embed'), name: 'tied again' }, of('scalar'), of('empty'), of('__proto__'));
    second.push(view('embed', 'BF16', [117, 8], of('embed')), view('shrunk', 'BF16', [30, 8], of('shrunk')));
    for (const [name, views] of [
      ['first', first],
      ['second', second],
    ] as const) {
      mkdirSync(join(dir.path, name, 'sub'), { recursive: true });
      writeSafetensors(join(dir.path, name, 'model.safetensors'), views, { format: 'pt', 'x y': '"\n' });
      writeFileSync(join(dir.path, name, 'sub', 'own.bin'), Buffer.alloc(1000, name.length));
      writeFileSync(join(dir.path, name, 'empty.txt'), '');
    }
    await add(store, join(dir.path, 'first'));
    const r = await add(store, join(dir.path, 'second'));
    const tied = r.tensors.filter((t) => t.name.startsWith('tied'));
    expect(tied.map((t) => [t.how, t.bytes])).to.deep.equal([
      ['reused', 0],
      ['reused', 0],
    ]);
    expect(r.tensors.find((t) => t.name === 'embed')!.how).to.equal('delta');
    for (const name of ['first', 'second']) {
      await get(store, name, join(dir.path, 'back'));
      expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(join(dir.path, name)));
    }
    expect((await verify(store)).ok).to.equal(true);
  });

  it('a single file comes back as a file', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    const file = join(base, 'model.safetensors');
    expect((await add(store, file)).model).to.equal('model');
    await get(store, 'model', join(dir.path, 'm.safetensors'));
    expect(hashTree(join(dir.path, 'm.safetensors'))).to.deep.equal(hashTree(file));
  });

  it('the same objects at 1 and at 4 threads; a dry run writes nothing and is right within a tenth', async () => {
    using dir = tempDir();
    const trees: unknown[] = [];
    for (const threads of [1, 4]) {
      const store = join(dir.path, `store-${threads}`);
      storeInit(store);
      await add(store, base, { threads });
      const before = hashTree(store);
      const dry = await add(store, tuned, { dryRun: true });
      expect(hashTree(store)).to.deep.equal(before);
      const r = await add(store, tuned, { threads });
      expect(Math.abs(dry.bytes - r.bytes) / r.bytes).to.be.lessThan(0.1);
      trees.push(hashTree(store));
    }
    expect(trees[0]).to.deep.equal(trees[1]);
  });

  it('a chain never grows beyond its bound, and every link comes back', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    let w = view('w', 'BF16', [64, 64]);
    const files: string[] = [];
    for (let i = 0; i < 12; i++) {
      const bytes = w.bytes.slice();
      for (let k = 0; k < 40; k++) bytes[2 * rng.integer(4096)]! ^= 1;
      w = { ...w, bytes };
      const file = join(dir.path, `step${String(i).padStart(2, '0')}.safetensors`);
      writeSafetensors(file, [w]);
      files.push(file);
      await add(store, file);
    }
    const depth = Math.max(...storeList(store).models.map((m) => m.depth));
    expect(depth).to.be.greaterThan(2).and.at.most(MAX_DEPTH);
    for (const [i, file] of files.entries()) {
      await get(store, `step${String(i).padStart(2, '0')}`, join(dir.path, 'back.safetensors'));
      expect(hashTree(join(dir.path, 'back.safetensors'))).to.deep.equal(hashTree(file));
    }
  });

  it('a tensor that is close to nothing is stored alone', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    for (const name of ['a', 'b']) {
      writeSafetensors(join(dir.path, `${name}.safetensors`), [view('w', 'BF16', [64, 64])]);
      const r = await add(store, join(dir.path, `${name}.safetensors`));
      expect(r.tensors[0]!.how).to.equal('alone');
    }
  });

  describe('a damaged object', () => {
    it('is named, with exit code 65; nothing else is lost; gc touches nothing; adding the model again mends it', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      const lora = join(TINY, 'lora');
      const r = await add(store, base);
      await add(store, tuned);
      await add(store, lora);
      const { object } = r.tensors.find((t) => t.name.includes('layers.2.mlp.up_proj'))!;
      const path = objectPath(store, object);
      damage(path);
      const error = await expectCode('OBJECT_DAMAGED', () => get(store, 'base', join(dir.path, 'back')));
      expect(error.exitCode).to.equal(65);
      expect(error.message).to.contain(object);
      // the tuned model's tensor is coded against it
      expect((await expectCode('OBJECT_DAMAGED', () => get(store, 'tuned', join(dir.path, 'other')))).message).to.contain(object);
      expect([existsSync(join(dir.path, 'back')), existsSync(join(dir.path, 'other'))]).to.deep.equal([false, false]);
      rmSync(join(dir.path, 'back.pith-partial'), { recursive: true });
      await get(store, 'lora', join(dir.path, 'back'));
      expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(lora));
      const v = await verify(store);
      expect(v.damaged.map((d) => [d.object, d.models])).to.deep.equal([[object, ['base', 'tuned']]]);
      const again = await add(store, base, { name: 'mended' });
      expect(again.tensors.filter((t) => t.how !== 'reused').map((t) => t.object)).to.deep.equal([object]);
      expect((await verify(store)).ok).to.equal(true);
      for (const [name, path] of [
        ['base', base],
        ['tuned', tuned],
      ] as const) {
        await get(store, name, join(dir.path, 'back'));
        expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(path));
      }
    });

    it('gone, or with a broken header: gc refuses, an add of it mends it', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      const r = await add(store, base);
      await add(store, tuned);
      const object = r.tensors.find((t) => t.name.includes('layers.1.mlp.down_proj'))!.object;
      const path = objectPath(store, object);
      for (const [code, hurt] of [
        ['OBJECT_MISSING', () => unlinkSync(path)],
        ['OBJECT_DAMAGED', () => writeFileSync(path, readFileSync(path).subarray(0, 50))],
      ] as const) {
        hurt();
        await expectCode(code, () => gc(store, 0));
        expect((await verify(store)).damaged.map((d) => d.object)).to.deep.equal([object]);
        await add(store, base, { force: true });
        expect((await verify(store)).damaged).to.deep.equal([]);
      }
      await get(store, 'tuned', join(dir.path, 'back'));
      expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(tuned));
    });

    it('one flipped byte, anywhere in an object or a record', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      const a = view('w', 'BF16', [30, 10]);
      writeSafetensors(join(dir.path, 'a.safetensors'), [a]);
      writeSafetensors(join(dir.path, 'b.safetensors'), [view('w', 'BF16', [30, 10], a)]);
      await add(store, join(dir.path, 'a.safetensors'));
      const r = await add(store, join(dir.path, 'b.safetensors'));
      expect(r.tensors[0]!.how).to.equal('delta');
      for (const file of [objectPath(store, r.tensors[0]!.object), join(store, 'models', 'b.json')]) {
        const good = readFileSync(file);
        for (let n = 0; n < 24; n++) {
          const i = rng.integer(good.length);
          const bytes = Buffer.from(good);
          bytes[i]! ^= i % 2 === 0 ? 0x29 : 0x01;
          writeFileSync(file, bytes);
          let code: number | undefined;
          try {
            await get(store, 'b', join(dir.path, 'back.safetensors'));
          } catch (error) {
            code = (error as { exitCode?: number }).exitCode;
          }
          expect(code, `${file} byte ${i}`).to.equal(65);
          expect(existsSync(join(dir.path, 'back.safetensors'))).to.equal(false);
          rmSync(join(dir.path, 'back.safetensors.pith-partial'), { recursive: true, force: true });
        }
        writeFileSync(file, good);
      }
      expect((await verify(store)).ok).to.equal(true);
    });
  });

  it('a record that lies, with its own hash made right: objects for something else, a file named twice', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    const source = join(dir.path, 'm');
    mkdirSync(source);
    writeSafetensors(join(source, 'model.safetensors'), [view('small', 'BF16', [3, 10]), view('large', 'BF16', [30, 10])]);
    writeFileSync(join(source, 'config.json'), '{}');
    await add(store, source);
    const file = join(store, 'models', 'm.json');
    const good = readFileSync(file, 'utf8');
    const model = JSON.parse(good) as StoredModel;
    const [{ tensors }] = model.files as unknown as [StoredModel['files'][number]];
    const swapped = [
      { ...tensors[0]!, object: tensors[1]!.object },
      { ...tensors[1]!, object: tensors[0]!.object },
    ];
    for (const [lie, says] of [
      [{ files: [{ ...model.files[0], tensors: swapped }] }, 'BF16 [30,10]'],
      [{ files: [{ ...model.files[0], header: tensors[0]!.object }] }, 'U8 ['],
      [{ sideFiles: [{ ...model.sideFiles[0], object: tensors[0]!.object }] }, 'two types'],
      [{ sideFiles: [{ ...model.sideFiles[0], name: 'model.safetensors' }] }, 'listed twice'],
    ] as const) {
      const body = JSON.stringify({ ...model, ...lie, sha256: undefined }).slice(0, -1);
      writeFileSync(file, `${body},"sha256":"${createHash('sha256').update(body).digest('hex')}"}\n`);
      const error = await expectCode('STORE_MALFORMED', () => get(store, 'm', join(dir.path, 'back')));
      expect([error.exitCode, error.message.includes(says)], error.message).to.deep.equal([65, true]);
      expect(existsSync(join(dir.path, 'back'))).to.equal(false);
      rmSync(join(dir.path, 'back.pith-partial'), { recursive: true, force: true });
      expect((await verify(store)).damaged.map((d) => [d.file, d.models])).to.deep.equal([[file, ['m']]]);
    }
    writeFileSync(file, good);
    await get(store, 'm', join(dir.path, 'back'));
    expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(source));
  });

  describe('gc', () => {
    const old = new Date(Date.now() - 2 * HOUR_MS);
    const age = (store: string): void => {
      for (const f of readdirSync(join(store, 'objects'), { recursive: true, withFileTypes: true }))
        if (f.isFile()) utimesSync(join(f.parentPath, f.name), old, old);
    };

    it('removes what no model needs once it is an hour old, and leaves what a younger object is coded against', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      await add(store, base);
      const before = hashTree(join(store, 'objects'));
      age(store);
      await add(store, tuned);
      rmSync(join(store, 'models', 'tuned.json'));
      rmSync(join(store, 'models', 'base.json'));
      // old, and no young object's base: the header and the side files, which deflate alone
      expect((await gc(store)).removed.objects).to.equal(5);
      const dry = await gc(store, 0, true);
      expect(dry.removed.objects).to.equal(Object.keys(hashTree(join(store, 'objects'))).length);
      await add(store, base);
      expect(hashTree(join(store, 'objects'))).to.include(before);
      age(store);
      const r = await gc(store);
      expect(r.removed.objects).to.be.greaterThan(30);
      expect(hashTree(join(store, 'objects'))).to.deep.equal(before);
      expect((await verify(store)).ok).to.equal(true);
    });

    it('leaves what a running add relies on, and clears away what a dead one left', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      const r = await add(store, base);
      rmSync(join(store, 'models', 'base.json'));
      const folder = StoreFolder.open(store);
      const work = Work.create(folder);
      const pinned = r.tensors[0]!.object;
      work.pin([pinned]);
      expect([...livePins(folder, { clean: true }).pins]).to.deep.equal([pinned]);
      const dead = join(store, 'tmp', 'add-dead');
      cpSync(work.folder, dead, { recursive: true });
      writeFileSync(join(dead, 'pins.json'), JSON.stringify({ pid: 999_999_999, started: '1', objects: [r.tensors[1]!.object] }));
      const done = await gc(store, 0);
      expect(done.kept.objects).to.equal(1);
      expect(done.temporary).to.equal(1);
      expect(Object.keys(hashTree(join(store, 'objects')))).to.deep.equal([join(pinned.slice(0, 2), `${pinned}.safetensors`)]);
      expect(existsSync(dead)).to.equal(false);
      work[Symbol.dispose]();
      expect((await gc(store, 0)).removed.objects).to.equal(1);
    });
  });

  describe('at once', () => {
    it('two processes add overlapping models, a third sweeps: all is there', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      const paths = await writeVariants(join(dir.path, 'variants'), ['base', 'base-copy', 'tuned', 'tuned-copy', 'light-1', 'light-2']);
      const run = (args: readonly string[]): Promise<number | null> =>
        new Promise((resolve) => {
          const child = spawn(process.execPath, [BIN, 'store', ...args, '--quiet'], {
            stdio: 'ignore',
            env: { ...process.env, NODE_V8_COVERAGE: '' },
          });
          child.on('close', resolve);
        });
      const several = async (names: readonly string[]): Promise<(number | null)[]> => {
        const codes = [];
        for (const name of names) codes.push(await run(['add', store, paths.get(name)!]));
        return codes;
      };
      const sweeps = async (): Promise<(number | null)[]> => {
        const codes = [];
        for (let i = 0; i < 4; i++) codes.push(await run(['gc', store, '--older-than=0s']));
        return codes;
      };
      const codes = await Promise.all([several(['base', 'tuned', 'light-1']), several(['base-copy', 'tuned-copy', 'light-2']), sweeps()]);
      expect(
        codes.flat().every((c) => c === 0),
        JSON.stringify(codes),
      ).to.equal(true);
      expect((await verify(store)).damaged).to.deep.equal([]);
      for (const [name, path] of paths) {
        await get(store, name, join(dir.path, 'back'));
        expect(hashTree(join(dir.path, 'back')), name).to.deep.equal(hashTree(path));
      }
      expect(readdirSync(join(store, 'tmp'))).to.deep.equal([]);
    });

    it('the same name twice: one wins, the other is told', async () => {
      using dir = tempDir();
      const store = madeStore(dir.path);
      const both = await Promise.allSettled([add(store, base, { name: 'm' }), add(store, tuned, { name: 'm' })]);
      const failed = both.filter((b) => b.status === 'rejected');
      expect(failed.length).to.equal(1);
      expect((failed[0]!.reason as { code: string }).code).to.equal('MODEL_EXISTS');
      expect((await verify(store)).ok).to.equal(true);
    });

    it('the lock of a dead process is taken over, a living one is waited for', async () => {
      using dir = tempDir();
      const store = StoreFolder.open(madeStore(dir.path));
      writeFileSync(store.lock, JSON.stringify({ pid: 999_999_999, started: '1' }));
      expect(await locked(store, SIGNAL, () => 1)).to.equal(1);
      const order: string[] = [];
      await Promise.all([
        locked(store, SIGNAL, async () => {
          await new Promise((go) => setTimeout(go, 100));
          order.push('first');
        }),
        locked(store, SIGNAL, () => order.push('second')),
      ]);
      expect(order).to.deep.equal(['first', 'second']);
      const abort = new AbortController();
      await locked(store, SIGNAL, async () => {
        abort.abort();
        await expectCode('CANCELLED', () => locked(store, abort.signal, () => 1));
      });
      expect(existsSync(store.lock)).to.equal(false);
    });
  });

  it('refuses: no store, a full folder, a taken name, a name that is no file name, an unknown model, a later version', async () => {
    using dir = tempDir();
    await expectCode('NOT_FOUND', () => add(join(dir.path, 'no'), base));
    await expectCode('NOT_A_STORE', () => add(dir.path, base));
    const store = madeStore(dir.path);
    await expectCode('OUTPUT_EXISTS', () => storeInit(store));
    await add(store, join(TINY, 'lora'));
    await expectCode('MODEL_EXISTS', () => add(store, join(TINY, 'lora')));
    await expectCode('USAGE', () => add(store, base, { name: '../x' }));
    const error = await expectCode('MODEL_UNKNOWN', () => get(store, 'lorra', join(dir.path, 'back')));
    expect(error.exitCode).to.equal(66);
    expect(error.message).to.contain('did you mean "lora"?');
    writeFileSync(join(store, 'store.json'), '{"format":"pith-store","version":2,"generator":"x"}');
    await expectCode('STORE_VERSION', () => add(store, base));
  });

  it('an object says of itself what it is', async () => {
    using dir = tempDir();
    const store = madeStore(dir.path);
    await add(store, base);
    const r = await add(store, tuned);
    const t = r.tensors.find((x) => x.how === 'delta')!;
    using file = ObjectFile.open(objectPath(store, t.object));
    expect(file.head.base).to.deep.equal({ object: t.base });
    expect(file.head.depth).to.equal(1);
    expect(Object.keys(file.head.parts).sort()).to.deep.equal(['residual', 'sketch']);
  });
});
