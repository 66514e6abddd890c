/** Pruned checkpoints: what is removed and what is not, errors as stated, block by block, masks, resumed, any threads, and what is refused. */
import { expect } from 'chai';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeAs } from '../../core/float.js';
import type { ProgressEvent } from '../../core/events.js';
import { prepareFiles } from '../../formats/safetensors/prepared.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { StatsFile } from '../../formats/stats/file.js';
import { matrixOps, transposed } from '../../kernels/linalg/matrix-ops.js';
import { changeError } from '../../kernels/linalg/change-error.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { prune } from '../../pipelines/prune/prune.js';
import type { PruneReport } from '../../pipelines/prune/report.js';
import { drain, RUN } from '../support/adapters.js';
import { runCalibrate, dataOf } from '../support/calibration.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, TINY, writeSafetensors } from '../support/files.js';
import { modelFolder } from '../support/goldens.js';
import { DATA, HALF, IDS, optionsOf, runPrune, sameFile, statsOf, tensorsOf, zerosOf } from '../support/prune-runs.js';

const LLAMA = modelFolder('llama');
const GPT2 = modelFolder('gpt2');
const BASE = join(TINY, 'base');
const isLayer = (name: string): boolean => /\.(\w+_proj|c_attn|c_proj|c_fc)\.weight$/.test(name);
const sparsityOf = (metadata: Readonly<Record<string, string>>): unknown => JSON.parse(metadata['sparsity']!) as unknown;

