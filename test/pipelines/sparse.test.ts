/** sparse: selection against sorting, exact overwriting of any bits, positions near their entropy, budgets. */
import { expect } from 'chai';
import fc from 'fast-check';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { DeltaFile } from '../../formats/delta/file.js';
import { atLeast, marker, topK } from '../../kernels/sparse/top-k.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { BASE, encodePair, loadBytes, loadValues, matrixPair, restoreTo, TUNED, view } from '../support/delta-files.js';
import { expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

/** Positions of the k largest |x|, the lower index first among equals. */
const sorted = (x: Float32Array, k: number): number[] =>
  Array.from(x.keys())
    .sort((a, b) => Math.abs(x[b]!) - Math.abs(x[a]!) || a - b)
    .slice(0, k)
    .sort((a, b) => a - b);

function chosen(x: Float32Array, k: number, piece = x.length): number[] {
  const mask = new Uint8Array(x.length);
  const mark = marker(topK(x, k));
  for (let i = 0; i < x.length; i += Math.max(1, piece)) mark(x.subarray(i, i + piece), mask.subarray(i, i + piece));
  return Array.from(mask.keys()).filter((i) => mask[i] === 1);
}

describe('kernels/sparse', () => {
  it('the k largest are those of a stable sort, ties and pieces included', () => {
    const value = fc.oneof(fc.constantFrom(0, -0, 1, -1, 2, 1e-40, -1e-40), fc.float({ noNaN: true, noDefaultInfinity: true }));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 60 }), fc.nat(), fc.integer({ min: 1, max: 20 }), (values, at, piece) => {
        const x = Float32Array.from(values);
        const k = at % (x.length + 1);
        expect(chosen(x, k, piece)).to.deep.equal(sorted(x, k));
      }),
      { numRuns: 500 },
    );
  });

  it('a threshold takes what reaches it, never a zero', () => {
    const x = Float32Array.of(0, 0.5, -0.5, 0.499, -0, 3);
    const marks = (t: number): number[] => {
      const mask = new Uint8Array(6);
      marker(atLeast(t))(x, mask);
      return [...mask];
    };
    expect(marks(0.5)).to.deep.equal([0, 1, 1, 0, 0, 1]);
    expect(marks(0)).to.deep.equal([0, 1, 1, 1, 0, 1]);
  });
});

