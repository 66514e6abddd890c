/** Files of Python's safetensors: we write the same bytes, we read the same tensors, other readers read ours. */
import { parseSafetensorsMetadata } from '@huggingface/hub';
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
// the package's `main` is a browser bundle and its `module` is unknown to Node
import { SafeTensor } from '../../support/npm-safetensors.js';
import type { DType } from '../../../core/dtype.js';
import { byteLength } from '../../../core/shape.js';
import type { TensorView } from '../../../core/tensor.js';
import { SafetensorsFile } from '../../../formats/safetensors/file.js';
import { expectCode } from '../../support/expect-error.js';
import { ROOT, safetensorsBytes } from '../../support/files.js';

interface Case {
  name: string;
  metadata: Record<string, string> | null;
  tensors: { name: string; dtype: DType; shape: number[]; seed: number }[];
}
const folder = join(ROOT, 'test', 'golden', 'safetensors');
const { cases } = JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8')) as { cases: Case[] };

const view = (t: Case['tensors'][number]): TensorView => ({
  name: t.name,
  dtype: t.dtype,
  shape: t.shape,
  bytes: Uint8Array.from({ length: byteLength(t.dtype, t.shape) }, (_, i) => i * 37 + t.seed * 11),
});

describe('formats/safetensors goldens', () => {
  for (const c of cases) {
    it(`${c.name}: the bytes that Python writes`, () => {
      const ours = safetensorsBytes(c.tensors.map(view), c.metadata ?? undefined);
      expect(Buffer.compare(ours, readFileSync(join(folder, `${c.name}.safetensors`)))).to.equal(0);
    });
    it(`${c.name}: reads back`, () => {
      using file = SafetensorsFile.open(join(folder, `${c.name}.safetensors`));
      expect([...file.entries.keys()].sort()).to.deep.equal(c.tensors.map((t) => t.name).sort());
      for (const t of c.tensors) expect(file.read(t.name)).to.deep.equal(view(t));
      expect(Object.fromEntries(file.metadata ?? [])).to.deep.equal(c.metadata ?? {});
    });
  }

  it('rows: a slice of the first dimension, clamped', () => {
    using file = SafetensorsFile.open(join(folder, 'shapes.safetensors'));
    const whole = file.read('cube').bytes;
    expect(file.read('cube', [1, 2])).to.deep.include({ shape: [1, 3, 5], bytes: whole.slice(15) });
    expect(file.read('cube', [1, 99]).shape).to.deep.equal([1, 3, 5]);
    expect(file.read('cube', [2, 2]).bytes).to.have.length(0);
  });

  it('a scalar has no rows', async () => {
    using file = SafetensorsFile.open(join(folder, 'shapes.safetensors'));
    await expectCode('DTYPE_UNSUPPORTED', () => file.read('scalar', [0, 1]));
  });

  it('npm safetensors reads a file of ours', () => {
    const views = [view({ name: 'w', dtype: 'F32', shape: [2, 3], seed: 0 }), view({ name: 'v', dtype: 'U8', shape: [5], seed: 1 })];
    const file = new SafeTensor(Uint8Array.from(safetensorsBytes(views)));
    expect(file.metadata.get('w')).to.deep.include({ dtype: 'F32', shape: [2, 3] });
    for (const v of views) expect(file.getTensor(v.name)).to.deep.equal(v.bytes);
  });

  it('parseSafetensorsMetadata reads the header of a file of ours', async () => {
    const bytes = safetensorsBytes([view({ name: 'w', dtype: 'BF16', shape: [4, 4], seed: 0 })], { format: 'pt' });
    const fetch = async (_url: unknown, init?: { headers?: Record<string, string>; method?: string }): Promise<Response> => {
      const range = /bytes=(\d+)-(\d+)/.exec(new Headers(init?.headers).get('range') ?? '');
      const [from, to] = range === null ? [0, bytes.length] : [Number(range[1]), Number(range[2]) + 1];
      const headers = { etag: '"x"', 'content-length': String(bytes.length), 'content-range': `bytes ${from}-${to - 1}/${bytes.length}`, 'x-repo-commit': 'x' };
      return new Response(init?.method === 'HEAD' ? null : bytes.slice(from, to), { status: range === null ? 200 : 206, headers });
    };
    const repo = { repo: 'a/b', path: 'model.safetensors', hubUrl: 'http://127.0.0.1' };
    const result = await parseSafetensorsMetadata({ ...repo, fetch: fetch as unknown as typeof globalThis.fetch });
    expect(JSON.stringify(result)).to.contain('"w":{"dtype":"BF16","shape":[4,4],"data_offsets":[0,32]}');
  });
});
