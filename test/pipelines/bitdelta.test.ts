/** BitDelta from file to file: the sheet's figures, the release's packing, what is coded and what is not. */
import { expect } from 'chai';
import fc from 'fast-check';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32 } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import { DeltaFile } from '../../formats/delta/file.js';
import { packSigns, signWords, unpackSigns } from '../../kernels/quant/pack.js';
import { encodePair, matrixPair, loadValues, restoreTo, view, BASE, TUNED } from '../support/delta-files.js';
import { tempDir, writeSafetensors } from '../support/files.js';
import { f2Delta } from '../support/random-matrix.js';

describe('pipelines/delta bitdelta', () => {
  it('a Gaussian delta: R = sqrt(1 - 2/pi), alpha = sqrt(2/pi) sigma, mn/8 + 4 bytes', async () => {
    using dir = tempDir();
    const [m, n] = [256, 512];
    const pair = matrixPair(dir.path, 'F32', [m, n], new Rng(1).normals(m * n).map((v) => v * 0.02), new Rng(2).normals(m * n).map((v) => v * 0.001)); // prettier-ignore
    const r = await encodePair(pair, join(dir.path, 'd.safetensors'), 'bitdelta');
    expect(r.error! / Math.sqrt(1 - 2 / Math.PI)).to.be.within(0.99, 1.01);
    expect(Number(r.tensors[0]!.facts!['alpha']) / (0.001 * Math.sqrt(2 / Math.PI))).to.be.within(0.99, 1.01);
    expect(r.tensors[0]!.bytes).to.equal((m * n) / 8 + 4);
  });

  it('F2: R 0.618', async () => {
    using dir = tempDir();
    const { delta, m, n } = f2Delta(new Rng(2));
    const pair = matrixPair(dir.path, 'F32', [m, n], new Rng(3).normals(m * n).map((v) => v * 0.02), delta); // prettier-ignore
    const r = await encodePair(pair, join(dir.path, 'd.safetensors'), 'bitdelta');
    expect(r.error!).to.be.within(0.618 * 0.98, 0.618 * 1.02);
  });

  it('the parts are those of the release: an independent decoder gives the restored values, for any n', async () => {
    using dir = tempDir();
    for (const [m, n] of [
      [3, 64],
      [7, 33],
      [40, 31],
    ] as const) {
      const folder = join(dir.path, `${m}-${n}`);
      mkdirSync(folder);
      const rng = new Rng(m);
      const w0 = rng.normals(m * n);
      const pair = matrixPair(folder, 'F32', [m, n], w0, rng.normals(m * n).map((v) => v * 0.1)); // prettier-ignore
      const [d, back] = [join(folder, 'd.safetensors'), join(folder, 'back.safetensors')];
      await encodePair(pair, d, 'bitdelta');
      await restoreTo(pair.base, d, back);
      using file = DeltaFile.open(d);
      expect(file.partInfo('w', 'mask')).to.deep.include({ dtype: 'I32', shape: [Math.ceil(n / 32), m] });
      expect(file.partInfo('w', 'coeff')).to.deep.include({ dtype: 'F32', shape: [] });
      const alpha = decodeF32('F32', file.readPart('w', 'coeff'))[0]!;
      const mask = new DataView(file.readPart('w', 'mask').slice().buffer);
      const got = (await loadValues(back)).get('w')!;
      const w1 = (await loadValues(pair.tuned)).get('w')!;
      let mean = 0;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          const delta = Math.fround(w1[i * n + j]! - w0[i * n + j]!);
          const bit = (mask.getInt32(4 * (Math.floor(j / 32) * m + i), true) >> (j % 32)) & 1;
          expect(bit).to.equal(delta >= 0 ? 1 : 0);
          expect(got[i * n + j]).to.equal(Math.fround(w0[i * n + j]! + (bit === 1 ? alpha : -alpha)));
          mean += Math.abs(delta) / (m * n);
        }
      }
      expect(alpha).to.be.closeTo(mean, 1e-6 * mean);
    }
  });

  it('alpha is a stationary point: no other scale leaves less', () => {
    const d = new Rng(5).normals(4000).map((v) => v ** 3);
    const left = (a: number): number => d.reduce((sum, v) => sum + (v - (v >= 0 ? a : -a)) ** 2, 0);
    const alpha = d.reduce((sum, v) => sum + Math.abs(v), 0) / d.length;
    for (const f of [0.9, 0.99, 1.01, 1.1]) expect(left(alpha)).to.be.lessThan(left(f * alpha));
  });

  it('signs pack and unpack at every width and panel', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 70 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }), (m, n, seed) => {
        const d = new Rng(seed).symmetric(m * n);
        const mask = new Int32Array(signWords(n) * m);
        for (let i = 0; i < m; i++) packSigns(d.subarray(i * n, (i + 1) * n), n, i, m, mask);
        const back = new Float32Array(m * n);
        unpackSigns(mask, n, 0, m, 2, back);
        expect(Array.from(back)).to.deep.equal(Array.from(d, (v) => (v >= 0 ? 2 : -2)));
      }),
    );
  });

  it('embeddings, heads and norms are exact unless asked for', async () => {
    using dir = tempDir();
    const rng = new Rng(9);
    const names = ['model.embed_tokens.weight', 'lm_head.weight', 'model.layers.0.mlp.up_proj.weight'];
    const of = (scale: number) => [...names.map((n) => view(n, 'BF16', [64, 48], rng.normals(64 * 48).map((v) => v * scale))), view('norm', 'BF16', [48], rng.normals(48))]; // prettier-ignore
    const [base, tuned] = [join(dir.path, 'b.safetensors'), join(dir.path, 't.safetensors')];
    writeSafetensors(base, of(1));
    writeSafetensors(tuned, of(1.1));
    const coded = async (params: object): Promise<string[]> => {
      const r = await encodePair({ base, tuned }, join(dir.path, `${Object.keys(params).length}.safetensors`), 'bitdelta', params);
      return r.tensors.filter((t) => t.method === 'bitdelta').map((t) => t.name);
    };
    expect(await coded({})).to.have.members([names[2]]);
    expect(await coded({ tensors: 'matrices' })).to.have.members(names);
  });

  it('a budget takes the tensors that gain most a byte', async () => {
    using dir = tempDir();
    const whole = await encodePair({ base: BASE, tuned: TUNED }, join(dir.path, 'whole.safetensors'), 'bitdelta');
    const parts = whole.tensors.filter((t) => t.method === 'bitdelta').reduce((sum, t) => sum + t.bytes, 0);
    const half = await encodePair({ base: BASE, tuned: TUNED }, join(dir.path, 'half.safetensors'), 'bitdelta', {}, { target: { bytes: Math.round(whole.bytes - parts / 2) } }); // prettier-ignore
    expect(half.bytes).to.be.at.most(whole.bytes - parts / 2);
    const alphas = half.tensors.filter((t) => t.method === 'bitdelta').map((t) => Number(t.facts!['alpha']));
    expect(alphas.some((a) => a === 0)).to.equal(true);
    expect(alphas.some((a) => a > 0)).to.equal(true);
    expect(half.error!).to.be.within(whole.error!, 1);
    await restoreTo(BASE, join(dir.path, 'half.safetensors'), join(dir.path, 'back'));
    const [got, w0] = [await loadValues(join(dir.path, 'back')), await loadValues(BASE)];
    for (const t of half.tensors) if (t.facts?.['alpha'] === 0) expect(got.get(t.name)).to.deep.equal(w0.get(t.name));
  });
});