describe('pipelines/prune', function () {
  this.timeout(180_000);
  const shared = tempDir();
  const at = (name: string): string => join(shared.path, name);
  let stats: string;
  let gptStats: string;

  before(async () => {
    stats = await statsOf(LLAMA, at('llama.stats'));
    gptStats = await statsOf(GPT2, at('gpt2.stats'));
  });
  after(() => shared[Symbol.dispose]());

  it('exactly the share of every row of the linear layers; everything else is the same, files beside the weights too', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'o');
    const report = await runPrune(BASE, out, { name: 'magnitude', target: { group: 'row', ratio: 0.3 } });
    const [before, after] = [await tensorsOf(BASE), await tensorsOf(out)];
    expect([...after.tensors.keys()]).to.deep.equal([...before.tensors.keys()]);
    let layers = 0;
    for (const [name, own] of after.tensors) {
      const old = before.tensors.get(name)!;
      expect([own.dtype, own.shape]).to.deep.equal([old.dtype, old.shape]);
      if (!isLayer(name)) {
        expect(Buffer.compare(own.bytes, old.bytes), name).to.equal(0);
        continue;
      }
      layers++;
      const [m, n] = own.shape as [number, number];
      for (let i = 0; i < m; i++) expect(zerosOf(own.values.subarray(i * n, (i + 1) * n)), name).to.equal(Math.floor(0.3 * n));
      expect(own.values.every((v, i) => v === 0 || v === old.values[i])).to.be.true;
    }
    expect(layers).to.equal(28);
    expect(report).to.deep.include({ layers: 28, method: 'magnitude', structure: 'unstructured', mode: 'weights', target: 0.3 });
    expect(report.bytes).to.equal(readFileSync(join(out, 'model.safetensors')).length);
    expect(sparsityOf(after.metadata)).to.deep.equal({ target: 0.3, achieved: Number(report.sparsity.toFixed(6)), structure: 'unstructured' });
    expect(JSON.parse(after.metadata['pith.prune']!)).to.deep.include({ source: report.source, mode: 'weights' });
    const side = (folder: string): Record<string, string> => Object.fromEntries(Object.entries(hashTree(folder)).filter(([f]) => f !== 'model.safetensors'));
    expect(side(out)).to.deep.equal(side(BASE));
  });

  it('the stated error is that of what is stored: by the Gram matrix, by square norms alone, by the weight; Conv1D the other way round', async () => {
    const ops = await matrixOps({ blasThreads: 1 });
    for (const [model, file, turned] of [
      [LLAMA, stats, false],
      [GPT2, gptStats, true],
    ] as const) {
      // prettier-ignore
      using dir = tempDir();
      const out = join(dir.path, 'o');
      const report = await runPrune(model, out, { stats: file });
      const [before, after] = [await tensorsOf(model), await tensorsOf(out)];
      using s = StatsFile.open(file);
      for (const t of report.tensors) {
        expect(t.errorOf).to.equal('output');
        const [old, own] = [before.tensors.get(t.name)!, after.tensors.get(t.name)!];
        const as = (v: Float32Array): Float32Array => (turned ? transposed(v, t.n, t.m) : v);
        const gram = s.read(t.name.slice(0, -'.weight'.length), 'inputGram');
        expect(t.error).to.be.closeTo(changeError(ops, as(old.values), as(own.values), t.m, t.n, { gram }).error, 1e-9);
        // by the norms of the inputs, not of the outputs
        const norms = s.read(t.name.slice(0, -'.weight'.length), 'inputSqNorm');
        const [w, what] = [as(old.values), as(own.values)];
        for (let i = 0; i < t.m; i += 7) {
          const scores = Array.from({ length: t.n }, (_, j) => Math.abs(w[i * t.n + j]!) * Math.sqrt(norms[j]!));
          const kept = scores.filter((_, j) => what[i * t.n + j] !== 0);
          const gone = scores.filter((_, j) => what[i * t.n + j] === 0);
          expect(gone.length).to.equal(Math.floor(t.n / 2));
          expect(Math.min(...kept)).to.be.at.least(Math.max(...gone) * (1 - 1e-6));
        }
      }
      const squares = await statsOf(model, join(dir.path, 'sq'), { statistics: ['inputSqNorm'] });
      const diagonal = await runPrune(model, join(dir.path, 'd'), { stats: squares });
      expect(new Set(diagonal.tensors.map((t) => t.errorOf))).to.deep.equal(new Set(['diagonal']));
      expect(sameFile(join(out, 'model.safetensors'), join(dir.path, 'd', 'model.safetensors'))).to.be.true;
      const weights = await runPrune(model, join(dir.path, 'w'), { name: 'magnitude' });
      expect(new Set(weights.tensors.map((t) => t.errorOf))).to.deep.equal(new Set(['weight']));
    }
  });

  it('block by block: each block by the inputs that the pruned ones before it give', async () => {
    for (const trueSequential of [false, true]) {
      using dir = tempDir();
      const out = join(dir.path, 'o');
      const report = await runPrune(LLAMA, out, { data: DATA, trueSequential });
      expect(report.mode).to.equal(trueSequential ? 'true-sequential' : 'sequential');
      // the first block alone, by the model's own statistics; the second one by those of the model whose first block is pruned
      const first = join(dir.path, 'first');
      const steps = trueSequential ? [/q_proj|k_proj|v_proj/, /o_proj/, /gate_proj|up_proj/, /down_proj/] : [/proj/];
      let model = LLAMA;
      for (const block of [0, 1]) {
        for (const [i, part] of steps.entries()) {
          const [s, next] = [join(dir.path, `s${block}${i}`), `${first}${block}${i}`];
          await runCalibrate(model, s, dataOf(IDS));
          await runPrune(model, next, { stats: s, selects: (w) => w.includes(`layers.${block}.`) && part.test(w) });
          model = next;
        }
      }
      const [right, own] = [await tensorsOf(model), await tensorsOf(out)];
      for (const [name, t] of own.tensors) {
        const other = right.tensors.get(name)!;
        const same = t.values.filter((v, i) => (v === 0) === (other.values[i] === 0)).length / Math.max(1, t.values.length);
        expect(same, name).to.be.above(0.999);
      }
      // the statistics of the model as it is choose others
      await runPrune(LLAMA, join(dir.path, 'one'), { stats });
      expect(sameFile(join(out, 'model.safetensors'), join(dir.path, 'one', 'model.safetensors'))).to.be.false;
      const once = await runPrune(LLAMA, join(dir.path, 'once'), { data: DATA, oneShot: true });
      expect(once.mode).to.equal('one-shot');
      const values = async (f: string): Promise<Map<string, unknown>> =>
        new Map([...(await tensorsOf(join(dir.path, f))).tensors].map(([n, t]) => [n, t.values]));
      expect(await values('once')).to.deep.equal(await values('one'));
    }
  });

  it('a sparse container reads as the dense result and restores to the same files; masks may be taken from it', async () => {
    using dir = tempDir();
    const [dense, file, back] = ['dense', 'half.safetensors', 'back'].map((name) => join(dir.path, name)) as [string, string, string];
    const half = { name: 'magnitude', target: HALF };
    const whole = await runPrune(BASE, dense, half);
    const small = await runPrune(BASE, file, { ...half, save: 'sparse' });
    expect(small.bytes).to.equal(statSync(file).size);
    expect(small.tensors.map((t) => ({ ...t, ms: 0 }))).to.deep.equal(whole.tensors.map((t) => ({ ...t, ms: 0 })));
    expect(small.bytes / whole.bytes).to.be.lessThan(0.55);
    await drain(deltaRestore({ ...RUN, base: undefined, delta: file, out: back, quality: 'exact', force: false, dryRun: false, resume: true }));
    expect(hashTree(back)).to.deep.equal(hashTree(dense));
    const again = join(dir.path, 'again');
    await runPrune(BASE, again, { choose: { masks: [file], combine: 'and' } });
    const [a, b] = [await tensorsOf(again), await tensorsOf(dense)];
    for (const [name, t] of b.tensors) expect(a.tensors.get(name)!.bytes, name).to.deep.equal(t.bytes);
    expect(readdirSync(dir.path).sort(), 'nothing else is left').to.deep.equal(['again', 'back', 'dense', 'half.safetensors']);
  });

  it('the same bytes with any number of threads', async () => {
    using dir = tempDir();
    const hashes = async (more: Parameters<typeof runPrune>[2]): Promise<void> => {
      const all: unknown[] = [];
      for (const threads of [1, 2, 4]) {
        const out = join(dir.path, 'o');
        await runPrune(BASE, out, { ...more, threads });
        all.push(hashTree(out));
        rmSync(out, { recursive: true });
      }
      expect(all[1]).to.deep.equal(all[0]);
      expect(all[2]).to.deep.equal(all[0]);
    };
    await hashes({ data: DATA });
    await hashes({ name: 'magnitude', target: { group: 'global', ratio: 0.4 } });
  });

  it('2:4 in every group; over all layers exactly as many as asked for, by one threshold', async () => {
    using dir = tempDir();
    await runPrune(LLAMA, join(dir.path, 'p'), { stats, target: { group: 'n:m', keep: 2, of: 4 } });
    const pattern = await tensorsOf(join(dir.path, 'p'));
    expect(sparsityOf(pattern.metadata)).to.deep.include({ target: 0.5, structure: '2:4' });
    for (const [name, t] of pattern.tensors) {
      if (isLayer(name)) for (let i = 0; i < t.values.length; i += 4) expect(zerosOf(t.values.subarray(i, i + 4)), name).to.equal(2);
    }
    const report = await runPrune(LLAMA, join(dir.path, 'g'), { name: 'magnitude', target: { group: 'global', ratio: 0.37 } });
    const [before, after] = [await tensorsOf(LLAMA), await tensorsOf(join(dir.path, 'g'))];
    let [zeros, total, most, least] = [0, 0, 0, Infinity];
    for (const [name, t] of after.tensors) {
      if (!isLayer(name)) continue;
      const old = before.tensors.get(name)!.values;
      t.values.forEach((v, i) => {
        total++;
        if (v === 0) [zeros, most] = [zeros + 1, Math.max(most, Math.abs(old[i]!))];
        else least = Math.min(least, Math.abs(v));
      });
    }
    expect(zeros).to.equal(Math.floor(0.37 * total));
    expect(least).to.be.at.least(most);
    expect(new Set(report.tensors.map((t) => t.sparsity.toFixed(3))).size).to.be.above(3);
  });

  it('only what is selected; shards stay as they are; again on the result: no other zeros', async () => {
    using dir = tempDir();
    const sharded = join(dir.path, 'shards');
    cpSync(LLAMA, sharded, { recursive: true });
    await using reader = await openCheckpoint(LLAMA);
    const views = await Promise.all([...reader.infos.keys()].map((n) => reader.read(n)));
    rmSync(join(sharded, 'model.safetensors'));
    const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    const half = Math.floor(views.length / 2);
    writeSafetensors(join(sharded, names[0]!), views.slice(0, half), { format: 'pt' });
    writeSafetensors(join(sharded, names[1]!), views.slice(half), { format: 'pt' });
    const weight_map = Object.fromEntries(views.map((v, i) => [v.name, names[i < half ? 0 : 1]!]));
    writeFileSync(join(sharded, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }));
    const out = join(dir.path, 'o');
    await runPrune(sharded, out, { name: 'magnitude', target: { group: 'layer', ratio: 0.5 }, selects: (w) => w.includes('mlp') });
    await using pruned = await openCheckpoint(out);
    expect(pruned.files.map((f) => [f.name, new Set(f.order)])).to.deep.equal(names.map((n) => [n, new Set(views.filter((v) => weight_map[v.name] === n).map((v) => v.name))])); // prettier-ignore
    const { tensors } = await tensorsOf(out);
    for (const [name, t] of tensors) expect(zerosOf(t.values) >= t.values.length / 2, name).to.equal(isLayer(name) && name.includes('mlp'));
    await runPrune(out, join(dir.path, 'again'), { name: 'magnitude', target: { group: 'layer', ratio: 0.5 }, selects: (w) => w.includes('mlp') });
    const again = await tensorsOf(join(dir.path, 'again'));
    for (const [name, t] of again.tensors) expect(t.values, name).to.deep.equal(tensors.get(name)!.values);
  });

  it('masks: saved, applied, combined; a pruned checkpoint is one', async () => {
    using dir = tempDir();
    const path = (name: string): string => join(dir.path, name);
    await runPrune(GPT2, path('a'), { name: 'magnitude', saveMask: path('a.mask') });
    await runPrune(GPT2, path('b'), { stats: gptStats, saveMask: path('b.mask') });
    const file = (name: string): string => join(path(name), 'model.safetensors');
    const [a, b] = [(await tensorsOf(path('a.mask'))).tensors, (await tensorsOf(path('b.mask'))).tensors];
    const values = (await tensorsOf(path('a'))).tensors;
    for (const [name, mask] of a) expect([...mask.values].map((v) => v === 0), name).to.deep.equal([...values.get(name)!.values].map((v) => v === 0)); // prettier-ignore
    const apply = async (out: string, masks: string[], combine: 'and' | 'or'): Promise<Awaited<ReturnType<typeof tensorsOf>>['tensors']> => {
      await runPrune(GPT2, path(out), { choose: { masks, combine } });
      return (await tensorsOf(path(out))).tensors;
    };
    const dense = (await tensorsOf(GPT2)).tensors;
    for (const source of [path('a.mask'), file('a')]) {
      for (const [name, t] of await apply('c', [source], 'and')) expect(t.values, name).to.deep.equal(values.get(name)!.values);
      rmSync(path('c'), { recursive: true });
    }
    const both = { and: await apply('and', [path('a.mask'), path('b.mask')], 'and'), or: await apply('or', [path('a.mask'), path('b.mask')], 'or') };
    for (const name of a.keys()) {
      const [x, y, w] = [a.get(name)!.values, b.get(name)!.values, dense.get(name)!.values];
      expect(both.and.get(name)!.values, name).to.deep.equal(w.map((v, i) => (x[i]! && y[i]! ? v : 0)));
      expect(both.or.get(name)!.values, name).to.deep.equal(w.map((v, i) => (x[i]! || y[i]! ? v : 0)));
    }
  });

  it('an update sets the kept weights of any mask, removes no other and loses less; the better methods lose less', async () => {
    for (const [model, file] of [
      [LLAMA, stats],
      [GPT2, gptStats],
    ] as const) {
      // prettier-ignore
      using dir = tempDir();
      const path = (name: string): string => join(dir.path, name);
      const mean = (r: PruneReport): number => r.tensors.reduce((sum, t) => sum + t.error, 0) / r.tensors.length;
      const wanda = await runPrune(model, path('w'), { stats: file, saveMask: path('m') });
      const zeros = (await tensorsOf(path('w'))).tensors;
      for (const name of ['admm', 'sparsegpt']) {
        const own = await runPrune(model, path(name), { stats: file, update: { name, params: {} } });
        const masked = await runPrune(model, path(`${name} of mask`), {
          stats: file,
          update: { name, params: {} },
          choose: { masks: [path('m')], combine: 'and' },
        });
        expect(mean(own), name).to.be.below(0.95 * mean(wanda));
        expect(own.update).to.equal(name);
        const [a, b] = [(await tensorsOf(path(name))).tensors, (await tensorsOf(path(`${name} of mask`))).tensors];
        for (const [tensor, { values }] of a) {
          expect(values, tensor).to.deep.equal(b.get(tensor)!.values);
          expect(values.every((v, i) => v === 0 || zeros.get(tensor)!.values[i] !== 0), tensor).to.be.true; // prettier-ignore
        }
        expect(mean(masked)).to.equal(mean(own));
      }
      const target = { group: 'usual', ratio: 0.5 } as const;
      const errors = [];
      for (const name of ['magnitude', 'sparsegpt', 'admm']) errors.push(mean(await runPrune(model, path(`by ${name}`), { stats: file, name, target })));
      expect(errors[1]).to.be.below(errors[0]!);
      expect(errors[2]).to.be.below(errors[1]!);
    }
  });

  it('what fine-tuning moved to zero, by the checkpoint before it', async () => {
    using dir = tempDir();
    const tuned = join(TINY, 'tuned');
    const more = { name: 'movement-proxy', target: { group: 'usual', ratio: 0.3 } as const, selects: (w: string) => w.includes('layers.0.') };
    await expectCode('USAGE', () => runPrune(tuned, join(dir.path, 'o'), more));
    await runPrune(tuned, join(dir.path, 'o'), { ...more, base: BASE });
    const [w0, w1, got] = [await tensorsOf(BASE), await tensorsOf(tuned), await tensorsOf(join(dir.path, 'o'))];
    const name = 'model.layers.0.mlp.up_proj.weight';
    const [a, b, c] = [w0, w1, got].map((t) => t.tensors.get(name)!.values);
    // S = W0 (W1 - W0): the least go
    const score = (i: number): number => Math.fround(a![i]! * Math.fround(b![i]! - a![i]!));
    const kept = Array.from(c!.keys()).filter((i) => c![i] !== 0);
    const gone = Array.from(c!.keys()).filter((i) => c![i] === 0 && b![i] !== 0);
    const most = gone.reduce((top, i) => Math.max(top, score(i)), -Infinity);
    const least = kept.reduce((low, i) => Math.min(low, score(i)), Infinity);
    expect(least).to.be.at.least(most);
    await expectCode('TENSOR_MISSING', () => runPrune(tuned, join(dir.path, 'p'), { ...more, base: LLAMA, selects: (w) => w.includes('layers.3.') }));
  });

  it('ended at any progress and begun again: the bytes of an undisturbed run', async () => {
    const cases = { sequential: { data: DATA }, layers: { stats }, global: { stats, target: { group: 'global', ratio: 0.5 } as const } };
    for (const [name, more] of Object.entries(cases)) {
      using dir = tempDir();
      const [right, out, mask] = [join(dir.path, 'right'), join(dir.path, 'o'), join(dir.path, 'm')];
      await runPrune(LLAMA, right, { ...more, saveMask: join(dir.path, 'right.mask') });
      let ended = 0;
      for (let n = 1; n <= 13; n += 3) {
        const abort = new AbortController();
        let ticks = 0;
        const options = optionsOf(LLAMA, out, { ...more, saveMask: mask, signal: abort.signal });
        const follow = async (): Promise<PruneReport | undefined> => {
          const run = prune(options);
          for (;;) {
            const step: IteratorResult<ProgressEvent, PruneReport> = await run.next();
            if (step.done === true) return step.value;
            if (step.value.type === 'progress' && ++ticks === n) abort.abort();
          }
        };
        const error = await errorOf(follow).catch(() => undefined);
        if (error !== undefined) {
          expect(error.code, name).to.equal('CANCELLED');
          expect(existsSync(out) || existsSync(mask)).to.be.false;
          ended++;
        } else {
          rmSync(out, { recursive: true });
          rmSync(mask);
        }
        await runPrune(LLAMA, out, { ...more, saveMask: mask });
        expect(hashTree(out), `${name} ${n}`).to.deep.equal(hashTree(right));
        expect(sameFile(mask, join(dir.path, 'right.mask'))).to.be.true;
        rmSync(out, { recursive: true });
        rmSync(mask);
        expect(readdirSync(dir.path).sort()).to.deep.equal(['right', 'right.mask']);
      }
      expect(ended, name).to.be.above(1);
    }
  });

  it('a warning where layers lose more than half of their output', async () => {
    using dir = tempDir();
    const warnings: string[] = [];
    for await (const e of prune(optionsOf(LLAMA, join(dir.path, 'o'), { stats, target: { group: 'row', ratio: 0.95 } }))) if (e.type === 'warning') warnings.push(e.code); // prettier-ignore
    expect(warnings).to.deep.equal(['QUALITY']);
    const mild = await runPrune(LLAMA, join(dir.path, 'p'), { stats, target: { group: 'row', ratio: 0.1 } });
    expect(mild.warnings).to.deep.equal([]);
  });

  it('a plan: bytes, disk and memory; nothing is written', async () => {
    using dir = tempDir();
    const report = await runPrune(LLAMA, join(dir.path, 'o'), { data: DATA, dryRun: true });
    const { hidden_size: width } = JSON.parse(readFileSync(join(LLAMA, 'config.json'), 'utf8')) as { hidden_size: number };
    const states = 4 * width * IDS.flat().length;
    expect(report.plan!.spoolBytes).to.be.above(2 * states);
    expect(report.plan!.bytes).to.be.above(0);
    expect(report.tensors).to.deep.equal([]);
    expect(readdirSync(dir.path)).to.deep.equal([]);
  });

  it('what cannot be done is refused by its code, before anything is written', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'o');
    const cases: [string, string, Parameters<typeof runPrune>[2]][] = [
      ['USAGE', LLAMA, {}],
      ['USAGE', LLAMA, { stats, selects: () => false }],
      ['USAGE', LLAMA, { data: DATA, target: { group: 'global', ratio: 0.5 } }],
      ['USAGE', LLAMA, { stats, update: { name: 'magnitude', params: {} } }],
      ['USAGE', LLAMA, { stats, base: GPT2 }],
      ['UNKNOWN_METHOD', LLAMA, { name: 'wonda' }],
      ['BAD_PARAMS', LLAMA, { stats, params: { blocks: 3 } }],
      ['STATS_MISSING', GPT2, { stats }],
      ['NOT_STATS', LLAMA, { stats: join(LLAMA, 'model.safetensors') }],
      ['NOT_FOUND', LLAMA, { stats: join(dir.path, 'none') }],
      ['NOT_FOUND', join(dir.path, 'none'), { name: 'magnitude' }],
      ['TENSOR_MISSING', LLAMA, { choose: { masks: [GPT2], combine: 'and' } }],
      ['MEMORY_BUDGET', LLAMA, { stats, maxMemoryBytes: 1e6 }],
    ];
    for (const [code, model, more] of cases) {
      const error = await errorOf(() => runPrune(model, out, more));
      expect(error.code, `${code}: ${error.message}`).to.equal(code);
      expect(readdirSync(dir.path)).to.deep.equal([]);
    }
    writeFileSync(out, '');
    await expectCode('OUTPUT_EXISTS', () => runPrune(LLAMA, out, { stats }));
    await expectCode('OUTPUT_EXISTS', () => runPrune(LLAMA, join(dir.path, 'p'), { stats, saveMask: out }));
    expect(readdirSync(dir.path).filter((f) => !f.includes('partial'))).to.deep.equal(['o']);
  });

  it('statistics of another model; values that are not finite, by tensor', async () => {
    using dir = tempDir();
    const other = join(dir.path, 'other');
    cpSync(LLAMA, other, { recursive: true });
    const bad = 'model.layers.1.mlp.up_proj.weight';
    const broken = async (value: number): Promise<void> => {
      await using reader = await openCheckpoint(LLAMA);
      const views = await Promise.all([...reader.infos.keys()].map((n) => reader.read(n)));
      const changed = views.map((v) => {
        if (v.name !== bad) return v;
        const values = new Float32Array(v.shape[0]! * v.shape[1]!).fill(0.5);
        values[3] = value;
        return { ...v, bytes: encodeAs(v.dtype as 'F32', values) };
      });
      writeSafetensors(join(other, 'model.safetensors'), changed, { format: 'pt' });
    };
    await broken(2);
    await expectCode('STATS_MODEL', () => runPrune(other, join(dir.path, 'o'), { stats }));
    expect(readdirSync(dir.path), 'nothing is kept of it').to.deep.equal(['other']);
    await broken(Number.NaN);
    const error = await expectCode('NOT_FINITE', () => runPrune(other, join(dir.path, 'o'), { name: 'magnitude' }));
    expect(error.message).to.include(bad);
    const nan = join(dir.path, 'nan.stats');
    await statsOf(LLAMA, nan);
    const bytes = readFileSync(nan);
    bytes.fill(0xff, bytes.readUIntLE(0, 6) + 8);
    writeFileSync(nan, bytes);
    const damaged = await expectCode('NOT_FINITE', () => runPrune(LLAMA, join(dir.path, 'p'), { stats: nan }));
    expect(damaged.message).to.include('inputSqNorm of module');
    expect(existsSync(join(dir.path, 'o')) || existsSync(join(dir.path, 'p'))).to.be.false;
  });

  it('prepared files: other metadata of the same length in place, none of another', () => {
    using dir = tempDir();
    const info = { name: 'a', dtype: 'F32' as const, shape: [2] };
    const files = prepareFiles(join(dir.path, 'f'), [info], { single: true, metadata: { share: '0.0' } });
    const place = files.places.get('a')!;
    files.restate({ share: '0.5' });
    expect(readFileSync(place.file, 'latin1')).to.include('"share":"0.5"');
    expect(() => files.restate({ share: '0.123456789' })).to.throw('another length');
  });
});
