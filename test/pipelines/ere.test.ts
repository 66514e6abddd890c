/** ERE from file to file: the sheet's F2 figures, factor formats, budgets, rules for what is not a matrix, the same bytes everywhere. */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { loadBlas } from '../../kernels/backend/blas.js';
import { exactSvd } from '../../kernels/linalg/svd.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import type { RestoreReport } from '../../pipelines/delta-reports.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { openAny } from '../../workers/open.js';
import { errorOf } from '../support/expect-error.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { BIN, hashTree, tempDir, TINY, writeSafetensors } from '../support/files.js';
import { distance, f2Delta, frobenius } from '../support/random-matrix.js';

const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const WRITE = { force: false, dryRun: false, resume: true };
const [BASE, TUNED] = [join(TINY, 'base'), join(TINY, 'tuned')];

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}
const encode = (base: string, tuned: string, out: string, params: object, more: Partial<EncodeOptions> = {}): Promise<EncodeReport> =>
  drain(deltaEncode({ ...RUN, ...WRITE, base, tuned, out, method: 'ere', params: { ...params }, selects: () => true, ...more }));
const restore = (base: string, delta: string, out: string): Promise<RestoreReport> => drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out }));
const view = (name: string, dtype: DenseDType, shape: number[], values: Float32Array): TensorView => ({ name, dtype, shape, bytes: encodeAs(dtype, values) });

async function load(path: string): Promise<Map<string, Float32Array>> {
  await using reader = await openAny(path);
  const out = new Map<string, Float32Array>();
  for (const [name, info] of reader.infos) {
    const bytes = new Uint8Array(info.shape.reduce((a, b) => a * b, 1) * (info.dtype === 'F32' ? 4 : 2));
    await reader.readInto(name, 0, bytes);
    out.set(name, Float32Array.from(decodeF32(info.dtype, bytes)));
  }
  return out;
}

/** ||what - tuned|| / ||tuned - base|| over the named tensors, from the files. */
async function errorOfFiles(what: string, names: readonly string[]): Promise<number> {
  const [w, w1, w0] = [await load(what), await load(TUNED), await load(BASE)];
  let [error, delta] = [0, 0];
  for (const n of names) {
    error += distance(w.get(n)!, w1.get(n)!) ** 2;
    delta += distance(w1.get(n)!, w0.get(n)!) ** 2;
  }
  return Math.sqrt(error / delta);
}

