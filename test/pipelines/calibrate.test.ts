/** Statistics against torch; sharing, selection, passes, going on after an end at any place, bad input. */
import { expect } from 'chai';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { ProgressEvent } from '../../core/events.js';
import { calibrate } from '../../pipelines/calibrate.js';
import { shareMemory } from '../../pipelines/block-pass.js';
import { encodeAs } from '../../core/float.js';
import { StatsFile } from '../../formats/stats/file.js';
import { placeOf } from '../../models/place.js';
import type { ModelShapeResult } from '../../workers/messages/passes.js';
import { ALL_FISHER, ALL_INPUTS, dataOf, modelOf, optionsFor, probeError, relativeError, runCalibrate } from '../support/calibration.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';
import { calibrationGolden, calibrationNames, modelFolder } from '../support/goldens.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';

const IDS = Array.from({ length: 6 }, (_, s) => Array.from({ length: 20 }, (_, i) => (i * 7 + s * 11) % 48));

describe('pipelines/calibrate', function () {
  this.timeout(300_000);

  for (const name of calibrationNames()) {
    const golden = calibrationGolden(name);
    const { tolerance, sequences, loss, kroneckerBlocks } = golden.document;
    // every linear layer that torch saw, and no other
    const seen = [...new Set([...golden.tensors.keys()].map((k) => k.slice(0, k.lastIndexOf('.'))))].sort();

    it(`${name}: as torch has them, sequences of several lengths`, async () => {
      using dir = tempDir();
      const out = join(dir.path, 's.safetensors');
      const report = await runCalibrate(modelOf(name), out, dataOf(sequences), { fisher: ['fisherRow'] });
      expect(report.loss).to.be.closeTo(loss, 1e-4);
      const tokens = sequences.reduce((sum, s) => sum + s.length, 0);
      expect(report.tokens).to.equal(tokens);
      using stats = StatsFile.open(out);
      expect([...stats.modules].sort()).to.deep.equal(seen);
      for (const module of seen) {
        const right = (what: string): Float32Array => golden.tensor(`${module}.${what}`).values;
        expect(stats.tokens(module)).to.equal(tokens);
        for (const s of ['inputSqNorm', 'inputAbsMean'] as const) {
          expect(relativeError(stats.read(module, s), right(s)), `${module}.${s}`).to.be.below(tolerance.inputs);
        }
        expect(probeError(stats.read(module, 'inputGram'), golden, `${module}.inputGram`), module).to.be.below(tolerance.inputs);
        expect(relativeError(stats.read(module, 'fisherRow'), right('fisherRow')), `${module}.fisherRow`).to.be.below(tolerance.gradients);
      }
    });

    it(`${name}: Kronecker factors as by a power iteration in f64`, async () => {
      using dir = tempDir();
      const out = join(dir.path, 's.safetensors');
      // the shipped model's feed-forward layers take a while
      const chosen = seen.filter((m) => kroneckerBlocks.includes(placeOf(`${m}.weight`).layer!) && (name !== 'tiny' || m.includes('self_attn')));
      expect(chosen.length).to.be.above(3);
      await runCalibrate(modelOf(name), out, dataOf(sequences), { statistics: [], fisher: ALL_FISHER, selects: (w) => chosen.includes(w.slice(0, -7)) });
      using stats = StatsFile.open(out);
      for (const module of chosen) {
        for (const s of ['fisherA', 'fisherB'] as const) {
          expect(probeError(stats.read(module, s), golden, `${module}.${s}`), `${module}.${s}`).to.be.below(tolerance.kronecker);
        }
      }
    });
  }

  it('modules that are fed the same tensor share it; the metadata says what was fed', async () => {
    using dir = tempDir();
    const out = join(dir.path, 's.safetensors');
    const report = await runCalibrate(modelFolder('llama'), out, dataOf(IDS), { seed: 5 });
    using stats = StatsFile.open(out);
    const layer = (i: number): [string, string][] => {
      const p = `model.layers.${i}.`;
      return [
        [`${p}self_attn.k_proj`, `${p}self_attn.q_proj`],
        [`${p}self_attn.v_proj`, `${p}self_attn.q_proj`],
        [`${p}mlp.up_proj`, `${p}mlp.gate_proj`],
      ];
    };
    const { manifest } = stats;
    expect(manifest.alias).to.deep.equal(Object.fromEntries([0, 1].flatMap(layer)));
    expect(manifest).to.deep.include({ nsamples: 6, seqlen: 20, seed: 5, tokens: 120, dataset: { name: 'ids', sha256: '12'.repeat(32) } });
    expect(manifest.model).to.deep.equal({ name: 'llama', contentHash: report.contentHash });
    expect(manifest.generator).to.match(/^pith \d/);
    expect(report).to.deep.include({ modules: 14, inputs: 8, nsamples: 6, tokens: 120 });
    expect(report.bytes).to.equal(readFileSync(out).length);
    const stored = [...stats.file.entries.keys()].filter((n) => n.endsWith('.inputGram'));
    expect(stored.length).to.equal(8);
    stats.requireModel(report.contentHash!);
  });

  it('only what is selected; what shares with it takes its name', async () => {
    using dir = tempDir();
    const out = join(dir.path, 's.safetensors');
    const selects = (weight: string): boolean => /layers\.1\.(self_attn\.[kv]_proj|mlp\.down_proj)\.weight$/.test(weight);
    await runCalibrate(modelFolder('llama'), out, dataOf(IDS), { selects, statistics: ['inputAbsMean'], fisher: ['fisherRow'] });
    using stats = StatsFile.open(out);
    const p = 'model.layers.1.';
    const names = [`${p}mlp.down_proj`, `${p}self_attn.k_proj`].flatMap((m) => [`${m}.inputAbsMean`, `${m}.tokens`, `${m}.fisherRow`]);
    expect([...stats.file.entries.keys()].sort()).to.deep.equal([...names, `${p}self_attn.v_proj.fisherRow`].sort());
    expect(stats.manifest.alias).to.deep.equal({ [`${p}self_attn.v_proj`]: `${p}self_attn.k_proj` });
    const error = await expectCode('USAGE', () => runCalibrate(modelFolder('llama'), join(dir.path, 't'), dataOf(IDS), { selects: () => false }));
    expect(error.message).to.include('model.layers.0.self_attn.q_proj.weight');
  });

  it('little memory takes more passes over a block, and changes nothing but rounding', async () => {
    using dir = tempDir();
    const tasks = async (out: string, maxMemoryBytes: number): Promise<number> => {
      let count = 0;
      for await (const event of follow(out, { maxMemoryBytes })) if (event.type === 'job.start') count = event.tasks;
      return count;
    };
    const [one, more] = [join(dir.path, 'one'), join(dir.path, 'more')];
    expect(await tasks(one, 1e9), 'embeddings and two blocks').to.equal(3);
    // half of it for a batch, half for the sums, of which those of 128 channels take 200 kB
    expect(await tasks(more, 480_000), 'two passes over each block').to.equal(5);
    using a = StatsFile.open(one);
    using b = StatsFile.open(more);
    for (const module of a.modules) for (const s of ALL_INPUTS) expect(relativeError(a.read(module, s), b.read(module, s)), module).to.be.below(1e-5);
    const error = await expectCode('MEMORY_BUDGET', () => runCalibrate(modelFolder('gpt2'), join(dir.path, 'no'), dataOf(IDS), { maxMemoryBytes: 100_000 }));
    expect(error.message).to.include('--max-memory');
    expect(readdirSync(dir.path).sort()).to.deep.equal(['more', 'one']);
  });

  it('passes hold what fits, in the order of the inputs', () => {
    const groups = [256, 256, 1024, 256].map((n, i) => ({ modules: [`m${i}`], in: n }));
    const shape: ModelShapeResult = {
      width: 256,
      maxPositions: 64,
      head: { vocabulary: 10, columns: 256, bytes: 5120 },
      blocks: [{ linears: [], groups, weightBytes: 1000 }],
      tokenBytes: { fixed: 100, perToken: 0 },
    };
    const request = { longest: 64, groups: [groups], gram: true, backward: false, source: 'x' };
    const names = (maxMemoryBytes: number): string[][] => shareMemory(shape, { ...request, maxMemoryBytes }).passes[0]!.map((p) => p.map((g) => g.modules[0]!));
    expect(names(1e9)).to.deep.equal([['m0', 'm1', 'm2', 'm3']]);
    expect(names(7_000_000)).to.deep.equal([['m0', 'm1'], ['m2'], ['m3']]);
  });

  it('ended at any progress and begun again: the bytes of an undisturbed run', async () => {
    using dir = tempDir();
    const options = { fisher: ALL_FISHER, threads: 1 };
    const whole = join(dir.path, 'whole');
    // of the blocks: those before are of the content hash
    const counter = (at: number, reached: () => void): ((event: ProgressEvent) => void) => {
      let seen = -1;
      return (event) => {
        if (event.type === 'job.start') seen = 0;
        else if (event.type === 'progress' && seen >= 0 && ++seen === at) reached();
      };
    };
    for await (const event of follow(whole, options)) expect(event.type).to.not.equal('warning');
    const right = readFileSync(whole);
    const out = join(dir.path, 'out');
    let resumed = 0;
    // a task of so small a model is one tick: embeddings, two blocks, the output layer, two blocks back
    for (let at = 1; at <= 6; at++) {
      const abort = new AbortController();
      const watch = counter(at, () => abort.abort());
      const error = await errorOf(async () => {
        for await (const event of follow(out, { ...options, signal: abort.signal })) watch(event);
      }).catch(() => undefined);
      if (error !== undefined) expect(error.code).to.equal('CANCELLED');
      if (error !== undefined) {
        expect(existsSync(out)).to.be.false;
        for await (const event of follow(out, options)) if (event.type === 'job.start' && event.resumedBytes > 0) resumed++;
      }
      expect(Buffer.compare(readFileSync(out), right), `ended at tick ${at}`).to.equal(0);
      cleanup(dir.path, ['whole']);
    }
    expect(resumed, 'runs that went on from a block').to.be.above(0);
  });

  it('a damaged spool is not gone on with; another plan is refused', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const abort = new AbortController();
    const steps = await expectCode('CANCELLED', async () => {
      for await (const event of follow(out, { signal: abort.signal, fisher: ALL_FISHER })) {
        // some blocks are done by then
        if (event.type === 'progress' && event.doneBytes > event.totalBytes / 3) abort.abort();
      }
    });
    expect(steps.exitCode).to.equal(130);
    const spool = join(`${out}.pith-partial`, 'spool');
    for (const f of readdirSync(spool).filter((n) => n.startsWith('hidden-'))) {
      const bytes = readFileSync(join(spool, f));
      bytes[17]! ^= 1;
      writeFileSync(join(spool, f), bytes);
    }
    await expectCode('JOURNAL_FOREIGN', () => runCalibrate(modelFolder('gpt2'), out, dataOf(IDS.slice(1)), { fisher: ALL_FISHER }));
    let start = -1;
    for await (const event of follow(out, { fisher: ALL_FISHER })) if (event.type === 'job.start') start = event.resumedBytes;
    expect(start).to.equal(0);
    const right = join(dir.path, 'right');
    await runCalibrate(modelFolder('gpt2'), right, dataOf(IDS), { fisher: ALL_FISHER });
    expect(Buffer.compare(readFileSync(out), readFileSync(right))).to.equal(0);
    expect(readdirSync(dir.path).sort()).to.deep.equal(['out', 'right']);
  });

  it('threads change nothing but rounding', async () => {
    using dir = tempDir();
    const [one, two] = [join(dir.path, 'one'), join(dir.path, 'two')];
    await runCalibrate(modelOf('tiny'), one, dataOf(IDS), { threads: 1 });
    await runCalibrate(modelOf('tiny'), two, dataOf(IDS), { threads: 2 });
    using a = StatsFile.open(one);
    using b = StatsFile.open(two);
    expect(a.manifest).to.deep.equal(b.manifest);
    for (const module of a.modules) for (const s of ALL_INPUTS) expect(relativeError(a.read(module, s), b.read(module, s)), module).to.be.below(1e-5);
  });

  it('every form of a checkpoint', async () => {
    using dir = tempDir();
    const tiny = dirname(modelOf('tiny'));
    const out = join(dir.path, 's');
    const report = await runCalibrate(`${join(tiny, 'base')}+${join(tiny, 'lora')}`, out, dataOf(IDS), { statistics: ['inputSqNorm'] });
    expect(report.model).to.equal('base+lora');
    const single = join(dir.path, 't');
    const file = await runCalibrate(join(tiny, 'base', 'model.safetensors'), single, dataOf(IDS), { statistics: ['inputSqNorm'] });
    const folder = await runCalibrate(join(tiny, 'base'), join(dir.path, 'u'), dataOf(IDS), { statistics: ['inputSqNorm'] });
    expect(file.contentHash).to.equal(folder.contentHash).and.not.to.equal(report.contentHash);
    using a = StatsFile.open(out);
    using b = StatsFile.open(single);
    // the adapter changes the second block's input, not the first's
    const of = (s: StatsFile, layer: number): Float32Array => s.read(`model.layers.${layer}.self_attn.q_proj`, 'inputSqNorm');
    expect(relativeError(of(a, 0), of(b, 0))).to.be.below(1e-6);
    expect(relativeError(of(a, 1), of(b, 1))).to.be.above(1e-3);
  });

  it('a plan without a run', async () => {
    using dir = tempDir();
    const out = join(dir.path, 's');
    const plan = await runCalibrate(modelFolder('llama'), out, dataOf(IDS), { dryRun: true, fisher: ALL_FISHER });
    expect(readdirSync(dir.path)).to.deep.equal([]);
    const done = await runCalibrate(modelFolder('llama'), out, dataOf(IDS), { fisher: ALL_FISHER });
    expect(plan.plan!.bytes).to.be.within(0.5 * done.bytes, done.bytes);
    expect(plan.plan!.peakBytes).to.be.above(1e8);
    expect(plan.contentHash, 'nothing is hashed').to.be.undefined;
    for (const key of ['out', 'model', 'nsamples', 'seqlen', 'tokens', 'modules', 'inputs', 'statistics', 'device'] as const)
      expect(done[key]).to.deep.equal(plan[key]);
  });

  it('bad input: named, and nothing left behind', async () => {
    using dir = tempDir();
    const out = join(dir.path, 's');
    const long = [Array.from({ length: 513 }, () => 1)];
    const seqlen = await expectCode('SEQLEN', () => runCalibrate(modelOf('tiny'), out, dataOf(long)));
    expect(seqlen.exitCode).to.equal(64);
    expect(seqlen.message).to.include('513').and.include('512');
    await expectCode('TOKEN_RANGE', () => runCalibrate(modelFolder('llama'), out, dataOf([[1, 2, 4711]])));
    cleanup(dir.path, []);
    await expectCode('DATASET_EMPTY', () => runCalibrate(modelFolder('llama'), out, dataOf([])));
    await expectCode('DATASET_EMPTY', () => runCalibrate(modelFolder('llama'), out, dataOf([[]])));
    await expectCode('MODEL_CONFIG', () => runCalibrate(modelFolder('bert-mlm'), out, dataOf(IDS)));
    await expectCode('NOT_FOUND', () => runCalibrate(join(dir.path, 'none'), out, dataOf(IDS)));
    await expectCode('NOT_FOUND', () => runCalibrate(modelFolder('llama'), join(dir.path, 'no', 'folder'), dataOf(IDS)));
    expect(readdirSync(dir.path)).to.deep.equal([]);
    writeFileSync(out, '');
    await expectCode('OUTPUT_EXISTS', () => runCalibrate(modelFolder('llama'), out, dataOf(IDS)));
    await runCalibrate(modelFolder('llama'), out, dataOf(IDS), { force: true });
    expect(Object.keys(hashTree(dir.path))).to.deep.equal([basename(out)]);
    StatsFile.open(out)[Symbol.dispose]();
  });

  it('activations that are not finite: module and sequence are named', async () => {
    using dir = tempDir();
    const model = join(dir.path, 'm');
    cpSync(modelFolder('llama'), model, { recursive: true });
    await using reader = await openCheckpoint(model);
    const views = await Promise.all([...reader.infos.keys()].map((n) => reader.read(n)));
    // token 7 is not a number
    const bad = views.map((v) => {
      if (!v.name.endsWith('embed_tokens.weight')) return v;
      const bytes = Uint8Array.from(v.bytes);
      bytes.set(encodeAs('F32', Float32Array.of(NaN)), 7 * v.shape[1]! * 4);
      return { ...v, bytes };
    });
    writeSafetensors(join(model, 'model.safetensors'), bad, { format: 'pt' });
    const out = join(dir.path, 's');
    const error = await expectCode('INPUT_NOT_FINITE', () => runCalibrate(model, out, dataOf([[1, 2, 3], [4, 5, 6], [1, 2, 3, 4, 7]]))); // prettier-ignore
    expect(error.exitCode).to.equal(65);
    expect(error.details).to.deep.include({ module: 'model.layers.0.self_attn.q_proj', sequence: 2, token: 4 });
    cleanup(dir.path, ['m']);
    const gradient = await expectCode('GRADIENT_NOT_FINITE', () => runCalibrate(model, out, dataOf([[1, 2, 3], [4, 7, 6]]), { statistics: [], fisher: ['fisherRow'] })); // prettier-ignore
    expect(gradient.details).to.deep.include({ sequence: 1 });
    expect(existsSync(out)).to.be.false;
  });

  const follow = (out: string, more: Parameters<typeof optionsFor>[3]): ReturnType<typeof calibrate> =>
    calibrate(optionsFor(modelFolder('gpt2'), out, dataOf(IDS), more));
});

function cleanup(folder: string, keep: readonly string[]): void {
  for (const n of readdirSync(folder)) if (!keep.includes(n)) rmSync(join(folder, n), { recursive: true });
}
