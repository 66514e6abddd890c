/** Factorized checkpoints: read as the dense model they stand for, errors as stated, ranks as asked for, resumed, and what is refused. */
import { expect } from 'chai';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { StatsFile } from '../../formats/stats/file.js';
import { transposed } from '../../kernels/linalg/matrix-ops.js';
import { factorize } from '../../pipelines/factorize/factorize.js';
import { energyRank, sharedRanks, uniformRank } from '../../pipelines/factorize/ranks.js';
import { openAny } from '../../workers/open.js';
import { load, random, view, writeBase } from '../support/adapters.js';
import { dataOf } from '../support/calibration.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { outputError } from '../support/factor-fixtures.js';
import { hashTree, tempDir } from '../support/files.js';
import { modelFolder } from '../support/goldens.js';
import { logitsOf } from '../support/models.js';
import { setupBackend } from '../../kernels/backend/setup.js';
import { distance, frobenius } from '../support/random-matrix.js';
import { IDS, optionsOf, runFactorize, statsOf } from '../support/factorizing.js';

const LLAMA = modelFolder('llama');
const METHODS = ['svd', 'fwsvd', 'asvd', 'svd-llm', 'gfwsvd'];

/** Plain f32 sums, k ascending. */
function plainProduct(a: Float32Array, b: Float32Array, m: number, rank: number, n: number): Float32Array {
  const out = new Float32Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < rank; k++) for (let j = 0; j < n; j++) out[i * n + j] = Math.fround(out[i * n + j]! + Math.fround(a[i * rank + k]! * b[k * n + j]!));
  }
  return out;
}

async function values(reader: CheckpointReader, name: string): Promise<Float32Array> {
  const { dtype, bytes } = await reader.read(name);
  return decodeF32(dtype, bytes);
}

