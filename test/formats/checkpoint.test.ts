/** Folders, shards, indexes, the Hub's cache; the writer; large files. */
import { expect } from 'chai';
import fc from 'fast-check';
import { closeSync, ftruncateSync, mkdirSync, openSync, readdirSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { DTYPES, type DType } from '../../core/dtype.js';
import { byteLength } from '../../core/shape.js';
import type { TensorView } from '../../core/tensor.js';
import { contentHash } from '../../formats/hash.js';
import { listSideFiles, openCheckpoint } from '../../formats/open-checkpoint.js';
import { SafetensorsFile } from '../../formats/safetensors/file.js';
import { SafetensorsWriter } from '../../formats/safetensors/writer.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir, writeSafetensors } from '../support/files.js';

const tensor = (name: string, n = 4): TensorView => ({ name, dtype: 'BF16', shape: [n], bytes: Uint8Array.from({ length: 2 * n }, (_, i) => i) });

describe('formats/open-checkpoint', () => {
  it('a file, a folder with model.safetensors, several files without an index', async () => {
    using dir = tempDir();
    writeSafetensors(join(dir.path, 'x-1.safetensors'), [tensor('a')]);
    writeSafetensors(join(dir.path, 'x-2.safetensors'), [tensor('b')]);
    await using both = await openCheckpoint(dir.path);
    expect([...both.infos.keys()]).to.deep.equal(['a', 'b']);
    await using single = await openCheckpoint(join(dir.path, 'x-2.safetensors'));
    expect((await single.read('b')).bytes).to.deep.equal(tensor('b').bytes);
    writeSafetensors(join(dir.path, 'model.safetensors'), [tensor('c')]);
    await using model = await openCheckpoint(dir.path);
    expect([...model.infos.keys()]).to.deep.equal(['c']);
  });

  const index = (map: Record<string, unknown>, metadata: object = { total_size: 16 }): string => JSON.stringify({ metadata, weight_map: map });
  const bad: [string, string, Parameters<typeof expectCode>[0]][] = [
    ['leaves the folder', index({ a: '../evil.safetensors' }), 'INDEX_ESCAPES'],
    ['absolute', index({ a: '/evil.safetensors' }), 'INDEX_ESCAPES'],
    ['backslash', index({ a: '..\\evil.safetensors' }), 'INDEX_ESCAPES'],
    ['other ending', index({ a: 'evil.bin' }), 'INDEX_ESCAPES'],
    ['missing shard', index({ a: 's3.safetensors' }), 'SHARD_MISSING'],
    ['missing tensor', index({ z: 's1.safetensors' }), 'INDEX_MISSING_TENSOR'],
    ['not JSON', '{', 'INDEX_MALFORMED'],
    ['no weight_map', '{}', 'INDEX_MALFORMED'],
    ['number as file', index({ a: 1 }), 'INDEX_MALFORMED'],
    ['tensor in two shards', index({ a: 's1.safetensors', b: 's2.safetensors' }), 'DUPLICATE_TENSOR'],
  ];
  for (const [what, text, code] of bad) {
    it(`index: ${what} -> ${code}`, async () => {
      using dir = tempDir();
      writeSafetensors(join(dir.path, 's1.safetensors'), [tensor('a')]);
      writeSafetensors(join(dir.path, 's2.safetensors'), [tensor('a'), tensor('b')]);
      writeFileSync(join(dir.path, 'model.safetensors.index.json'), text);
      await expectCode(code, () => openCheckpoint(dir.path));
    });
  }

  it('the Hub cache: refs/main names the snapshot, files are links to blobs', async () => {
    using dir = tempDir();
    const repo = join(dir.path, 'models--org--name');
    mkdirSync(join(repo, 'blobs'), { recursive: true });
    mkdirSync(join(repo, 'refs'));
    mkdirSync(join(repo, 'snapshots', 'abc'), { recursive: true });
    mkdirSync(join(repo, 'snapshots', 'old'));
    writeSafetensors(join(repo, 'blobs', '123'), [tensor('a')]);
    symlinkSync('../../blobs/123', join(repo, 'snapshots', 'abc', 'model.safetensors'));
    await expectCode('NOT_A_CHECKPOINT', () => openCheckpoint(repo));
    writeFileSync(join(repo, 'refs', 'main'), 'abc');
    for (const path of [repo, join(repo, 'snapshots', 'abc')]) {
      await using c = await openCheckpoint(path);
      expect([...c.infos.keys()]).to.deep.equal(['a']);
    }
  });

  it('nothing there, nothing in it', async () => {
    using dir = tempDir();
    expect((await expectCode('NOT_FOUND', () => openCheckpoint(join(dir.path, 'no')))).exitCode).to.equal(66);
    await expectCode('NOT_A_CHECKPOINT', () => openCheckpoint(dir.path));
  });

  it('side files: not the tensors, not caches, not partial results', async () => {
    using dir = tempDir();
    writeSafetensors(join(dir.path, 'model.safetensors'), [tensor('a')]);
    mkdirSync(join(dir.path, 'sub'));
    mkdirSync(join(dir.path, '.cache'));
    mkdirSync(join(dir.path, 'x.pith-partial'));
    for (const f of ['config.json', 'sub/t.json', '.cache/no', 'x.pith-partial/no']) writeFileSync(join(dir.path, f), f);
    await using c = await openCheckpoint(dir.path);
    expect(listSideFiles(dir.path, c.files).map((f) => f.name)).to.deep.equal(['config.json', 'sub/t.json']);
  });

  it('a file above 4 GiB, with holes', () => {
    using dir = tempDir();
    const path = join(dir.path, 'big.safetensors');
    const rows = 2 ** 20 + 2 ** 18;
    const json = Buffer.from(JSON.stringify({ w: { dtype: 'F32', shape: [rows, 1024], data_offsets: [0, rows * 4096] } }));
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(json.length));
    const fd = openSync(path, 'w');
    writeSync(fd, Buffer.concat([head, json]), 0, 8 + json.length, 0);
    ftruncateSync(fd, 8 + json.length + rows * 4096);
    writeSync(fd, Buffer.from([1, 2, 3, 4]), 0, 4, 8 + json.length + (rows - 1) * 4096);
    closeSync(fd);
    using file = SafetensorsFile.open(path);
    expect(file.bytes).to.be.greaterThan(2 ** 32);
    expect([...file.read('w', [rows - 1, rows]).bytes.subarray(0, 5)]).to.deep.equal([1, 2, 3, 4, 0]);
  });
});