describe('pipelines/delta sparse', () => {
  const [M, N] = [300, 500];
  const w0 = new Rng(1).normals(M * N).map((v) => v * 0.02);
  const d = new Rng(2).normals(M * N).map((v) => v * 0.001);

  it('keeps the largest floor(density m n) differences in bf16 and leaves the rest at the base', async () => {
    using dir = tempDir();
    const pair = matrixPair(dir.path, 'F32', [M, N], w0, d);
    const [base, tuned] = [(await loadValues(pair.base)).get('w')!, (await loadValues(pair.tuned)).get('w')!];
    const delta = tuned.map((v, i) => v - base[i]!);
    for (const density of [0.001, 0.05, 0.5]) {
      const [file, back] = [join(dir.path, `${density}.safetensors`), join(dir.path, `back-${density}.safetensors`)];
      const r = await encodePair(pair, file, 'sparse', { density });
      await restoreTo(pair.base, file, back);
      const kept = new Set(sorted(delta, Math.floor(density * M * N)));
      const got = (await loadValues(back)).get('w')!;
      const rounded = decodeF32('BF16', encodeAs('BF16', delta));
      for (let i = 0; i < got.length; i++) if (got[i] !== (kept.has(i) ? Math.fround(base[i]! + rounded[i]!) : base[i])) expect.fail(`value ${i}`);
      // positions cost at most 3 % more than their entropy, and the head
      using delta1 = DeltaFile.open(file);
      const entropy = -(density * Math.log2(density) + (1 - density) * Math.log2(1 - density));
      expect(delta1.partInfo('w', 'index').shape[0]!).to.be.at.most((M * N * entropy * 1.03) / 8 + 200);
      expect(r.tensors[0]!.facts!['density']).to.be.closeTo(density, 1e-5);
    }
  });

  it('exact: restores every bit of every changed word, whatever it is, and says so', async () => {
    using dir = tempDir();
    const [base, tuned] = [join(dir.path, 'b.safetensors'), join(dir.path, 't.safetensors')];
    const views = (['BF16', 'F16', 'F32'] as const).map((t) => view(`w.${t}`, t, [80, 90], w0.subarray(0, 7200)));
    views.push(view('norm', 'BF16', [500], w0.subarray(0, 500)), view('same', 'F32', [9, 9], w0.subarray(0, 81)));
    const r = new Rng(4);
    // any bit pattern at 3 % of the words: NaN payloads, infinities, -0
    const poke = (v: TensorView): TensorView => {
      const bytes = v.bytes.slice();
      for (let i = 0; i + 1 < bytes.length; i += 2) if (r.uniform() < 0.03) [bytes[i], bytes[i + 1]] = [r.integer(256), 0x7f + r.integer(2) * 128];
      return { ...v, bytes };
    };
    writeSafetensors(base, views);
    writeSafetensors(tuned, views.map((v) => (v.name === 'same' ? v : poke(v)))); // prettier-ignore
    const [file, back] = [join(dir.path, 'd.safetensors'), join(dir.path, 'back.safetensors')];
    const report = await encodePair({ base, tuned }, file, 'sparse', { values: 'exact' });
    expect(Object.fromEntries(report.tensors.map((t) => [t.name, t.method]))).to.deep.equal({ 'w.BF16': 'sparse', 'w.F16': 'sparse', 'w.F32': 'sparse', norm: 'sparse', same: 'identical' }); // prettier-ignore
    expect((await deltaInfo(file)).exact).to.equal(true);
    await restoreTo(base, file, back);
    expect(await loadBytes(back)).to.deep.equal(await loadBytes(tuned));
    expect(hashTree(back)).to.deep.equal(hashTree(tuned));
  });

  it('exact with a density: the largest differences, then bit for bit', async () => {
    using dir = tempDir();
    const pair = matrixPair(dir.path, 'BF16', [M, N], w0, d);
    const [file, back] = [join(dir.path, 'd.safetensors'), join(dir.path, 'back.safetensors')];
    await encodePair(pair, file, 'sparse', { values: 'exact', density: 0.1 });
    await restoreTo(pair.base, file, back);
    const [got, base, tuned] = [(await loadValues(back)).get('w')!, (await loadValues(pair.base)).get('w')!, (await loadValues(pair.tuned)).get('w')!];
    const kept = new Set(sorted(tuned.map((v, i) => v - base[i]!), M * N * 0.1)); // prettier-ignore
    for (let i = 0; i < got.length; i++) if (got[i] !== (kept.has(i) ? tuned[i] : base[i])) expect.fail(`value ${i}`);
  });

  it('more values, less error; a threshold; wrong parameters', async () => {
    using dir = tempDir();
    const pair = matrixPair(dir.path, 'F32', [M, N], w0, d);
    let count = 0;
    const error = async (params: object): Promise<number> => (await encodePair(pair, join(dir.path, `${count++}.safetensors`), 'sparse', params)).error!;
    let last = 1.001;
    for (const density of [0.0001, 0.01, 0.1, 0.4]) {
      const e = await error({ density });
      expect(e).to.be.lessThan(last);
      last = e;
    }
    // of a Gaussian, |x| >= 2 sigma holds 4.55 % of the values and 26 % of the energy
    const r = await encodePair(pair, join(dir.path, 'threshold.safetensors'), 'sparse', { threshold: 0.002 });
    expect(Number(r.tensors[0]!.facts!['density'])).to.be.within(0.0455 * 0.95, 0.0455 * 1.05);
    expect(1 - r.error! ** 2).to.be.within(0.25, 0.275);
    for (const params of [{ density: 0 }, { density: 1.5 }, { threshold: -1 }, { density: 0.1, threshold: 1 }, { values: 'f16' }]) {
      await expectCode('BAD_PARAMS', () => encodePair(pair, join(dir.path, 'x.safetensors'), 'sparse', params));
    }
  });

  it('a budget is met and shared by gain', async () => {
    using dir = tempDir();
    const pair = { base: BASE, tuned: TUNED };
    const even = await encodePair(pair, join(dir.path, 'even.safetensors'), 'sparse', { density: 0.05 });
    const shared = await encodePair(pair, join(dir.path, 'shared.safetensors'), 'sparse', {}, { target: { bytes: even.bytes } });
    expect(shared.bytes).to.be.within(0.95 * even.bytes, even.bytes);
    expect(shared.error!).to.be.at.most(even.error! * 1.01);
  });
});
