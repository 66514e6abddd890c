/** What every lossy delta codec of the registry does with tensors that are no plain pair of finite matrices, and what its rate curve promises. */
import { expect } from 'chai';
import { join } from 'node:path';
import { DTYPES } from '../../core/dtype.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { loadMethod, methodNames } from '../../methods/index.js';
import type { Ctx } from '../../methods/define.js';
import type { DeltaCodec, TensorPlan, TensorSource } from '../../methods/kinds.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { drain, encodePair, loadBytes, restoreTo, RUN, view } from '../support/delta-files.js';
import { expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const rng = new Rng(6);
const weights = (name: string, dtype: DenseDType, shape: number[]): TensorView =>
  view(
    name,
    dtype,
    shape,
    rng.normals(shape.reduce((a, b) => a * b, 1)).map((v) => v * 0.02),
  );
const moved = (v: TensorView): TensorView => ({ ...v, bytes: encodeAs(v.dtype as DenseDType, Float32Array.from(decodeF32(v.dtype, v.bytes), (x) => x + 0.002 * rng.normal())) }); // prettier-ignore
const poisoned = (v: TensorView, value: number): TensorView => ({ ...v, bytes: Buffer.concat([encodeAs(v.dtype as DenseDType, Float32Array.of(value)), v.bytes.subarray(DTYPES[v.dtype].bits / 8)]) }); // prettier-ignore

/** Tensors that must come back bit for bit from every codec. */
const EXACT = ['scalar', 'empty', 'no rows', 'vector', 'nan', 'inf', 'same', 'integers', 'added'];

function pair(): { base: TensorView[]; tuned: TensorView[] } {
  const base = [
    weights('w.BF16', 'BF16', [65, 130]),
    weights('w.F16', 'F16', [33, 70]),
    weights('w.F32', 'F32', [128, 31]),
    weights('conv', 'BF16', [10, 6, 3, 3]),
  ];
  base.push(weights('tall', 'BF16', [300, 9]), weights('two', 'F32', [2, 2]), weights('row', 'BF16', [1, 40]), weights('column', 'BF16', [40, 1]));
  base.push(weights('scalar', 'F32', []), weights('empty', 'BF16', [0, 8]), weights('no rows', 'F16', [8, 0]), weights('vector', 'BF16', [50]));
  base.push(weights('nan', 'BF16', [40, 40]), weights('inf', 'F16', [40, 40]), weights('same', 'BF16', [40, 40]), weights('grown', 'BF16', [40, 40]));
  const tuned = base.map((v) => (v.name === 'same' ? v : moved(v)));
  const at = (name: string): number => tuned.findIndex((v) => v.name === name);
  tuned[at('nan')] = poisoned(tuned[at('nan')]!, NaN);
  tuned[at('inf')] = poisoned(tuned[at('inf')]!, -Infinity);
  const grown = tuned[at('grown')]!;
  tuned[at('grown')] = { ...grown, shape: [44, 40], bytes: Buffer.concat([grown.bytes, weights('more', 'BF16', [4, 40]).bytes]) };
  const integers = (n: number): TensorView => ({
    name: 'integers',
    dtype: 'I32',
    shape: [6, 6],
    bytes: new Uint8Array(Int32Array.from({ length: 36 }, (_, i) => i * n).buffer),
  });
  base.push(integers(3));
  tuned.push(integers(5), weights('added', 'F32', [12, 12]));
  return { base, tuned };
}

/** Codecs whose curves are estimates that a run corrects; the others state what they will take and leave. */
const PREDICTED = new Set(['ere', 'ecsq', 'lowrank-ecsq']);
const CTX: Ctx = { device: 'cpu', rng: new Rng(7), blasThreads: 1, memoryBytes: 1e9, report: () => undefined, checkpointCancel: () => undefined };
const sourceOf = (v: TensorView): TensorSource => ({ ...v, byteLength: v.bytes.length, readInto: async (at, to) => to.set(v.bytes.subarray(at, at + to.length)) }); // prettier-ignore
const planOf = (v: TensorView): TensorPlan => ({ ...v, role: 'linear', hasBase: true });

/** Codes one tensor at one point in memory: bytes of its parts and ||What - W1||^2; undefined when it is declined. */
async function codeOne(codec: DeltaCodec, base: TensorView, tuned: TensorView, point: number): Promise<{ bytes: number; errorSq: number } | undefined> {
  const parts = new Map<string, { bytes: Buffer; dtype: TensorView['dtype']; shape: readonly number[] }>();
  const at = (part: string) => parts.get(part)!;
  const sink = {
    write: async (part: string, position: number, bytes: Uint8Array) => {
      const old = parts.get(part)?.bytes ?? Buffer.alloc(0);
      const all = Buffer.alloc(Math.max(old.length, position + bytes.length));
      old.copy(all);
      all.set(bytes, position);
      parts.set(part, { bytes: all, dtype: 'U8', shape: [] });
    },
    declare: (part: string, dtype: TensorView['dtype'], shape: readonly number[]) =>
      void parts.set(part, { ...(parts.get(part) ?? { bytes: Buffer.alloc(0) }), dtype, shape }),
  };
  const info = await codec.encode(CTX, sourceOf(base), sourceOf(tuned), sink, codec.budget!.assign(point));
  if (info.declined === true) return undefined;
  const out = new Uint8Array(tuned.bytes.length);
  await codec.decode(
    CTX,
    sourceOf(base),
    {
      info: (part) => ({ name: part, dtype: at(part).dtype, shape: at(part).shape }),
      read: async (part, from = 0, to = at(part).bytes.length) => Uint8Array.from(at(part).bytes.subarray(from, to)),
      readInto: async (part, from, target) => target.set(at(part).bytes.subarray(from, from + target.length)),
    },
    tuned,
    { write: async (position, bytes) => out.set(bytes, position) },
  );
  const [got, want] = [decodeF32(tuned.dtype, out), decodeF32(tuned.dtype, tuned.bytes)];
  return { bytes: [...parts.values()].reduce((sum, p) => sum + p.bytes.length, 0), errorSq: got.reduce((sum, v, i) => sum + (v - want[i]!) ** 2, 0) };
}

const lossy: string[] = [];
for (const name of methodNames('delta')) if (!(await loadMethod('delta', name)).create({}).lossless) lossy.push(name);

for (const method of lossy) {
  describe(`conformance: tensors of delta codec ${method}`, () => {
    const dir = tempDir();
    after(() => dir[Symbol.dispose]());
    const at = (name: string): string => join(dir.path, `${name}.safetensors`);
    const files = { base: at('b'), tuned: at('t') };
    const { base, tuned } = pair();
    before(() => {
      writeSafetensors(files.base, base);
      writeSafetensors(files.tuned, tuned);
    });

    it('every shape and type comes back as the file says; what is no pair of finite matrices exactly', async () => {
      const r = await encodePair(files, at('d'), method);
      expect(r.tensors.find((t) => t.name === 'same')!.method).to.equal('identical');
      // ere keeps 95 % of the energy, which pays for few matrices of noise
      const coded = r.tensors.filter((t) => t.method === method).map((t) => t.name);
      expect(coded).to.include.members(method === 'ere' ? ['w.F32'] : ['w.BF16', 'w.F16', 'w.F32', 'conv', 'grown']);
      await restoreTo(files.base, at('d'), at('back'));
      const [got, want] = [await loadBytes(at('back')), await loadBytes(files.tuned)];
      expect([...got.keys()].sort()).to.deep.equal([...want.keys()].sort());
      for (const name of EXACT) expect(Buffer.compare(got.get(name)!, want.get(name)!), name).to.equal(0);
      expect(Buffer.compare(got.get('grown')!.subarray(3200), want.get('grown')!.subarray(3200))).to.equal(0);
      expect((await drain(deltaVerify({ ...RUN, base: files.base, delta: at('d'), tuned: undefined }))).ok).to.equal(true);
      await encodePair(files, at('again'), method, {}, { threads: 1 });
      expect(hashTree(at('again'))).to.deep.equal(hashTree(at('d')));
    });

    it('its rate curve: bytes do not fall, errors do not rise, and both are what encoding gives', async () => {
      const codec = (await loadMethod('delta', method)).create({});
      const [b, t] = [base, tuned].map((views) => views.find((v) => v.name === 'w.F32')!) as [TensorView, TensorView];
      expect(codec.accepts(planOf(t))).to.equal(true);
      const curve = await codec.budget!.rates(CTX, sourceOf(b), sourceOf(t), 0.125);
      expect(curve.bytes.length).to.be.greaterThan(1);
      let checked = 0;
      for (let p = 0; p < curve.bytes.length; p++) {
        if (p > 0) expect(curve.bytes[p]).to.be.at.least(curve.bytes[p - 1]!);
        if (p > 0) expect(curve.errorSq[p]).to.be.at.most(curve.errorSq[p - 1]!);
        const real = await codeOne(codec, b, t, p);
        if (real === undefined) continue;
        checked++;
        if (!PREDICTED.has(method)) expect(Math.abs(real.bytes - curve.bytes[p]!), `bytes at ${p}`).to.be.at.most(4);
        if (!PREDICTED.has(method)) expect(Math.sqrt(real.errorSq / curve.deltaSq)).to.be.closeTo(Math.sqrt(curve.errorSq[p]! / curve.deltaSq), 0.02);
      }
      expect(checked).to.be.greaterThan(0);
    });

    it('a base that is missing or of another type is refused, and so are parts of another shape', async () => {
      const codec = (await loadMethod('delta', method)).create({});
      const parts = {
        info: (name: string) => ({ name, dtype: 'U8' as const, shape: [3, 1] }),
        read: async () => new Uint8Array(3),
        readInto: async () => undefined,
      };
      const sink = { write: async () => undefined };
      await expectCode('FACTORS_MALFORMED', () => codec.decode(CTX, undefined, parts, tuned[0]!, sink));
      await expectCode('FACTORS_MALFORMED', () => codec.decode(CTX, sourceOf(base[0]!), parts, tuned[0]!, sink));
    });
  });
}
