/** ecsq and lowrank-ecsq from file to file: better than low-rank factors at equal bytes, budgets that are met, the restore that is promised. */
import { expect } from 'chai';
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { statSync } from 'node:fs';
import { errorOf } from '../support/expect-error.js';
import { tempDir, TINY, writeSafetensors } from '../support/files.js';
import { f2Delta } from '../support/random-matrix.js';
import { householderQ } from '../../kernels/linalg/qr.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';

const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const WRITE = { force: true, dryRun: false, resume: true };
const [BASE, TUNED] = [join(TINY, 'base'), join(TINY, 'tuned')];

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

describe('pipelines/delta ecsq and auto', () => {
  const dir = tempDir();
  after(() => dir[Symbol.dispose]());
  const out = join(dir.path, 'd.safetensors');
  const encode = (base: string, tuned: string, method: string, more: Partial<EncodeOptions> = {}): Promise<EncodeReport> =>
    drain(deltaEncode({ ...RUN, ...WRITE, base, tuned, out, method, params: {}, selects: () => true, ...more }));
  const partBytes = (r: EncodeReport): number => r.tensors.reduce((sum, t) => sum + t.bytes, 0);

  async function pairOf(name: string, delta: Float32Array, m: number, n: number): Promise<[base: string, tuned: string]> {
    const w0 = new Rng(3).normals(m * n).map((v) => v * 0.02);
    const view = (values: Float32Array): TensorView => ({ name: 'w', dtype: 'F32', shape: [m, n], bytes: encodeAs('F32', values) });
    const [b, t] = [join(dir.path, `${name}-b.safetensors`), join(dir.path, `${name}-t.safetensors`)];
    writeSafetensors(b, [view(w0)]);
    writeSafetensors(t, [view(w0.map((v, i) => v + delta[i]!))]);
    return [b, t];
  }

  it('F2: at equal bytes less error than ERE with bf16 and with int8 factors', async () => {
    const { delta, m, n } = f2Delta(new Rng(2));
    const [b, t] = await pairOf('f2', delta, m, n);
    for (const factors of ['bf16', 'int8']) {
      for (const rank of [4, 16, 48]) {
        const ere = await encode(b, t, 'ere', { params: { rank, factors } });
        const own = await encode(b, t, 'lowrank-ecsq', { target: { bytes: ere.bytes } });
        expect(own.bytes).to.be.at.most(ere.bytes);
        expect(own.error, `${factors} rank ${rank}`).to.be.lessThan(ere.error!);
      }
    }
  });

  it('F3: at a sixteenth of fp16 less error than the best bands of Delta-CoMe by round-to-nearest', async () => {
    const [m, n] = [1024, 1024];
    const rng = new Rng(4);
    const [u, v] = [householderQ(new Float64Array(rng.normals(m * n)), m, n), householderQ(new Float64Array(rng.normals(m * n)), m, n)];
    for (const [a, best] of [
      [0.5, 0.526],
      [0.8, 0.183],
    ] as const) {
      const left = Float32Array.from(u, (x, i) => x * 0.01 * ((i % n) + 1) ** -a);
      const delta = (await matrixOps({ blasThreads: 2 })).multiply(false, true, m, n, n, left, new Float32Array(v));
      const [b, t] = await pairOf(`f3-${a}`, delta, m, n);
      // a sixteenth of the fp16 bytes: a 32nd of the f32 file
      const r = await encode(b, t, 'lowrank-ecsq', { target: { bytes: (m * n * 2) / 16 } });
      expect(r.error, `i^-${a}`).to.be.lessThan(best);
    }
  }).timeout(120_000);

  it('a smaller step: more bytes; less error, but for the rounding of bf16', async () => {
    for (const method of ['ecsq', 'lowrank-ecsq']) {
      let [bytes, error] = [0, 1];
      for (const step of [8, 6, 4.5, 3.4, 2.5, 1.9, 1.4, 1]) {
        const r = await encode(BASE, TUNED, method, { params: { step } });
        expect(partBytes(r), `${method} ${step}`).to.be.greaterThan(bytes);
        expect(r.error!, `${method} ${step}`).to.be.lessThan(1.03 * error);
        [bytes, error] = [partBytes(r), r.error!];
      }
    }
  }).timeout(120_000);

  it('a size is met from below within 1 %, in bytes on disk; what is written verifies', async () => {
    for (const method of ['ecsq', 'lowrank-ecsq', 'auto']) {
      for (const bytes of [60_000, 150_000, 600_000]) {
        const r = await encode(BASE, TUNED, method, { target: { bytes } });
        expect(statSync(out).size).to.equal(r.bytes);
        expect(r.bytes, `${method} ${bytes}`).to.be.within(0.99 * bytes, bytes);
        expect((await drain(deltaVerify({ ...RUN, base: BASE, delta: out, tuned: undefined }))).mismatches).to.deep.equal([]);
      }
    }
  }).timeout(300_000);

  it('an error is met, with fewer bytes than any of the codecs that auto chooses from', async () => {
    const target = { maxError: 0.25 };
    const auto = await encode(BASE, TUNED, 'auto', { target });
    expect(auto.error).to.be.at.most(0.25);
    for (const method of ['ecsq', 'lowrank-ecsq']) {
      const r = await encode(BASE, TUNED, method, { target });
      expect(r.error).to.be.at.most(0.25);
      expect(auto.bytes).to.be.at.most(1.02 * r.bytes);
    }
  }).timeout(120_000);

  it('with room for everything auto is lossless', async () => {
    const r = await encode(BASE, TUNED, 'auto', { target: { bytes: 5_000_000 } });
    expect(r.error).to.equal(0);
    expect((await deltaInfo(out)).exact).to.equal(true);
  }).timeout(120_000);

  it('refuses: a size that the exact tensors alone exceed, auto without a target, unknown parameters', async () => {
    expect((await errorOf(() => encode(BASE, TUNED, 'auto', { target: { bytes: 5000 } }))).code).to.equal('TARGET_TOO_SMALL');
    expect((await errorOf(() => encode(BASE, TUNED, 'auto'))).code).to.equal('USAGE');
    expect((await errorOf(() => encode(BASE, TUNED, 'auto', { target: { ratio: 9 }, params: { rank: 3 } }))).code).to.equal('BAD_PARAMS');
    expect((await errorOf(() => encode(BASE, TUNED, 'lossless', { target: { ratio: 9 } }))).code).to.equal('NO_BUDGET');
  });
});
