/** Pruned matrices: every bit back, sizes near the entropy, damaged parts a typed error. */
import { expect } from 'chai';
import fc from 'fast-check';
import { DTYPES } from '../../../core/dtype.js';
import { PithError } from '../../../core/errors.js';
import { Rng } from '../../../core/rng.js';
import type { TensorView } from '../../../core/tensor.js';
import { fillTable, patternsOf } from '../../../kernels/pruned/patterns.js';
import type { DenseDType } from '../../../kernels/lowrank/panel.js';
import { loadMethod } from '../../../methods/index.js';
import { view } from '../../support/delta-files.js';
import { decodeAlone, encodeAlone, MemoryParts } from '../../support/memory-parts.js';

const codec = (await loadMethod('delta', 'pruned')).create({ zeros: 0 });

/** Normal weights, rows and columns of different scales. */
function weights(m: number, n: number, seed = 1): Float32Array {
  const r = new Rng(seed);
  const [rows, columns] = [r.normals(m).map((v) => Math.exp(0.3 * v)), r.normals(n).map((v) => Math.exp(0.3 * v))];
  return r.normals(m * n).map((v, i) => 0.02 * v * rows[Math.floor(i / n)]! * columns[i % n]!);
}

/** Zero where the magnitude is among the `share` smallest of its row. */
function prunedRows(w: Float32Array, n: number, share: number): Float32Array {
  const out = w.slice();
  for (let at = 0; at < w.length; at += n) {
    const order = Array.from({ length: n }, (_, j) => j).sort((a, b) => Math.abs(w[at + a]!) - Math.abs(w[at + b]!));
    for (const j of order.slice(0, Math.floor(share * n))) out[at + j] = 0;
  }
  return out;
}

/** The `keep` largest of every `of` columns; a shorter last group is left whole. */
function prunedGroups(w: Float32Array, n: number, keep: number, of: number): Float32Array {
  const out = w.slice();
  for (let at = 0; at < w.length; at += n) {
    for (let j = at; j + of <= at + n; j += of) {
      const order = Array.from({ length: of }, (_, b) => j + b).sort((a, b) => Math.abs(w[b]!) - Math.abs(w[a]!));
      for (const i of order.slice(keep)) out[i] = 0;
    }
  }
  return out;
}

async function coded(v: TensorView): Promise<{ bytes: number; structure: unknown; declined: boolean }> {
  const before = v.bytes.slice();
  const { parts, info } = await encodeAlone(codec, v);
  expect(Buffer.compare(v.bytes, before), 'input').to.equal(0);
  const declined = info.declined === true;
  if (!declined) expect(Buffer.compare(await decodeAlone(codec, parts, v), v.bytes), v.name).to.equal(0);
  return { bytes: parts.size, structure: info.facts['structure'], declined };
}

