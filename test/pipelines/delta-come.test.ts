/** Delta-CoMe from file to file: the published budget, an independent decoder, greedy against bands, budgets, parameters. */
import { expect } from 'chai';
import { join } from 'node:path';
import { decodeF32 } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import { DeltaFile } from '../../formats/delta/file.js';
import { factorBytes } from '../../kernels/lowrank/bit-factors.js';
import { BASE, encodePair, loadValues, matrixPair, restoreTo, TUNED } from '../support/delta-files.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';
import { f2Delta, withSpectrum } from '../support/random-matrix.js';

describe('pipelines/delta delta-come', () => {
  it('F2 at a 16th: the identity of the paper within 1 %, the file as large as is counted, greedy no worse than the bands', async () => {
    using dir = tempDir();
    const { delta, m, n } = f2Delta(new Rng(2));
    const pair = matrixPair(dir.path, 'BF16', [m, n], new Float32Array(m * n), delta);
    const run = async (params: object) => {
      const r = await encodePair(pair, join(dir.path, `${JSON.stringify(params).length}.safetensors`), 'delta-come', params);
      return { ...r.tensors[0]!, error: r.error! };
    };
    const bands = await run({});
    expect(Number(bands.facts!['bits']) / ((m * n) / (m + n))).to.be.within(0.99, 1);
    const counts = Number(bands.facts!['rank']) - 34;
    expect(bands.bytes).to.equal(factorBytes(m, n, [8, 8, ...Array<number>(32).fill(3), ...Array<number>(counts).fill(2)]));
    expect(bands.bytes).to.be.below(1.15 * ((2 * m * n) / 16));
    const greedy = await run({ allocate: 'greedy' });
    expect(Number(greedy.facts!['bits'])).to.be.within(Number(bands.facts!['bits']) - 2, (m * n) / (m + n));
    expect(greedy.error).to.be.at.most(bands.error);
    const finer = await run({ ratio: 8, allocate: 'greedy' });
    expect(finer.error).to.be.lessThan(greedy.error);
  });

  it('an independent decoder gives the restored values', async () => {
    using dir = tempDir();
    const [m, n] = [135, 70];
    const rng = new Rng(5);
    const w0 = rng.normals(m * n);
    const pair = matrixPair(dir.path, 'F32', [m, n], w0, withSpectrum(rng, m, n, [3, 2, 1, 0.5, 0.2]));
    const [file, back] = [join(dir.path, 'd.safetensors'), join(dir.path, 'back.safetensors')];
    await encodePair(pair, file, 'delta-come', { bands: '8:1,5:2,2:1' });
    await restoreTo(pair.base, file, back);
    using delta = DeltaFile.open(file);
    const part = (name: string): Uint8Array => delta.readPart('w', name).slice();
    expect([...part('bits')]).to.deep.equal([8, 5, 5, 2]);
    const [s, codes, zeros, scales] = [decodeF32('F32', part('s')), part('codes'), part('zeros'), decodeF32('F16', part('scales'))];
    expect(delta.partInfo('w', 'scales')).to.deep.include({ dtype: 'F16', shape: [4, 3] });
    let bit = 0;
    const read = (k: number, length: number, groupsBefore: number, bits: number): number[] => {
      const out = Array.from({ length }, (_, i) => {
        let q = 0;
        for (let b = 0; b < bits; b++, bit++) q += ((codes[bit >> 3]! >> (bit & 7)) & 1) << b;
        const g = k * 3 + groupsBefore + Math.floor(i / 128);
        return Math.fround((q - zeros[g]!) * scales[g]!);
      });
      bit += ((8 - (length % 8)) % 8) * bits;
      return out;
    };
    const sum = new Float32Array(m * n);
    for (const [k, bits] of [8, 5, 5, 2].entries()) {
      const u = read(k, m, 0, bits).map((x) => Math.fround(x * s[k]!));
      const v = read(k, n, 2, bits);
      for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) sum[i * n + j] = sum[i * n + j]! + Math.fround(u[i]! * v[j]!);
    }
    expect(bit / 8).to.equal(codes.length);
    const base = (await loadValues(pair.base)).get('w')!;
    expect(Array.from((await loadValues(back)).get('w')!)).to.deep.equal(Array.from(base, (x, i) => Math.fround(x + sum[i]!)));
  });

  it('a budget is met, and better used than by the same bands everywhere', async () => {
    using dir = tempDir();
    const pair = { base: BASE, tuned: TUNED };
    const even = await encodePair(pair, join(dir.path, 'even.safetensors'), 'delta-come');
    const shared = await encodePair(pair, join(dir.path, 'shared.safetensors'), 'delta-come', {}, { target: { bytes: even.bytes } });
    expect(shared.bytes).to.be.within(0.95 * even.bytes, even.bytes);
    expect(shared.error!).to.be.lessThan(even.error!);
    await restoreTo(BASE, join(dir.path, 'shared.safetensors'), join(dir.path, 'back'));
  });

  it('wrong parameters are refused', async () => {
    using dir = tempDir();
    for (const params of [{ bands: '9:2' }, { bands: '8:*,2:3' }, { bands: '' }, { bands: '1:4' }, { ratio: 1 }, { allocate: 'best' }]) {
      await expectCode('BAD_PARAMS', () => encodePair({ base: BASE, tuned: TUNED }, join(dir.path, 'd.safetensors'), 'delta-come', params));
    }
  });
});
