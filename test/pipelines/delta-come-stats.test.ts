/** Delta-CoMe with statistics of the inputs: less output error at the same size, any number of threads, whose statistics, what is missing. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import { StatsFile } from '../../formats/stats/file.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { runCalibrate, dataOf } from '../support/calibration.js';
import { BASE, encodePair, loadValues, restoreTo, TUNED } from '../support/delta-files.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';
import { outputError } from '../support/f1.js';
import { MANIFEST, statView, writeStats } from '../support/stats-files.js';

const PAIR = { base: BASE, tuned: TUNED };
const PARAMS = { bands: '8:2,3:8,2:*', ratio: 12 };
const selects = (name: string): boolean => name.includes('.layers.');
/** Words follow one another by a rule, so that the inputs are no noise. */
const sequences = (seed: number): number[][] => {
  const rng = new Rng(seed);
  return Array.from({ length: 24 }, () => Array.from({ length: 64 }, (_, i) => (i % 3 === 0 ? rng.integer(60) : 7 * rng.integer(8)) + 3));
};

describe('pipelines/delta delta-come with statistics', () => {
  const dir = tempDir();
  const [stats, held] = [join(dir.path, 'stats.safetensors'), join(dir.path, 'held.safetensors')];
  before(async () => {
    await runCalibrate(BASE, stats, dataOf(sequences(1)), { statistics: ['inputGram'] });
    await runCalibrate(TUNED, held, dataOf(sequences(2)), { statistics: ['inputGram'] });
  });
  after(() => dir[Symbol.dispose]());

  it('every layer has less output error on inputs that were not fitted to, in as many bytes, one thread or two', async () => {
    const ops = await matrixOps({ blasThreads: 1 });
    const [base, tuned] = [await loadValues(BASE), await loadValues(TUNED)];
    using inputs = StatsFile.open(held);
    const sums: number[] = [];
    const bytes: number[] = [];
    for (const [i, more] of [{}, { stats }, { stats: held }].entries()) {
      const [file, folder] = [join(dir.path, `d${i}.safetensors`), join(dir.path, `back${i}`)];
      const r = await encodePair(PAIR, file, 'delta-come', PARAMS, { selects, ...more });
      await restoreTo(BASE, file, folder);
      const back = await loadValues(folder);
      const errors = r.tensors.flatMap((t) => {
        const module = t.name.replace(/\.weight$/, '');
        if (t.method !== 'delta-come' || !inputs.modules.has(module)) return [];
        expect(t.facts!['fit']).to.equal(i === 0 ? undefined : 'gptq');
        const gram = inputs.read(module, 'inputGram');
        const n = Math.sqrt(gram.length);
        const delta = tuned.get(t.name)!.map((v, k) => v - base.get(t.name)![k]!);
        const got = back.get(t.name)!.map((v, k) => v - base.get(t.name)![k]!);
        return [outputError(got, delta, gram, delta.length / n, n, ops)];
      });
      expect(errors.length).to.be.greaterThan(20);
      sums.push(errors.reduce((a, b) => a + b, 0) / errors.length);
      bytes.push(r.tensors.reduce((sum, t) => sum + t.bytes, 0));
    }
    expect(bytes).to.deep.equal([bytes[0], bytes[0], bytes[0]]);
    expect(sums[1]! / sums[0]!).to.be.below(0.95);
    expect(sums[2]!).to.be.below(sums[1]!);
    const one = join(dir.path, 'one.safetensors');
    await encodePair(PAIR, one, 'delta-come', PARAMS, { selects, stats, threads: 1 });
    expect(readFileSync(one).equals(readFileSync(join(dir.path, 'd1.safetensors')))).to.equal(true);
  });

  it('a size that is shared is met with statistics too', async () => {
    const out = join(dir.path, 'sized.safetensors');
    const r = await encodePair(PAIR, out, 'delta-come', {}, { stats, target: { ratio: 20 } });
    expect(r.ratio).to.be.at.most(0.05);
    await restoreTo(BASE, out, join(dir.path, 'sized'));
  });

  it("another model's statistics, none of a layer's, other sides, no statistics at all, a method without use for them", async () => {
    const out = join(dir.path, 'no.safetensors');
    const run = (file: string, method = 'delta-come'): Promise<unknown> => encodePair(PAIR, out, method, {}, { stats: file });
    const other = join(dir.path, 'other.safetensors');
    const layer = 'model.layers.0.self_attn.q_proj';
    writeStats(other, [statView(layer, 'inputGram', { in: 4, out: 4 }, () => 1)]);
    const e = await expectCode('STATS_MODEL', () => run(other));
    expect(e.exitCode).to.equal(65);
    using good = StatsFile.open(stats);
    const manifest = { ...MANIFEST, model: good.manifest.model };
    writeStats(other, [statView(layer, 'inputGram', { in: 4, out: 4 }, () => 1)], manifest);
    await expectCode('SHAPE_MISMATCH', () => run(other));
    writeStats(other, [statView(layer, 'tokens', { in: 4, out: 4 }, () => 1)], manifest);
    await expectCode('STATS_MISSING', () => run(other));
    await expectCode('NOT_STATS', () => run(join(BASE, 'model.safetensors')));
    await expectCode('USAGE', () => run(stats, 'int'));
  });
});
