/** The level coder: every matrix comes back, at less than its entropy given the class; damaged streams are refused or differ, nothing else. */
import { expect } from 'chai';
import * as fc from 'fast-check';
import { createHash } from 'node:crypto';
import { PithError } from '../../../core/errors.js';
import { encodeAs } from '../../../core/float.js';
import { Rng } from '../../../core/rng.js';
import { EXPONENT, exponentClasses } from '../../../kernels/levels/classes.js';
import { LevelCoder, type StoredClasses } from '../../../kernels/levels/coder.js';
import { CentroidSums, entropyBits, magnitudes, MAX_LEVEL, quantize } from '../../../kernels/levels/quantize.js';
import { dequantized } from '../../../kernels/levels/rates.js';
import { pull, readRows, writeRows } from '../../../kernels/levels/stream.js';
import { reciprocals, squashTable, stretchTable } from '../../../kernels/levels/tables.js';
import { errorOf } from '../../support/expect-error.js';

describe('kernels/levels', () => {
  let coder: LevelCoder;
  before(async () => {
    coder = await LevelCoder.create();
  });
  const nothing = (): void => undefined;

  async function encode(levels: Int16Array, columns: number, classes?: Uint8Array): Promise<Uint8Array> {
    const out: Uint8Array[] = [];
    if (classes === undefined) await writeRows(coder, levels, columns, async (b) => void out.push(b.slice()), nothing);
    else {
      const encoder = coder.encoder(columns);
      const panel = LevelCoder.panelRows(columns) * columns;
      for (let at = 0; at < levels.length; at += panel) out.push(encoder.rows(levels.subarray(at, at + panel), classes.subarray(at, at + panel)).slice());
      out.push(encoder.end().slice());
    }
    return Buffer.concat(out);
  }
  async function decode(bytes: Uint8Array, rows: number, columns: number, classes?: Uint8Array, chunk = 1 << 20): Promise<Int16Array> {
    const read = async (from: number, to: number): Promise<Uint8Array> => bytes.subarray(from, to);
    if (classes === undefined) return readRows(coder, columns, rows, read, bytes.length, nothing);
    const source = pull(read, bytes.length);
    const decoder = await coder.decoder(columns, (target) => source(target.subarray(0, chunk)));
    const out = new Int16Array(rows * columns);
    const panel = LevelCoder.panelRows(columns);
    for (let i = 0; i < rows; i += panel) {
      const count = Math.min(panel, rows - i);
      out.set(await decoder.rows(count, classes.subarray(i * columns, (i + count) * columns)), i * columns);
    }
    await decoder.end();
    return out;
  }

  it('any matrix comes back, with classes and without, whatever the size of the reads', async () => {
    const level = fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: -3, max: 3 }) },
      { weight: 1, arbitrary: fc.integer({ min: -MAX_LEVEL, max: MAX_LEVEL }) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.array(level, { maxLength: 600 }),
        fc.boolean(),
        fc.integer({ min: 1, max: 100 }),
        async (columns, values, classed, chunk) => {
          const rows = Math.floor(values.length / columns);
          const levels = Int16Array.from(values.slice(0, rows * columns));
          const classes = classed ? Uint8Array.from(levels, (v, i) => (i * 7 + Math.abs(v)) % 16) : undefined;
          const bytes = await encode(levels, columns, classes);
          expect(Array.from(await decode(bytes, rows, columns, classes, chunk))).to.deep.equal(Array.from(levels));
        },
      ),
      { numRuns: 150 },
    );
  });

  it('rows longer than a panel, and panels in number', async () => {
    const rng = new Rng(3);
    for (const [rows, columns] of [
      [2, 70_000],
      [700, 333],
      [3, 1],
      [1, 1],
    ] as const) {
      const levels = Int16Array.from(rng.normals(rows * columns), (v) => Math.trunc(2 * v));
      const back = await decode(await encode(levels, columns), rows, columns);
      expect(Buffer.compare(Buffer.from(back.buffer), Buffer.from(levels.buffer)), `${rows} x ${columns}`).to.equal(0);
    }
  });

  it('Laplacian levels of uneven rows and columns: less than their entropy', async () => {
    const rng = new Rng(5);
    const [m, n] = [500, 300];
    const [rowScale, columnScale] = [rng.normals(m).map((v) => Math.exp(v / 2)), rng.normals(n).map((v) => Math.exp(v / 2))];
    for (const scale of [0.1, 0.5, 3]) {
      const levels = Int16Array.from(rng.normals(m * n), (v, i) => Math.trunc(scale * v * rowScale[Math.floor(i / n)]! * columnScale[i % n]!));
      const counts = new Uint32Array(2048);
      for (const l of levels) counts[l + 1024]!++;
      expect(8 * (await encode(levels, n)).length, String(scale)).to.be.lessThan(0.96 * entropyBits(counts));
    }
  });

  it('levels that hang on their class: at most 2 % above the entropy given the class', async () => {
    const rng = new Rng(6);
    const classes = Uint8Array.from({ length: 400 * 256 }, () => rng.integer(16));
    const levels = Int16Array.from(rng.normals(classes.length), (v, i) => Math.round((v * classes[i]!) / 8));
    const counts = new Uint32Array(16 * 256);
    levels.forEach((l, i) => counts[classes[i]! * 256 + l + 128]!++);
    let bits = 0;
    for (let k = 0; k < 16; k++) bits += entropyBits(counts.subarray(k * 256, (k + 1) * 256));
    expect(8 * (await encode(levels, 256, classes)).length).to.be.lessThan(1.02 * bits);
  });

  it('values: the stream, centroids and changed count of the plain loops, and back to what the levels stand for', async () => {
    const rng = new Rng(12);
    const [rows, columns] = [301, 333];
    const values = rng.normals(rows * columns).map((v, i) => (i % 7 === 0 ? 40 * v : v));
    values.set([0, -0, 1e9, -1e9, 0.6, -0.6], 3);
    for (const dtype of ['BF16', 'F16', 'F32'] as const) {
      const stored = encodeAs(
        dtype,
        rng.normals(values.length).map((v, i) => v * 2 ** -(i % 20)),
      );
      const [first, field, width] = [dtype === 'F16' ? 1 : 113, EXPONENT[dtype], stored.length / values.length];
      const step = Math.fround(0.37);
      const [levels, classes] = [new Int16Array(values.length), new Uint8Array(values.length)];
      quantize(values, step, levels);
      exponentClasses(dtype, stored, first, classes);
      expect(new Set(classes).size, dtype).to.be.greaterThan(10);
      const plain = new CentroidSums();
      plain.add(values, levels, step);
      const centroids = new CentroidSums();
      const encoder = coder.encoder(columns);
      const panel = LevelCoder.panelRows(columns) * columns;
      const [out, against]: [Uint8Array[], (at: number) => StoredClasses] = [
        [],
        (at) => ({ bytes: stored.subarray(at * width, (at + panel) * width), field, first }),
      ];
      let changed = 0;
      for (let at = 0; at < values.length; at += panel) {
        const coded = encoder.values(values.subarray(at, at + panel), step, centroids, against(at));
        out.push(coded.bytes.slice());
        changed += coded.changed;
      }
      out.push(encoder.end().slice());
      const bytes = Buffer.concat(out);
      expect(Buffer.compare(bytes, await encode(levels, columns, classes)), dtype).to.equal(0);
      expect(changed).to.equal(levels.filter((l) => l !== 0).length);
      expect(Array.from(centroids.bytes())).to.deep.equal(Array.from(plain.bytes()));
      const sizes = magnitudes(plain.bytes(), 8).map((v) => Math.fround(v * step));
      const decoder = await coder.decoder(
        columns,
        pull(async (from, to) => bytes.subarray(from, to), bytes.length),
      );
      for (let at = 0; at < values.length; at += panel) {
        const own = levels.subarray(at, at + panel);
        const got = await decoder.values(own.length / columns, sizes, step, against(at));
        expect(Buffer.compare(Buffer.from(got.slice().buffer), Buffer.from(dequantized(own, sizes, step).buffer)), dtype).to.equal(0);
      }
      await decoder.end();
    }
  });

  it('damaged streams: a typed error or other levels, never anything else; cut or longer ones are refused', async () => {
    const rng = new Rng(9);
    const levels = Int16Array.from(rng.normals(60 * 50), (v) => Math.trunc(1.5 * v));
    const good = await encode(levels, 50);
    for (let i = 0; i < 200; i++) {
      const bad = good.slice();
      bad[rng.integer(bad.length)]! ^= 1 + rng.integer(255);
      try {
        await decode(bad, 60, 50);
      } catch (error) {
        expect(error).to.be.instanceOf(PithError).with.property('code', 'LEVELS_MALFORMED');
      }
    }
    for (const bad of [good.subarray(0, good.length - 6), good.subarray(0, 3), Buffer.concat([good, Buffer.alloc(1)])]) {
      expect((await errorOf(() => decode(bad, 60, 50))).code).to.equal('LEVELS_MALFORMED');
    }
  });

  it('the tables are the ones that the format names', () => {
    const hash = createHash('sha256');
    for (const t of [stretchTable(), squashTable(), reciprocals()]) hash.update(new Uint8Array(t.buffer));
    expect(hash.digest('hex')).to.equal('8df9d405cf535a544d5fbe04809f09e2de4b15a8de981ca37e2ddb2b040b7432');
    stretchTable().forEach((v, i) => expect(Math.abs(v - Math.log((2 * i + 1) / (8191 - 2 * i)))).to.be.lessThan(1e-6));
    squashTable().forEach((v, i) => expect(Math.abs(v - 65536 / (1 + Math.exp((2047.5 - i) / 170.625)))).to.be.lessThan(1));
  });

  it("quantize: the sheet's rule, centroids the means of their levels", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -50, max: 50, noNaN: true }), { maxLength: 60 }), fc.double({ min: 0.5, max: 4, noNaN: true }), (values, step) => {
        const x = Float32Array.from(values);
        const levels = new Int16Array(x.length);
        quantize(x, step, levels);
        const sums = new CentroidSums();
        sums.add(x, levels, step);
        const size = magnitudes(sums.bytes(), 8);
        x.forEach((v, i) => {
          const l = Math.floor(Math.abs(v) * (1 / step) + 0.4);
          expect(levels[i]).to.equal(v < 0 && l > 0 ? -l : l);
        });
        for (let l = 1; l <= 8; l++) {
          const own = x.filter((_, i) => Math.abs(levels[i]!) === l);
          if (own.length === 0) continue;
          const mean = own.reduce((sum, v) => sum + Math.abs(v) / step, 0) / own.length;
          expect(Math.abs(size[l]! - mean)).to.be.lessThan(0.003);
        }
      }),
    );
  });
});
