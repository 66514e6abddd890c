/** GGUF headers: what is read from right ones, and one error code for each way to be wrong. */
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorCode } from '../../core/errors.js';
import { GgufFile } from '../../formats/gguf/file.js';
import { ggufPath } from '../../formats/gguf/find.js';
import { GgufSet } from '../../formats/gguf/split.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';
import { ggufBytes, u64, type TestGguf, type TestKey, type TestTensor } from '../support/gguf.js';

const w = (name: string, more: Partial<TestTensor> = {}): TestTensor => ({ name, dims: [32, 2], type: 'F32', ...more });
const key = (k: string, type: TestKey['type'], value: TestKey['value'], of?: TestKey['of']): TestKey => ({
  key: k,
  type,
  value,
  ...(of === undefined ? {} : { of }),
});

describe('formats/gguf', () => {
  it('metadata of every type, tensors in table order with shapes the other way round', () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    const data = Uint8Array.from({ length: 18 * 3 }, (_, i) => i);
    const bytes = ggufBytes({
      keys: [
        key('a.u8', 'u8', 200),
        key('a.i8', 'i8', -3),
        key('a.u16', 'u16', 65535),
        key('a.i16', 'i16', -300),
        key('a.u32', 'u32', 4e9),
        key('a.i32', 'i32', -70000),
        key('a.f32', 'f32', 0.1),
        key('a.bool', 'bool', true),
        key('a.string', 'string', 'größe ✓'),
        key('a.u64', 'u64', 2n ** 63n),
        key('a.i64', 'i64', -5n),
        key('a.f64', 'f64', 0.1),
        key('a.strings', 'array', ['', 'b', 'ü'], 'string'),
        key('a.ints', 'array', [1, -2, 3], 'i32'),
        key('a.same', 'array', [7, 7], 'u32'),
        key('a.floats', 'array', [0.5, -1.5], 'f32'),
      ],
      tensors: [w('first', { dims: [32, 3], type: 'Q4_0', data }), w('scalar', { dims: [] }), w('none', { dims: [4, 0] }), w('cube', { dims: [2, 3, 4] })],
    });
    writeFileSync(path, bytes);
    using f = GgufFile.open(path);
    expect(['u8', 'i8', 'u16', 'i16', 'u32', 'i32', 'i64', 'f64'].map((t) => f.number(`a.${t}`))).to.deep.equal([200, -3, 65535, -300, 4e9, -70000, -5, 0.1]);
    expect(f.number('a.f32')).to.equal(Math.fround(0.1));
    expect([f.boolean('a.bool'), f.string('a.string'), f.number('a.same')]).to.deep.equal([true, 'größe ✓', 7]);
    expect(f.strings('a.strings')).to.deep.equal(['', 'b', 'ü']);
    expect(f.numbers('a.ints')).to.deep.equal([1, -2, 3]);
    expect(f.numbers('a.floats')).to.deep.equal([0.5, -1.5]);
    expect([f.show('a.f32'), f.show('a.strings'), f.show('a.string'), f.number('no'), f.string('no')]).to.deep.equal([
      '0.1',
      '[3 x string]',
      'größe ✓',
      undefined,
      undefined,
    ]);
    expect([...f.tensors.values()].map((t) => [t.name, t.type.name, t.shape, t.bytes])).to.deep.equal([
      ['first', 'Q4_0', [3, 32], 54],
      ['scalar', 'F32', [], 4],
      ['none', 'F32', [0, 4], 0],
      ['cube', 'F32', [4, 3, 2], 96],
    ]);
    const got = new Uint8Array(18);
    f.readInto(f.tensors.get('first')!, 18, got);
    expect([...got]).to.deep.equal([...data.subarray(18, 36)]);
    expect(f.header.warnings).to.deep.equal([]);
  });

  it('asked for another type than a value has: GGUF_FIELD with both', async () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    writeFileSync(
      path,
      ggufBytes({
        keys: [
          key('s', 'string', 'x'),
          key('n', 'u32', 1),
          key('big', 'u64', 2n ** 60n),
          key('mixed', 'array', [1, 2], 'u8'),
          key('words', 'array', ['x'], 'string'),
        ],
      }),
    );
    using f = GgufFile.open(path);
    for (const call of [
      () => f.number('s'),
      () => f.string('n'),
      () => f.boolean('n'),
      () => f.strings('mixed'),
      () => f.numbers('words'),
      () => f.number('big'),
      () => f.number('mixed'),
    ]) {
      await expectCode('GGUF_FIELD', call);
    }
    expect((await errorOf(() => f.strings('mixed'))).message).to.include('expected an array of strings, got an array of u8');
  });

  it('alignment, version 2, no tensors, bytes after the end', () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    const open = (g: TestGguf, more = Buffer.alloc(0)): GgufFile => {
      writeFileSync(path, Buffer.concat([ggufBytes(g), more]));
      return GgufFile.open(path);
    };
    using aligned = open({ version: 2, alignment: 64, keys: [key('general.alignment', 'u32', 64)], tensors: [w('a', { dims: [1] }), w('b', { dims: [1] })] });
    const [a, b] = [...aligned.tensors.values()];
    expect([a!.position % 64, b!.position - a!.position, aligned.header.version]).to.deep.equal([0, 64, 2]);
    using empty = open({ keys: [key('x', 'u8', 1)] });
    expect(empty.tensors.size).to.equal(0);
    using longer = open({ tensors: [w('a')] }, Buffer.alloc(5));
    expect(longer.header.warnings[0]).to.include('5 bytes after the last tensor');
    // the last tensor's padding may be missing
    writeFileSync(path, ggufBytes({ tensors: [w('a', { dims: [1] })] }).subarray(0, -28));
    using shorter = GgufFile.open(path);
    expect(shorter.tensors.get('a')!.bytes).to.equal(4);
  });

  /** What the C reader refuses, and what the file says then. */
  const wrong: readonly (readonly [what: string, code: ErrorCode, file: TestGguf | Buffer, message: RegExp])[] = [
    ['magic', 'GGUF_MAGIC', { magic: 'GGML' }, /got "GGML"/],
    ['an empty file', 'GGUF_MAGIC', Buffer.alloc(0), /got ""/],
    ['version 1', 'GGUF_VERSION', { version: 1 }, /got 1/],
    ['version 0', 'GGUF_VERSION', { version: 0 }, /got 0/],
    ['version 4', 'GGUF_VERSION', { version: 4 }, /got 4/],
    ['big-endian', 'GGUF_ENDIAN', { version: 0x03000000 }, /big-endian/],
    ['a negative tensor count', 'GGUF_COUNT', { tensorCount: -1n }, /number of tensors/],
    ['2^40 tensors', 'GGUF_COUNT', { tensorCount: 2n ** 40n }, /at most 0/],
    ['a negative key count', 'GGUF_COUNT', { keyCount: -(2n ** 63n) }, /metadata keys/],
    ['2^62 keys', 'GGUF_COUNT', { keyCount: 2n ** 62n }, /metadata keys/],
    ['an empty key', 'GGUF_KEY_EMPTY', { keys: [key('a', 'u64', 1), key('', 'u64', 1)] }, /key 1 is empty/],
    ['a key twice', 'GGUF_KEY_DUPLICATE', { keys: [key('a.b', 'u8', 1), key('a.b', 'u8', 1)] }, /"a.b" occurs twice/],
    ['a key of wrong UTF-8', 'GGUF_UTF8', { keys: [{ key: Buffer.from([0x61, 0xff]), type: 'u8', value: 1 }] }, /key at byte 32/],
    ['a key of 64 KiB', 'GGUF_TOO_LONG', { keys: [key('k'.repeat(65_536), 'u8', 1)] }, /at most 65535, got 65536/],
    ['a key of 2^50 bytes', 'GGUF_TOO_LONG', Buffer.concat([ggufBytes({ keyCount: 1n }), u64(2n ** 50n), Buffer.alloc(20)]), /at most 65535/],
    ['an unknown value type', 'GGUF_VALUE_TYPE', { keys: [{ key: 'a', type: 13, value: u64(0) }] }, /"a": unknown value type 13/],
    [
      'an unknown element type',
      'GGUF_VALUE_TYPE',
      { keys: [{ key: 'a', type: 9, value: Buffer.concat([Buffer.from([99, 0, 0, 0]), u64(0)]) }] },
      /unknown value type 99/,
    ],
    ['an array of arrays', 'GGUF_NESTED', { keys: [key('a', 'array', [], 'array')] }, /arrays of arrays/],
    ['a string of 2^31 bytes', 'GGUF_TOO_LONG', { keys: [{ key: 'a', type: 8, value: u64(2 ** 31) }] }, /value of "a": expected at most 1073741824/],
    ['an array of 2^31', 'GGUF_TOO_LONG', { keys: [{ key: 'a', type: 9, value: Buffer.concat([Buffer.from([0, 0, 0, 0]), u64(2 ** 31)]) }] }, /value of "a"/],
    [
      'a string beyond the file',
      'GGUF_TRUNCATED',
      { keys: [{ key: 'a', type: 8, value: u64(1000) }] },
      /inside the value of "a": expected 1000 bytes at 45, got 0/,
    ],
    [
      'an array beyond the file',
      'GGUF_TRUNCATED',
      { keys: [{ key: 'a', type: 9, value: Buffer.concat([Buffer.from([10, 0, 0, 0]), u64(1000)]) }] },
      /expected 8000 bytes/,
    ],
    [
      'strings beyond the file',
      'GGUF_TRUNCATED',
      { keys: [{ key: 'a', type: 9, value: Buffer.concat([Buffer.from([8, 0, 0, 0]), u64(1000)]) }] },
      /expected 8000 bytes/,
    ],
    ['alignment of another type', 'GGUF_ALIGNMENT', { keys: [key('general.alignment', 'u64', 32n)] }, /got u64/],
    ['alignment 0', 'GGUF_ALIGNMENT', { keys: [key('general.alignment', 'u32', 0)] }, /got 0/],
    ['alignment 24', 'GGUF_ALIGNMENT', { keys: [key('general.alignment', 'u32', 24)] }, /power of two, got 24/],
    ['a name of 64 bytes', 'GGUF_TOO_LONG', { tensors: [w('n'.repeat(64))] }, /tensor name: expected at most 63, got 64/],
    ['a name of wrong UTF-8', 'GGUF_UTF8', { tensors: [w('x', { name: Buffer.from([0xc3, 0x28]) })] }, /tensor name/],
    ['a name twice', 'GGUF_DUPLICATE_TENSOR', { tensors: [w('a'), w('a')] }, /"a" is listed twice/],
    ['five dimensions', 'GGUF_DIMS', { tensors: [w('a', { dims: [1, 1, 1, 1, 1] })] }, /at most 4 dimensions, got 5/],
    ['a negative dimension', 'GGUF_NEGATIVE_DIM', { tensors: [w('a', { dims: [32, -2n], data: new Uint8Array(0) })] }, /dimension 1 is negative: -2/],
    ['2^63 elements', 'GGUF_OVERFLOW', { tensors: [w('a', { dims: [2n ** 31n, 2n ** 32n], data: new Uint8Array(0) })] }, /9223372036854775808 elements/],
    ['an empty tensor that overflows', 'GGUF_OVERFLOW', { tensors: [w('a', { dims: [2n ** 62n, 0], data: new Uint8Array(0) })] }, /elements/],
    ['an unknown type', 'GGUF_TENSOR_TYPE', { tensors: [w('a', { type: 99 })] }, /unknown ggml type 99/],
    ['a type that was taken back', 'GGUF_TENSOR_TYPE', { tensors: [w('a', { type: 4 })] }, /type 4/],
    ['a negative type', 'GGUF_TENSOR_TYPE', { tensors: [w('a', { type: 0xffffffff })] }, /type -1/],
    [
      'rows of half a block',
      'GGUF_BLOCK',
      { tensors: [w('a', { dims: [48, 2], type: 'Q8_0', data: new Uint8Array(102) })] },
      /rows of 48 elements are not whole blocks of 32 \(Q8_0\)/,
    ],
    ['a gap in the offsets', 'GGUF_OFFSET', { tensors: [w('a'), w('b', { offset: 512n })] }, /"b": expected offset 256, got 512/],
    ['tensors in another order', 'GGUF_OFFSET', { tensors: [w('a', { offset: 256n }), w('b', { offset: 0n })] }, /"a": expected offset 0/],
    ['data beyond the file', 'GGUF_TRUNCATED', ggufBytes({ tensors: [w('a'), w('b')] }).subarray(0, -1), /inside the data of tensor "b": expected 256 bytes/],
    ['no room for the padding', 'GGUF_TRUNCATED', ggufBytes({ tensors: [w('a', { dims: [0] })] }).subarray(0, -1), /padding before the data/],
  ];
  for (const [what, code, file, message] of wrong) {
    it(`${what}: ${code}`, async () => {
      using dir = tempDir();
      const path = join(dir.path, 'm.gguf');
      writeFileSync(path, Buffer.isBuffer(file) ? file : ggufBytes(file));
      const error = await expectCode(code, () => GgufFile.open(path));
      expect(error.message).to.match(message).and.include(path);
      expect(error.exitCode).to.equal(65);
    });
  }

  it('a file that is cut anywhere in its header is refused', async () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    const whole = ggufBytes({ keys: [key('general.architecture', 'string', 'llama'), key('t', 'array', ['a', 'bc'], 'string')], tensors: [w('a'), w('b')] });
    for (let n = 0; n < whole.length; n += n < 200 ? 1 : 37) {
      writeFileSync(path, whole.subarray(0, n));
      expect((await errorOf(() => GgufFile.open(path))).code, String(n)).to.match(/^GGUF_(MAGIC|TRUNCATED|COUNT)$/);
    }
  });

  describe('split sets', () => {
    const part = (no: number, count: number, total: number, tensors: readonly TestTensor[], more: readonly TestKey[] = []): Buffer =>
      ggufBytes({ keys: [...more, key('split.no', 'u16', no), key('split.count', 'u16', count), key('split.tensors.count', 'i32', total)], tensors });
    const write = (dir: string, files: readonly Buffer[], count = files.length): string[] =>
      files.map((bytes, i) => {
        const path = join(dir, `m-${String(i + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`);
        writeFileSync(path, bytes);
        return path;
      });
    const good = [part(0, 2, 3, [w('a')], [key('general.architecture', 'string', 'x')]), part(1, 2, 3, [w('b'), w('c')])];

    it('any part opens all of them, and a folder does', () => {
      using dir = tempDir();
      const paths = write(dir.path, good);
      for (const path of [...paths, ggufPath(dir.path)!]) {
        using set = GgufSet.open(path);
        expect([...set.entries.keys()]).to.deep.equal(['a', 'b', 'c']);
        expect(set.first.string('general.architecture')).to.equal('x');
      }
    });

    const faults: readonly (readonly [string, ErrorCode, readonly Buffer[], number?])[] = [
      ['a part is missing', 'SHARD_MISSING', good.slice(0, 1), 2],
      ['parts in another order', 'GGUF_SPLIT', [good[1]!, good[0]!]],
      ['a part of another number of parts', 'GGUF_SPLIT', [good[0]!, part(1, 3, 3, [w('b'), w('c')])]],
      ['another number of tensors', 'GGUF_SPLIT', [good[0]!, part(1, 2, 4, [w('b'), w('c')])]],
      ['a part without its number', 'GGUF_SPLIT', [good[0]!, ggufBytes({ tensors: [w('b'), w('c')] })]],
      ['a tensor in two parts', 'DUPLICATE_TENSOR', [good[0]!, part(1, 2, 3, [w('a'), w('c')])]],
    ];
    for (const [what, code, files, count] of faults) {
      it(`${what}: ${code}`, async () => {
        using dir = tempDir();
        const [path] = write(dir.path, files, count);
        await expectCode(code, () => GgufSet.open(path!));
      });
    }

    it('a part under another name is no whole model', async () => {
      using dir = tempDir();
      const path = join(dir.path, 'renamed.gguf');
      writeFileSync(path, good[0]!);
      await expectCode('GGUF_SPLIT', () => GgufSet.open(path));
    });
  });

  it('finds the file that an argument means', async () => {
    using dir = tempDir();
    const put = (name: string, bytes: Uint8Array = ggufBytes({})): string => {
      writeFileSync(join(dir.path, name), bytes);
      return join(dir.path, name);
    };
    expect(ggufPath(dir.path)).to.equal(undefined);
    const model = put('model.gguf');
    put('README.md', Buffer.from('x'));
    expect(ggufPath(dir.path)).to.equal(model);
    expect(ggufPath(put('blob'))).to.equal(join(dir.path, 'blob'));
    expect(ggufPath(join(dir.path, 'README.md'))).to.equal(undefined);
    expect(ggufPath(join(dir.path, 'nothing'))).to.equal(undefined);
    put('other.gguf');
    expect((await expectCode('NOT_A_CHECKPOINT', () => ggufPath(dir.path))).message).to.include('model.gguf, other.gguf');
    put('model.safetensors', Buffer.from('x'));
    expect(ggufPath(dir.path)).to.equal(undefined);
  });
});