describe('kernels/pruned', () => {
  for (const dtype of ['BF16', 'F16', 'F32'] as const) {
    it(`${dtype}: unstructured from 30 to 99 %, every bit back, smaller than a bitmap and the words`, async () => {
      const [m, n] = [300, 257];
      for (const share of [0.3, 0.5, 0.7, 0.9, 0.99]) {
        const v = view(`${share}`, dtype, [m, n], prunedRows(weights(m, n), n, share));
        const r = await coded(v);
        const kept = m * (n - Math.floor(share * n));
        expect(r.structure).to.equal('unstructured');
        expect(r.bytes).to.be.lessThan((m * n) / 8 + kept * (DTYPES[dtype].bits / 8));
      }
    });

    it(`${dtype}: N:M groups are found and come back, ragged tails too`, async () => {
      for (const [keep, of] of [
        [2, 4],
        [4, 8],
        [1, 4],
        [1, 2],
        [3, 4],
        [6, 8],
      ] as const) {
        // prettier-ignore
        for (const n of [64, 67]) {
          const v = view(`${keep}:${of} ${n}`, dtype, [90, n], prunedGroups(weights(90, n), n, keep, of));
          expect(await coded(v), v.name).to.deep.include({ structure: `${keep}:${of}`, declined: false });
        }
      }
    });
  }

  it('half of normal weights, per row: at most 0.36 of the bf16 bytes, 2:4 at most 0.36', async () => {
    const [m, n] = [1024, 576];
    const w = weights(m, n);
    const half = await coded(view('half', 'BF16', [m, n], prunedRows(w, n, 0.5)));
    const groups = await coded(view('groups', 'BF16', [m, n], prunedGroups(w, n, 2, 4)));
    expect(half.bytes / (2 * m * n)).to.be.lessThan(0.36);
    expect(groups.bytes / (2 * m * n)).to.be.lessThan(0.36);
  });

  it('whole rows, whole columns, nothing kept, nothing zero', async () => {
    const [m, n] = [128, 96];
    const w = weights(m, n);
    const rows = w.map((v, i) => (Math.floor(i / n) % 3 === 0 ? v : 0));
    const columns = w.map((v, i) => (i % n < 40 ? 0 : v));
    // a mask of whole rows or columns costs little more than its classes
    for (const [name, values, share] of [
      ['rows', rows, 1 / 3],
      ['columns', columns, 56 / 96],
    ] as const) {
      // prettier-ignore
      const r = await coded(view(name, 'BF16', [m, n], values));
      expect(r.bytes, name).to.be.lessThan(2 * m * n * share * 0.75 + 700);
    }
    expect((await coded(view('none', 'BF16', [m, n], new Float32Array(m * n)))).bytes).to.be.lessThan(400);
    expect((await coded(view('all', 'BF16', [m, n], w))).declined).to.equal(false);
  });

  it('more rows than one segment, columns of one word, dimensions beyond two', async () => {
    const w = weights(2100, 1024);
    expect((await coded(view('long', 'BF16', [2100, 1024], prunedGroups(w, 1024, 2, 4)))).structure).to.equal('2:4');
    await coded(view('rows', 'F32', [1100, 1024], prunedRows(w.subarray(0, 1100 * 1024), 1024, 0.5)));
    await coded(view('thin', 'F16', [500, 1], prunedRows(w.subarray(0, 500), 1, 0)));
    await coded(view('conv', 'BF16', [20, 10, 3, 3], prunedRows(w.subarray(0, 1800), 90, 0.6)));
  });

  it('what is no matrix of floats is declined', async () => {
    for (const shape of [[], [40], [0, 4], [4, 0]]) {
      const count = shape.reduce((a, b) => a * b, 1);
      expect((await coded(view('w', 'BF16', shape, new Float32Array(count)))).declined).to.equal(true);
    }
    expect((await coded({ name: 'w', dtype: 'I16', shape: [4, 4], bytes: new Uint8Array(32) })).declined).to.equal(true);
    const strict = (await loadMethod('delta', 'pruned')).create({});
    expect((await encodeAlone(strict, view('dense', 'BF16', [64, 64], weights(64, 64)))).info.declined).to.equal(true);
  });

  it('any bit patterns: -0, NaN payloads, infinities, subnormals', async () => {
    const special = fc.constantFrom(0, 0x8000, 0x7fc0, 0x7f80, 0xff80, 0xffff, 1, 0x8001, 0x3c00);
    const word = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: special }, fc.nat(0xffff));
    const dtype = fc.constantFrom<DenseDType>('BF16', 'F16', 'F32');
    await fc.assert(
      fc.asyncProperty(dtype, fc.integer({ min: 1, max: 9 }), fc.array(word, { minLength: 1, maxLength: 400 }), async (type, n, words) => {
        const wide = type === 'F32' ? 2 : 1;
        const m = Math.floor(words.length / (n * wide));
        const bytes = new Uint8Array(Uint16Array.from(words.slice(0, m * n * wide)).buffer);
        await coded({ name: 'w', dtype: type, shape: [m, n], bytes });
      }),
      { numRuns: 200 },
    );
  });

  it('patterns ascend, and each set of columns is in one that holds it', () => {
    for (const [keep, of, count] of [
      [2, 4, 6],
      [4, 8, 70],
      [1, 4, 4],
      [1, 2, 2],
    ] as const) {
      // prettier-ignore
      const p = patternsOf(keep, of);
      expect(p.bits.length).to.equal(count);
      expect([...p.bits]).to.deep.equal([...p.bits].sort((a, b) => a - b));
      const fill = fillTable(p);
      for (let v = 0; v < 1 << of; v++) {
        const ones = v.toString(2).replaceAll('0', '').length;
        if (ones <= keep) expect(p.bits[fill[v]!]! & v).to.equal(v);
      }
    }
  });

  it('damaged parts: a typed error or other words, never anything else', async () => {
    const n = 130;
    const views = [
      view('bits', 'BF16', [120, n], prunedRows(weights(120, n), n, 0.5)),
      view('groups', 'F16', [120, n], prunedGroups(weights(120, n), n, 2, 4)),
      view('wide', 'F32', [120, n], prunedRows(weights(120, n), n, 0.8)),
    ];
    const r = new Rng(11);
    let errors = 0;
    for (const v of views) {
      const { parts } = await encodeAlone(codec, v);
      for (let i = 0; i < 300; i++) {
        const bad = new MemoryParts();
        const damaged = r.integer(2) === 0 ? 'mask' : 'values';
        for (const [name, p] of parts.parts) {
          let bytes = p.bytes.slice();
          if (name === damaged) {
            if (r.integer(4) === 0) bytes = bytes.slice(0, r.integer(bytes.length));
            // half of the time among the first bytes, where heads and sizes are
            else bytes[r.integer(r.integer(2) === 0 ? Math.min(200, bytes.length) : bytes.length)]! ^= 1 << r.integer(8);
          }
          await bad.write(name, 0, bytes);
          bad.declare(name, 'U8', [bytes.length]);
        }
        try {
          await decodeAlone(codec, bad, v);
        } catch (error) {
          if (!(error instanceof PithError) || error.exitCode !== 65) throw error;
          errors++;
        }
      }
      expect(Buffer.compare(await decodeAlone(codec, parts, v), v.bytes), 'after damage').to.equal(0);
    }
    expect(errors).to.be.greaterThan(500);
  });
});