describe('pipelines/delta ere', () => {
  describe('F2 of the sheet', () => {
    const dir = tempDir();
    const { delta, s, m, n } = f2Delta(new Rng(2));
    const w0 = new Rng(3).normals(m * n).map((v) => v * 0.02);
    const [b, t] = [join(dir.path, 'b.safetensors'), join(dir.path, 't.safetensors')];
    let count = 0;
    const error = async (params: object): Promise<number> => (await encode(b, t, join(dir.path, `${count++}.safetensors`), params)).error!;
    before(() => {
      writeSafetensors(b, [view('w', 'F32', [m, n], w0)]);
      writeSafetensors(t, [view('w', 'F32', [m, n], w0.map((v, i) => v + delta[i]!))]); // prettier-ignore
    });
    after(() => dir[Symbol.dispose]());

    for (const [rank, measured] of [
      [16, 0.374],
      [32, 0.147],
      [64, 0.035],
      [128, 0.02],
    ] as const) {
      // prettier-ignore
      it(`rank ${rank}: the optimum ${measured}, float factors within 1 %, int8 within its bound`, async () => {
        const optimum = frobenius(s.subarray(rank)) / frobenius(s);
        expect(Math.abs(optimum - measured)).to.be.lessThan(6e-4);
        for (const factors of ['f32', 'f16', 'bf16']) expect((await error({ rank, factors })) / optimum, factors).to.be.within(0.999, 1.01);
        expect((await error({ rank, factors: 'int8' })) / optimum).to.be.within(0.999, rank <= 64 ? 1.05 : 1.15);
      });
    }

    it('more components, less error; int4 is coarser than int8', async () => {
      let last = 1;
      for (const rank of [1, 2, 4, 8, 24, 48, 96]) {
        const e = await error({ rank });
        expect(e).to.be.lessThan(last);
        last = e;
      }
      const [int8, int4] = [await error({ rank: 48, factors: 'int8' }), await error({ rank: 48, factors: 'int4' })];
      expect(int4).to.be.within(int8, 3 * int8);
    });

    it('energy: the least rank that keeps the share', async () => {
      for (const energy of [0.5, 0.9, 0.99]) {
        const out = join(dir.path, `energy-${energy}.safetensors`);
        const r = await encode(b, t, out, { energy, factors: 'f32' });
        const rank = Number(r.tensors[0]!.facts!['rank']);
        const kept = (k: number): number => (frobenius(s.subarray(0, k)) / frobenius(s)) ** 2;
        expect(kept(rank)).to.be.at.least(energy - 1e-6);
        expect(kept(rank - 1)).to.be.lessThan(energy + 1e-6);
        expect(1 - r.error! ** 2).to.be.at.least(energy - 1e-5);
      }
    });
  });

  it('the tiny pair: the stated error is that of the restored files, 1-D tensors exact, verified, side files equal', async () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const r = await encode(BASE, TUNED, d, { rank: 16 });
    const back = join(dir.path, 'back');
    expect((await restore(BASE, d, back)).exact).to.equal(false);
    const lossy = r.tensors.filter((t) => t.method === 'ere').map((t) => t.name);
    expect(lossy.length).to.be.greaterThan(20);
    expect(Math.abs(r.error! / (await errorOfFiles(back, lossy)) - 1)).to.be.lessThan(1e-6);
    const [w, w1] = [await load(back), await load(TUNED)];
    for (const t of r.tensors.filter((t) => t.method !== 'ere')) expect(distance(w.get(t.name)!, w1.get(t.name)!), t.name).to.equal(0);
    expect((await drain(deltaVerify({ ...RUN, base: BASE, delta: d, tuned: undefined }))).ok).to.equal(true);
    for (const [name, sha] of Object.entries(hashTree(TUNED))) if (!name.endsWith('.safetensors')) expect(hashTree(back)[name], name).to.equal(sha);
    // every matrix: its residual is that of the best rank-16 approximation, or it is stored exactly
    const q = 'model.layers.0.self_attn.q_proj.weight';
    const w0 = await load(BASE);
    const delta = Float64Array.from(w1.get(q)!, (v, i) => v - w0.get(q)![i]!);
    const shape = (await deltaInfo(d)).tensors.find((t) => t.name === q)!.shape;
    const svd = exactSvd(delta, shape[0]!, shape[1]!, { blas: loadBlas() });
    const optimum = frobenius(svd.s.subarray(16)) / frobenius(svd.s);
    expect(Number(r.tensors.find((t) => t.name === q)!.facts!['residual']) / optimum).to.be.within(1 - 1e-4, 1.002);
  });

  it('the same file at 1, 2 and 4 threads and for a seed', async () => {
    using dir = tempDir();
    const shas = new Set<string>();
    for (const threads of [1, 2, 4, 2]) {
      const out = join(dir.path, `${shas.size}-${threads}-${Math.random()}.safetensors`);
      await encode(BASE, TUNED, out, { rank: 8 }, { threads });
      shas.add(hashTree(out)['']!);
    }
    expect(shas.size).to.equal(1);
  });

  it('restores to the same bytes on plain wasm and on BLAS', () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const pith = (args: string[], env: object): void => {
      const r = spawnSync(process.execPath, [BIN, 'delta', ...args, '--base', BASE, '--quiet'], { env: { ...process.env, ...env }, encoding: 'utf8' });
      expect(r.status, r.stderr).to.equal(0);
    };
    pith(['encode', '--tuned', TUNED, '--method', 'ere', '--rank', '8', '--device', 'cpu', '-o', d], {});
    pith(['restore', '--delta', d, '-o', join(dir.path, 'a')], {});
    pith(['restore', '--delta', d, '-o', join(dir.path, 'b')], { PITH_BLAS: 'none' });
    expect(hashTree(join(dir.path, 'a'))).to.deep.equal(hashTree(join(dir.path, 'b')));
    // encoded without a BLAS, it verifies with one
    const e = join(dir.path, 'e.safetensors');
    pith(['encode', '--tuned', TUNED, '--method', 'ere', '--rank', '8', '--device', 'cpu', '-o', e], { PITH_BLAS: 'none' });
    pith(['verify', '--delta', e], {});
  });

  it('a budget is met and not wasted, and shared better than equal ranks would', async () => {
    using dir = tempDir();
    const at = (name: string): string => join(dir.path, `${name}.safetensors`);
    const equal = await encode(BASE, TUNED, at('equal'), { rank: 12, factors: 'int8' });
    const shared = await encode(BASE, TUNED, at('shared'), { factors: 'int8' }, { target: { bytes: equal.bytes } });
    expect(statSync(at('shared')).size).to.equal(shared.bytes);
    expect(shared.bytes).to.be.within(0.97 * equal.bytes, equal.bytes);
    expect(shared.error!).to.be.lessThan(equal.error!);
    const ratio = await encode(BASE, TUNED, at('ratio'), { factors: 'int8' }, { target: { ratio: 10 } });
    expect(ratio.bytes).to.be.within(0.097 * ratio.rawBytes, 0.1 * ratio.rawBytes);
    const limit = await encode(BASE, TUNED, at('limit'), {}, { target: { maxError: 0.4 } });
    expect(limit.error!).to.be.within(0.36, 0.401);
  });

  it('embeddings: exact, with a rank of their own, with a budget of their own', async () => {
    using dir = tempDir();
    const run = async (embeddings: EncodeOptions['embeddings'], target?: EncodeOptions['target']): Promise<EncodeReport> => {
      const out = join(dir.path, `${readdirSync(dir.path).length}.safetensors`);
      const more = { ...(embeddings === undefined ? {} : { embeddings }), ...(target === undefined ? {} : { target }) };
      return encode(BASE, TUNED, out, target === undefined ? { rank: 8 } : { factors: 'int8' }, more);
    };
    const embed = (r: EncodeReport) => r.tensors.find((t) => t.name === 'model.embed_tokens.weight')!;
    const rank = (t: EncodeReport['tensors'][number]): unknown => t.facts?.['rank'];
    expect(rank(embed(await run(undefined)))).to.equal(8);
    expect(embed(await run('lossless')).method).to.equal('lossless');
    const own = await run({ params: { rank: 3 } });
    expect(rank(embed(own))).to.equal(3);
    expect(rank(own.tensors.find((t) => t.name.endsWith('0.mlp.up_proj.weight'))!)).to.equal(8);
    const budget = await run({ bytes: 40_000 }, { ratio: 10 });
    expect(embed(budget).bytes).to.be.within(20_000, 40_000);
    expect(budget.ratio).to.be.at.most(0.1);
  });

  it('what is no pair of finite matrices is stored exactly; grown rows too', async () => {
    using dir = tempDir();
    const rng = new Rng(4);
    const w = (name: string, dtype: DenseDType, shape: number[]): TensorView => view(name, dtype, shape, rng.normals(shape.reduce((a, b) => a * b, 1)));
    const moved = (v: TensorView): TensorView => ({ ...v, bytes: encodeAs(v.dtype as DenseDType, Float32Array.from(decodeF32(v.dtype, v.bytes), (x) => x + 0.05 * rng.normal())) }); // prettier-ignore
    const base = [w('a', 'BF16', [60, 40]), w('norm', 'BF16', [40]), w('nan', 'BF16', [60, 40]), w('inf', 'F16', [60, 40]), w('embed', 'BF16', [50, 40])];
    base.push(w('same', 'F32', [30, 30]), w('conv', 'F32', [16, 8, 3, 3]), w('thin', 'BF16', [2, 3]), w('reshaped', 'BF16', [6, 20]), w('removed', 'F32', [9]));
    const find = (name: string): TensorView => base.find((v) => v.name === name)!;
    const tuned = ['a', 'norm', 'nan', 'inf', 'conv', 'thin'].map((name) => moved(find(name)));
    const poison = (name: string, value: number): void => {
      tuned.find((v) => v.name === name)!.bytes.set(encodeAs(find(name).dtype as DenseDType, Float32Array.of(value)), 80);
    };
    poison('nan', NaN);
    poison('inf', Infinity);
    const grown = moved(find('embed'));
    tuned.push({ ...grown, shape: [57, 40], bytes: Buffer.concat([grown.bytes, w('more', 'BF16', [7, 40]).bytes]) }, find('same'));
    tuned.push(w('reshaped', 'BF16', [20, 6]), w('added', 'F32', [12, 12]));
    const [b, t, d, back] = ['b', 't', 'd', 'back'].map((n) => join(dir.path, `${n}.safetensors`)) as [string, string, string, string];
    writeSafetensors(b, base);
    writeSafetensors(t, tuned);
    const r = await encode(b, t, d, { rank: 4 });
    const method = Object.fromEntries(r.tensors.map((x) => [x.name, x.method]));
    expect(method).to.deep.equal({
      a: 'ere', norm: 'lossless', nan: 'lossless', inf: 'lossless', conv: 'ere', thin: 'lossless', embed: 'ere', same: 'identical', reshaped: 'lossless', added: 'lossless',
    }); // prettier-ignore
    await restore(b, d, back);
    const [got, want] = [await load(back), await load(t)];
    expect([...got.keys()].sort()).to.deep.equal([...want.keys()].sort());
    for (const name of ['norm', 'nan', 'inf', 'thin', 'same', 'reshaped', 'added']) expect(got.get(name), name).to.deep.equal(want.get(name));
    expect(got.get('embed')!.subarray(50 * 40)).to.deep.equal(want.get('embed')!.subarray(50 * 40));
    expect(distance(got.get('a')!, want.get('a')!)).to.be.greaterThan(0);
    expect((await drain(deltaVerify({ ...RUN, base: b, delta: d, tuned: undefined }))).ok).to.equal(true);
  });

  it('a cancelled run goes on to the same file', async () => {
    using dir = tempDir();
    const [whole, d] = [join(dir.path, 'whole.safetensors'), join(dir.path, 'd.safetensors')];
    const target = { ratio: 10 };
    await encode(BASE, TUNED, whole, { factors: 'int8' }, { target });
    const stop = new AbortController();
    let seen = 0;
    const cut = deltaEncode({
      ...RUN,
      ...WRITE,
      signal: stop.signal,
      base: BASE,
      tuned: TUNED,
      out: d,
      method: 'ere',
      params: { factors: 'int8' },
      target,
      selects: () => true,
    });
    const error = await errorOf(async () => {
      for await (const event of cut) if (event.type === 'tensor.done' && ++seen === 12) stop.abort();
    });
    expect(error.code).to.equal('CANCELLED');
    expect(readdirSync(dir.path).sort()).to.deep.equal(['d.safetensors.pith-partial', 'whole.safetensors']);
    await encode(BASE, TUNED, d, { factors: 'int8' }, { target });
    expect(hashTree(d)).to.deep.equal(hashTree(whole));
  });

  it('targets that cannot be met, methods without one, wrong parameters', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'd.safetensors');
    const code = async (run: () => Promise<unknown>): Promise<string> => {
      const e = await errorOf(run);
      expect(e.exitCode).to.equal(64);
      return e.code;
    };
    expect(await code(() => encode(BASE, TUNED, out, {}, { target: { bytes: 20_000 } }))).to.equal('TARGET_TOO_SMALL');
    expect(await code(() => encode(BASE, TUNED, out, {}, { method: 'lossless', target: { ratio: 10 } }))).to.equal('NO_BUDGET');
    for (const params of [{ rank: 0 }, { rank: 2.5 }, { energy: 0 }, { energy: 1.5 }, { rank: 2, energy: 0.5 }, { factors: 'int3' }, { ranks: 2 }]) {
      expect(await code(() => encode(BASE, TUNED, out, params)), JSON.stringify(params)).to.equal('BAD_PARAMS');
    }
    expect(readdirSync(dir.path).filter((n) => !n.endsWith('.pith-partial'))).to.deep.equal([]);
  });

  it('a damaged or another base is refused', async () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    await encode(BASE, TUNED, d, { rank: 4 });
    const other = join(dir.path, 'other');
    mkdirSync(other);
    cpSync(TUNED, other, { recursive: true });
    const e = await errorOf(() => restore(other, d, join(dir.path, 'back')));
    expect([e.code, e.exitCode]).to.deep.equal(['WRONG_BASE', 65]);
    expect(readdirSync(dir.path)).to.not.include('back');
  });
});