describe('formats/safetensors/writer', () => {
  it('shards with an index, and nothing left behind', async () => {
    using dir = tempDir();
    const views = Array.from({ length: 16 }, (_, i) => tensor(`t${i}`, 8));
    const writer = new SafetensorsWriter(join(dir.path, 'out'), views, { shardBytes: 16 });
    for (const v of [...views].reverse()) await writer.write(v);
    expect(readdirSync(join(dir.path, 'out')).every((n) => n.includes('.pith-tmp-'))).to.equal(true);
    const { files } = await writer.finalize();
    expect(files).to.have.length(17);
    await using back = await openCheckpoint(join(dir.path, 'out'));
    for (const v of views) expect((await back.read(v.name)).bytes).to.deep.equal(v.bytes);
    expect(readdirSync(join(dir.path, 'out')).filter((n) => n.includes('tmp'))).to.deep.equal([]);
  });

  it('wrong byte count, unwritten tensor, abort, existing output', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'm.safetensors');
    const writer = new SafetensorsWriter(out, [tensor('a')]);
    await expectCode('WRITER_BYTES', () => writer.write({ ...tensor('a'), bytes: new Uint8Array(3) }));
    await expectCode('INTERNAL', () => writer.finalize());
    await writer.abort();
    expect(readdirSync(dir.path)).to.deep.equal([]);
    writeFileSync(out, 'mine');
    await expectCode('OUTPUT_EXISTS', () => new SafetensorsWriter(out, [tensor('a')]));
    expect(() => new SafetensorsWriter(join(dir.path, 'n.safetensors'), [tensor('__metadata__')])).to.throw('reserved');
    expect(() => new SafetensorsWriter(join(dir.path, 'n.safetensors'), [tensor('\ud800')])).to.throw('surrogate');
    expect(readdirSync(dir.path)).to.deep.equal(['m.safetensors']);
  });

  it('write -> read gives the same tensors (property)', async () => {
    const dtype = fc.constantFrom(...(Object.keys(DTYPES) as DType[]).filter((d) => DTYPES[d].bits >= 8));
    const arbitrary = fc.uniqueArray(
      fc.record({ name: fc.string({ unit: 'grapheme' }).filter((n) => n !== '__metadata__'), dtype, shape: fc.array(fc.nat(3), { maxLength: 3 }) }),
      { selector: (t) => t.name, maxLength: 6 },
    );
    await fc.assert(
      fc.asyncProperty(arbitrary, async (infos) => {
        using dir = tempDir();
        const views = infos.map((t, i) => ({ ...t, bytes: new Uint8Array(byteLength(t.dtype, t.shape)).fill(i + 1) }));
        const writer = new SafetensorsWriter(join(dir.path, 'm.safetensors'), views);
        for (const v of views) await writer.write(v);
        await writer.finalize();
        using file = SafetensorsFile.open(join(dir.path, 'm.safetensors'));
        for (const v of views) expect(file.read(v.name)).to.deep.equal(v);
      }),
      { numRuns: 40 },
    );
  });
});

describe('formats/hash', () => {
  it('does not depend on order, does on every field', () => {
    const a = { name: 'a', dtype: 'F32' as const, shape: [1], sha256: '0'.repeat(64) };
    const b = { ...a, name: 'b' };
    expect(contentHash([a, b])).to.equal(contentHash([b, a]));
    // sha256 of the line, by Python's hashlib
    expect(contentHash([a])).to.equal('b8719fcfb532ec50156341e181ed5779b18c5239814e5191a34725375f5f854c');
    for (const other of [b, { ...a, shape: [1, 1] }, { ...a, dtype: 'I32' as const }, { ...a, sha256: '1'.repeat(64) }]) {
      expect(contentHash([other])).to.not.equal(contentHash([a]));
    }
  });
});