describe('pipelines/factorize', function () {
  this.timeout(120_000);
  const shared = tempDir();
  let stats = '';

  before(async () => {
    stats = await statsOf(LLAMA, join(shared.path, 'stats.safetensors'));
  });
  after(() => shared[Symbol.dispose]());

  for (const name of METHODS) {
    it(`${name}: ranks by the rule; the stated errors are those of what is stored`, async () => {
      using dir = tempDir();
      const out = join(dir.path, 'out');
      const report = await runFactorize(LLAMA, out, { name, stats });
      await using stored = await openCheckpoint(out);
      await using dense = await openAny(LLAMA);
      using s = StatsFile.open(stats);
      expect(report.layers.length).to.be.above(6);
      let parameters = 0;
      for (const l of report.layers) {
        expect(l.rank).to.equal(Math.floor((0.6 * l.m * l.n) / (l.m + l.n)));
        parameters += l.rank! * (l.m + l.n);
        const [a, b, w] = [
          await values(stored, `${l.name}.ALinear.weight`),
          await values(stored, `${l.name}.BLinear.weight`),
          await values(dense, `${l.name}.weight`),
        ];
        const what = plainProduct(a, b, l.m, l.rank!, l.n);
        expect(l.weightError / (distance(what, w) / frobenius(w))).to.be.closeTo(1, 1e-4);
        const error = outputError(what, { name: l.name, m: l.m, n: l.n, w }, s.read(l.name, 'inputGram'));
        expect(l.outputError! / error).to.be.closeTo(1, 1e-3);
        if (name === 'svd-llm') expect(l.error / error).to.be.closeTo(1, 1e-2);
        if (name === 'svd') expect(l.error / l.weightError).to.be.closeTo(1, 1e-3);
      }
      expect(report.kept).to.be.closeTo(parameters / report.layers.reduce((sum, l) => sum + l.m * l.n, 0), 1e-12);
      expect(report.rawParameters - report.parameters).to.equal(report.layers.reduce((sum, l) => sum + l.m * l.n, 0) - parameters);
      expect(existsSync(`${out}.pith-partial`)).to.be.false;
    });
  }

  it('svd-llm leaves less of the output than any other', async () => {
    using dir = tempDir();
    const mean = async (name: string): Promise<number> => {
      const { layers } = await runFactorize(LLAMA, join(dir.path, name), { name, stats });
      return layers.reduce((sum, l) => sum + l.outputError!, 0) / layers.length;
    };
    const best = await mean('svd-llm');
    for (const name of METHODS.filter((m) => m !== 'svd-llm')) expect(best).to.be.below(await mean(name));
  });

  it('is read as the dense model: names, shapes, the bits of a plain f32 product; config as it was; ASVD finds its ranks', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const report = await runFactorize(LLAMA, out, { name: 'asvd', stats });
    await using reader = await openAny(out);
    await using stored = await openCheckpoint(out);
    await using dense = await openAny(LLAMA);
    const sorted = (r: CheckpointReader): unknown[] => [...r.infos.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(sorted(reader)).to.deep.equal(sorted(dense));
    for (const l of report.layers) {
      const [a, b] = [await values(stored, `${l.name}.ALinear.weight`), await values(stored, `${l.name}.BLinear.weight`)];
      const { dtype, bytes } = await reader.read(`${l.name}.weight`);
      const plain = plainProduct(a, b, l.m, l.rank!, l.n);
      expect(Buffer.compare(bytes, encodeAs(dtype as 'F32', plain)), l.name).to.equal(0);
      const rows = await reader.read(`${l.name}.weight`, [1, 3]);
      expect(rows.shape).to.deep.equal([2, l.n]);
      expect(Buffer.compare(rows.bytes, bytes.subarray(bytes.length / l.m, (3 * bytes.length) / l.m))).to.equal(0);
    }
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config['truncation_ranks']).to.deep.equal(Object.fromEntries(report.layers.map((l) => [l.name, l.rank])));
    expect((config['pith_factorized'] as { source: string }).source).to.equal(report.source);
    const side = await reader.sideFolder!();
    expect(readFileSync(join(side!, 'config.json'), 'utf8')).to.equal(readFileSync(join(LLAMA, 'config.json'), 'utf8'));
    // factors of a factorized model are those of the dense one that it stands for
    const again = await runFactorize(out, join(dir.path, 'again'));
    expect(again.rawParameters).to.equal(report.rawParameters);
    expect(again.layers.every((l) => l.error < 1e-6)).to.be.true;
  });

  it('weights that lie as (in, out), with biases', async () => {
    using dir = tempDir();
    const [gpt2, out] = [modelFolder('gpt2'), join(dir.path, 'out')];
    const report = await runFactorize(gpt2, out, { target: { rank: 5 } });
    await using stored = await openCheckpoint(out);
    await using dense = await openAny(gpt2);
    const [reader, plain] = [await load(out), await load(gpt2)];
    expect([...reader.keys()].sort()).to.deep.equal([...plain.keys()].sort());
    for (const l of report.layers) {
      expect([...stored.infos.keys()].filter((k) => k.startsWith(`${l.name}.`)).sort()).to.deep.equal([`${l.name}.ALinear.bias`, `${l.name}.ALinear.weight`, `${l.name}.BLinear.weight`]); // prettier-ignore
      expect(stored.infos.get(`${l.name}.ALinear.weight`)!.shape).to.deep.equal([l.m, 5]);
      expect(dense.infos.get(`${l.name}.weight`)!.shape).to.deep.equal([l.n, l.m]);
      expect(reader.get(`${l.name}.bias`)).to.deep.equal(plain.get(`${l.name}.bias`));
      const what = transposed(
        plainProduct(await values(stored, `${l.name}.ALinear.weight`), await values(stored, `${l.name}.BLinear.weight`), l.m, 5, l.n),
        l.m,
        l.n,
      );
      expect(distance(reader.get(`${l.name}.weight`)!, what) / frobenius(what)).to.be.below(1e-6);
      expect(l.weightError / (distance(what, plain.get(`${l.name}.weight`)!) / frobenius(plain.get(`${l.name}.weight`)!))).to.be.closeTo(1, 1e-3);
    }
  });

  for (const model of ['llama', 'gpt2', 'qwen2']) {
    it(`full rank: ${model}'s logits equal to 1e-4, as factors and multiplied out`, async () => {
      using dir = tempDir();
      await setupBackend('cpu', { blasThreads: 1 });
      const ids = IDS.slice(0, 3).map((s) => Int32Array.from(s));
      const right = await logitsOf(modelFolder(model), ids);
      const top = right.reduce((t, v) => Math.max(t, Math.abs(v)), 0);
      for (const save of ['factors', 'dense'] as const) {
        const out = join(dir.path, save);
        await runFactorize(modelFolder(model), out, { target: { rank: 1e6 }, save });
        const got = await logitsOf(out, ids);
        expect(got.reduce((t, v, i) => Math.max(t, Math.abs(v - right[i]!)), 0) / top).to.be.below(1e-4);
      }
    });
  }

  it('multiplied out: the files of the source, other values; errors as of the factors', async () => {
    using dir = tempDir();
    const [out, factors] = [join(dir.path, 'out'), join(dir.path, 'factors')];
    const report = await runFactorize(LLAMA, out, { name: 'svd-llm', stats, save: 'dense' });
    const other = await runFactorize(LLAMA, factors, { name: 'svd-llm', stats });
    expect(readdirSync(out).sort()).to.deep.equal(['config.json', 'model.safetensors', ...readdirSync(LLAMA).filter((n) => n.startsWith('golden') && !n.endsWith('.safetensors'))].sort()); // prettier-ignore
    expect(readFileSync(join(out, 'config.json'), 'utf8')).to.equal(readFileSync(join(LLAMA, 'config.json'), 'utf8'));
    const [multiplied, read] = [await load(out), await load(factors)];
    for (const l of report.layers) expect(multiplied.get(`${l.name}.weight`)).to.deep.equal(read.get(`${l.name}.weight`));
    report.layers.forEach((l, i) => expect(l.outputError! / other.layers[i]!.outputError!).to.be.closeTo(1, 1e-4));
    expect(report.bytes).to.be.above(other.bytes);
  });

  it('the same bytes at 1, 2 and 4 threads, in shards and as one file', async () => {
    using dir = tempDir();
    const trees = [];
    for (const threads of [1, 2, 4]) {
      const out = join(dir.path, `t${threads}`);
      await runFactorize(LLAMA, out, { name: 'gfwsvd', stats, threads });
      trees.push(hashTree(out));
    }
    expect(trees[1]).to.deep.equal(trees[0]);
    expect(trees[2]).to.deep.equal(trees[0]);
    const [shards, file] = [join(dir.path, 'shards'), join(dir.path, 'one.safetensors')];
    await runFactorize(LLAMA, shards, { name: 'gfwsvd', stats, shardBytes: 12_000 });
    await runFactorize(LLAMA, file, { name: 'gfwsvd', stats });
    expect(readdirSync(shards).filter((n) => n.endsWith('.safetensors')).length).to.be.above(1);
    const whole = await load(join(dir.path, 't1'));
    expect(await load(shards)).to.deep.equal(whole);
    expect(await load(file)).to.deep.equal(whole);
  });

  it('statistics taken on a text are those of calibrate; the run leaves none behind', async () => {
    using dir = tempDir();
    const run = { name: 'svd-llm', threads: 1 };
    const data = { windows: () => Promise.resolve(dataOf(IDS)), identity: {} };
    const report = await runFactorize(LLAMA, join(dir.path, 'a'), { ...run, data });
    const given = await statsOf(LLAMA, join(dir.path, 's.safetensors'), { threads: 1, fisher: [] });
    await runFactorize(LLAMA, join(dir.path, 'b'), { ...run, stats: given });
    expect(hashTree(join(dir.path, 'a'))).to.deep.equal(hashTree(join(dir.path, 'b')));
    expect(report.layers.every((l) => l.outputError! > 0)).to.be.true;
    expect(readdirSync(dir.path).sort()).to.deep.equal(['a', 'b', 's.safetensors']);
  });

  it('ranks: uniform by the rule of the codes, by energy, shared; whole where factors would be no smaller', () => {
    expect(uniformRank({ m: 256, n: 512 }, 0.5)).to.equal(85);
    expect(uniformRank({ m: 4, n: 4 }, 0.1)).to.equal(1);
    expect(uniformRank({ m: 1, n: 9 }, 0.9)).to.equal(undefined);
    expect(uniformRank({ m: 8, n: 8 }, 1)).to.equal(undefined);
    expect(energyRank({ m: 30, n: 30 }, [4, 2, 2, 1], 0.8)).to.equal(2);
    expect(energyRank({ m: 30, n: 30 }, [0, 0], 0.8)).to.equal(1);
    expect(energyRank({ m: 3, n: 3 }, [1, 1, 1], 0.9)).to.equal(undefined);
    for (const seed of [1, 2, 3]) {
      const rng = new Rng(seed);
      const layers = Array.from({ length: 12 }, () => {
        const [m, n, decay] = [20 + rng.integer(60), 20 + rng.integer(60), 0.2 + 1.5 * rng.uniform()];
        return { m, n, s: Array.from({ length: Math.min(m, n) }, (_, i) => 5 * rng.uniform() * (i + 1) ** -decay).sort((a, b) => b - a) };
      });
      const whole = layers.reduce((sum, l) => sum + l.m * l.n, 0);
      for (const ratio of [0.3, 0.6, 0.9]) {
        const errorOf = (ranks: readonly (number | undefined)[]): number =>
          layers.reduce((sum, { s }, i) => sum + (ranks[i] === undefined ? 0 : (frobenius(s.slice(ranks[i])) / frobenius(s)) ** 2), 0);
        const cost = (ranks: readonly (number | undefined)[]): number =>
          layers.reduce((sum, { m, n }, i) => sum + (ranks[i] === undefined ? m * n : ranks[i] * (m + n)), 0);
        const uniform = layers.map((l) => uniformRank(l, ratio));
        const water = sharedRanks(layers, ratio);
        expect(cost(water)).to.be.at.most(ratio * whole);
        expect(errorOf(water)).to.be.at.most(errorOf(uniform));
      }
      expect(sharedRanks(layers, 1)).to.deep.equal(layers.map(() => undefined));
    }
    expect(() => sharedRanks([{ m: 9, n: 9, s: [1] }], 0.1)).to.throw('a target of 8 bytes');
  });

  it('by energy and by shares, on a model: as asked for, no worse than uniform', async () => {
    using dir = tempDir();
    const energy = await runFactorize(LLAMA, join(dir.path, 'e'), { name: 'svd-llm', stats, target: { energy: 0.9 } });
    for (const l of energy.layers) if (l.rank !== undefined) expect(l.error ** 2).to.be.at.most(0.1 + 1e-9);
    const uniform = await runFactorize(LLAMA, join(dir.path, 'u'), { name: 'svd-llm', stats });
    const shares = await runFactorize(LLAMA, join(dir.path, 's'), { name: 'svd-llm', stats, target: { ratio: uniform.kept, allocation: 'energy' } });
    const total = (r: typeof uniform): number => r.layers.reduce((sum, l) => sum + l.error ** 2, 0);
    expect(total(shares)).to.be.at.most(total(uniform));
    expect(shares.kept).to.be.at.most(uniform.kept + 1e-9);
    const all = await runFactorize(LLAMA, join(dir.path, 'all'), { target: { ratio: 1, allocation: 'uniform' } });
    expect([all.kept, all.layers.some((l) => l.rank !== undefined)]).to.deep.equal([1, false]);
    expect(await load(join(dir.path, 'all'))).to.deep.equal(await load(LLAMA));
  });

  it('a cancelled run goes on to the same files; another plan beside it is refused', async () => {
    using dir = tempDir();
    const [whole, out] = [join(dir.path, 'whole'), join(dir.path, 'out')];
    const more = { name: 'svd-llm', stats, target: { ratio: 0.5, allocation: 'energy' } } as const;
    await runFactorize(LLAMA, whole, more);
    const stop = new AbortController();
    let seen = 0;
    const error = await errorOf(async () => {
      for await (const event of factorize(optionsOf(LLAMA, out, { ...more, threads: 1, signal: stop.signal })))
        if (event.type === 'tensor.done' && ++seen === 3) stop.abort();
    });
    expect([error.code, existsSync(out), existsSync(`${out}.pith-partial`)]).to.deep.equal(['CANCELLED', false, true]);
    await expectCode('JOURNAL_FOREIGN', () => runFactorize(LLAMA, out, { name: 'svd' }));
    let resumed = 0;
    for await (const event of factorize(optionsOf(LLAMA, out, more))) if (event.type === 'job.start') resumed = event.resumedBytes;
    expect(resumed).to.be.above(0);
    expect(hashTree(out)).to.deep.equal(hashTree(whole));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['out', 'whole']);
  });

  it('a dry run predicts and writes nothing', async () => {
    using dir = tempDir();
    const predicted = await runFactorize(LLAMA, join(dir.path, 'out'), { name: 'svd-llm', stats, dryRun: true });
    expect(readdirSync(dir.path)).to.deep.equal([]);
    const real = await runFactorize(LLAMA, join(dir.path, 'out'), { name: 'svd-llm', stats });
    expect(predicted.layers.map((l) => l.rank)).to.deep.equal(real.layers.map((l) => l.rank));
    expect(predicted.plan!.bytes / real.bytes).to.be.within(0.8, 1);
  });

  it('what is wrong is named, and leaves nothing', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const gram = await statsOf(LLAMA, join(dir.path, 'gram.safetensors'), { fisher: [] });
    expect((await expectCode('STATS_MISSING', () => runFactorize(LLAMA, out, { name: 'fwsvd', stats: gram }))).message).to.contain('no fisherRow').and.contain('`pith calibrate --fisher row`'); // prettier-ignore
    expect((await expectCode('STATS_MISSING', () => runFactorize(LLAMA, out, { name: 'gfwsvd', stats: gram }))).message).to.contain('--fisher kron');
    await expectCode('USAGE', () => runFactorize(LLAMA, out, { name: 'svd-llm' }));
    await expectCode('USAGE', () => runFactorize(LLAMA, out, { selects: () => false }));
    await expectCode('UNKNOWN_METHOD', () => runFactorize(LLAMA, out, { name: 'svdllm' }));
    await expectCode('BAD_PARAMS', () => runFactorize(LLAMA, out, { method: { name: 'asvd', params: { alpha: 'x' } }, stats }));
    await expectCode('MEMORY_BUDGET', () => runFactorize(LLAMA, out, { maxMemoryBytes: 1e6 }));
    await expectCode('NOT_STATS', () => runFactorize(LLAMA, out, { stats: join(LLAMA, 'model.safetensors') }));
    await expectCode('NOT_FOUND', () => runFactorize(join(dir.path, 'none'), out));
    await expectCode('OUTPUT_EXISTS', () => runFactorize(LLAMA, gram));
    // the same shapes, other weights
    const other = join(dir.path, 'other');
    await runFactorize(LLAMA, other, { save: 'dense' });
    await expectCode('STATS_MODEL', () => runFactorize(other, out, { name: 'svd-llm', stats: gram }));
    const rng = new Rng(1);
    const layer = 'model.layers.0.mlp.up_proj.weight';
    const bad = view(layer, [4, 6], rng.normals(24).map((v, i) => (i === 7 ? NaN : v))); // prettier-ignore
    const broken = writeBase(join(dir.path, 'nan'), [bad, random(rng, 'model.layers.1.mlp.up_proj.weight', 4, 6)]);
    expect((await expectCode('NOT_FINITE', () => runFactorize(broken, join(dir.path, 'partial')))).message).to.contain(layer);
    const ints = writeBase(join(dir.path, 'ints'), [{ name: layer, dtype: 'I32', shape: [2, 3], bytes: new Uint8Array(24) }]);
    await expectCode('DTYPE_UNSUPPORTED', () => runFactorize(ints, out));
    expect([existsSync(out), existsSync(join(dir.path, 'partial'))]).to.deep.equal([false, false]);
  });
});
