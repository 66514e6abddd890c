/** Compression block by block: what each step is given, against checkpoints that are compressed so far and calibrated whole. */
import { expect } from 'chai';
import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import type { ProgressEvent } from '../../core/events.js';
import type { TensorView } from '../../core/tensor.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { prepareFiles } from '../../formats/safetensors/prepared.js';
import { StatsFile } from '../../formats/stats/file.js';
import { INPUT_STATISTICS } from '../../formats/stats/schema.js';
import { passContext, runPass, shareMemory } from '../../pipelines/block-pass.js';
import { Journal } from '../../pipelines/journal.js';
import { modelRef } from '../../pipelines/model-ref.js';
import { runSettings } from '../../pipelines/run-options.js';
import { overlayName, sequentialSteps, type CompressStep } from '../../pipelines/sequential.js';
import type { StepDone } from '../../pipelines/steps.js';
import type { FuseTask } from '../../workers/messages/adapters.js';
import { WorkerPool } from '../../workers/pool.js';
import { RUN } from '../support/adapters.js';
import { ALL_INPUTS, dataOf, relativeError, runCalibrate } from '../support/calibration.js';
import { errorOf } from '../support/expect-error.js';
import { tempDir, writeSafetensors } from '../support/files.js';
import { modelFolder } from '../support/goldens.js';
import { MANIFEST } from '../support/stats-files.js';

const SEQUENCES = Array.from({ length: 5 }, (_, s) => Array.from({ length: s === 2 ? 7 : 20 }, (_, i) => (i * 5 + s * 13) % 48));

interface Seen {
  readonly block: number;
  readonly modules: readonly string[];
  /** module -> statistic -> values */
  readonly statistics: ReadonlyMap<string, Readonly<Record<string, Float32Array>>>;
}

interface Options {
  readonly trueSequential: boolean;
  readonly selects?: (module: string) => boolean;
  readonly signal?: AbortSignal;
  readonly maxMemoryBytes?: number;
  readonly event?: (e: ProgressEvent) => void;
}

/** Rounds layers to bf16, block by block, in `out`.pith-partial; gives what every step was shown, and what the steps said when they were done. */
async function round(model: string, out: string, { trueSequential, selects = () => true, signal = RUN.signal, maxMemoryBytes = 1e9, event }: Options) {
  await using reader = await openCheckpoint(model);
  const settings = { ...runSettings(RUN, 'cpu'), memoryBytes: maxMemoryBytes };
  await using pool = new WorkerPool({ threads: 2 });
  const ref = await modelRef(model, reader);
  const shape = await pool.run({ type: 'model-shape', settings: { ...settings, blasThreads: 2 }, model: ref });
  const modules = shape.blocks.map((b) => b.linears.filter((l) => selects(l.module)));
  const groups = shape.blocks.map((b) => b.groups.filter((g) => g.modules.some(selects)));
  const { sequences } = dataOf(SEQUENCES);
  const memory = shareMemory(shape, { maxMemoryBytes, longest: 20, groups, gram: true, backward: false, source: model });
  const journal = Journal.open<StepDone>(out, { model, trueSequential }, { resume: true });
  const seen: Seen[] = [];
  const finished: unknown[] = [];
  try {
    const context = { job: 'round', pool, journal, signal, settings: { ...settings, blasThreads: 2 }, model: ref, shape, memory };
    const c = passContext(context, sequences);
    const steps = sequentialSteps<FuseTask>(c, {
      modules,
      statistics: INPUT_STATISTICS,
      trueSequential,
      manifest: () => MANIFEST,
      compress: (step) => {
        seen.push(readStep(step));
        return step.modules.map((m) => {
          const name = `${m.module}.weight`;
          const info = { ...reader.infos.get(name)!, dtype: 'BF16' as const };
          const files = prepareFiles(step.overlayOf(m.module), [info], { single: true, resume: true });
          const task: FuseTask = { type: 'fuse', settings, base: { checkpoint: ref.checkpoint, name }, dtype: 'BF16', target: files.places.get(name)! };
          return { task, bytes: 1, memoryBytes: 0, label: m.module };
        });
      },
      compressed: (step, results) => ({ result: [step.block, ...results.keys()].map(String).sort() }),
      finished: (result) => finished.push(result),
      bytes: (all) => all.length,
    });
    for await (const e of runPass(c, steps, modules.flat().map((m) => overlayName(m.module)))) event?.(e); // prettier-ignore
    const overlays = new Map<string, Uint8Array>();
    for (const m of modules.flat()) {
      await using overlay = await openCheckpoint(journal.spool(overlayName(m.module)));
      overlays.set(m.module, (await overlay.read(`${m.module}.weight`)).bytes);
    }
    const left = readdirSync(journal.spool(''));
    journal.remove();
    return { seen, finished, overlays, left };
  } catch (error) {
    journal.close();
    throw error;
  }
}

function readStep(step: CompressStep): Seen {
  using stats = StatsFile.open(step.stats);
  const modules = step.modules.map((m) => m.module);
  expect([...stats.modules].sort()).to.deep.equal([...modules].sort());
  const statistics = new Map(modules.map((m) => [m, Object.fromEntries(ALL_INPUTS.map((s) => [s, stats.read(m, s)]))]));
  for (const m of modules) expect(stats.tokens(m)).to.equal(SEQUENCES.reduce((sum, s) => sum + s.length, 0));
  return { block: step.block, modules, statistics };
}

/** A copy in which these layers are rounded to bf16. */
async function rounded(model: string, folder: string, modules: ReadonlySet<string>): Promise<string> {
  cpSync(model, folder, { recursive: true });
  await using reader = await openCheckpoint(model);
  const views = await Promise.all([...reader.infos.keys()].map((n) => reader.read(n)));
  const cast = (v: TensorView): TensorView =>
    modules.has(v.name.replace(/\.weight$/, '')) ? { ...v, bytes: encodeAs('F32', decodeF32('BF16', encodeAs('BF16', decodeF32(v.dtype, v.bytes)))) } : v;
  writeSafetensors(join(folder, 'model.safetensors'), views.map(cast), { format: 'pt' });
  return folder;
}

/** Every step saw what calibration of the checkpoint, rounded so far, sees. */
async function compare(model: string, seen: readonly Seen[]): Promise<void> {
  const before = new Set<string>();
  for (const step of seen) {
    using dir = tempDir();
    const so_far = await rounded(model, join(dir.path, 'm'), before);
    await runCalibrate(so_far, join(dir.path, 's'), dataOf(SEQUENCES));
    using right = StatsFile.open(join(dir.path, 's'));
    for (const [module, own] of step.statistics) {
      for (const s of ALL_INPUTS) expect(relativeError(own[s]!, right.read(module, s)), `${module}.${s}`).to.be.below(1e-6);
    }
    for (const m of step.modules) before.add(m);
  }
}

describe('pipelines/sequential', function () {
  this.timeout(300_000);

  for (const name of ['llama', 'gpt2']) {
    const p = name === 'llama' ? 'model.layers.' : 'transformer.h.';

    it(`${name}: a block's inputs come from the rounded blocks before it`, async () => {
      using dir = tempDir();
      const { seen, finished, left } = await round(modelFolder(name), join(dir.path, 'o'), { trueSequential: false });
      expect(seen.map((s) => s.block)).to.deep.equal([0, 1]);
      expect(finished.length).to.equal(2);
      await compare(modelFolder(name), seen);
      // rounding shows: the second block's inputs are not those of the model as it was
      await runCalibrate(modelFolder(name), join(dir.path, 's'), dataOf(SEQUENCES));
      using plain = StatsFile.open(join(dir.path, 's'));
      const module = seen[1]!.modules[0]!;
      expect(relativeError(seen[1]!.statistics.get(module)!['inputGram']!, plain.read(module, 'inputGram'))).to.be.above(1e-5);
      expect(left.filter((f) => /^(hidden|statistics)/.test(f)), 'what no step reads any more').to.deep.equal([]); // prettier-ignore
    });

    it(`${name}: true-sequential, one input after the other`, async () => {
      using dir = tempDir();
      const { seen } = await round(modelFolder(name), join(dir.path, 'o'), { trueSequential: true });
      const groups = name === 'llama' ? ['q_proj,k_proj,v_proj', 'o_proj', 'gate_proj,up_proj', 'down_proj'] : ['c_attn', 'c_proj', 'c_fc', 'c_proj'];
      const short = (s: Seen): string => s.modules.map((m) => m.slice(m.lastIndexOf('.') + 1)).join(',');
      expect(seen.map((s) => [s.block, short(s)])).to.deep.equal([0, 1].flatMap((b) => groups.map((g) => [b, g])));
      expect(seen[0]!.modules[0]!.startsWith(`${p}0.`)).to.be.true;
      await compare(modelFolder(name), seen);
    });
  }

  it('only some layers; little memory', async () => {
    using dir = tempDir();
    const selects = (m: string): boolean => /layers\.1\.mlp\.(gate|down)_proj$/.test(m);
    const { seen, overlays } = await round(modelFolder('llama'), join(dir.path, 'o'), { trueSequential: false, selects, maxMemoryBytes: 400_000 });
    expect(seen.length).to.equal(1);
    expect([...overlays.keys()].sort()).to.deep.equal(['model.layers.1.mlp.down_proj', 'model.layers.1.mlp.gate_proj']);
    await compare(modelFolder('llama'), seen);
  });

  it('ended at any progress and begun again: the same tensors, and every step told once', async () => {
    using dir = tempDir();
    const right = await round(modelFolder('llama'), join(dir.path, 'right'), { trueSequential: true });
    let repeated = 0;
    for (let at = 1; at <= 14; at += 2) {
      const out = join(dir.path, 'o');
      const abort = new AbortController();
      let ticks = 0;
      const event = (e: ProgressEvent): void => {
        if (e.type === 'progress' && ++ticks === at) abort.abort();
      };
      const error = await errorOf(() => round(modelFolder('llama'), out, { trueSequential: true, signal: abort.signal, event })).catch(() => undefined);
      expect(error?.code).to.equal('CANCELLED');
      const again = await round(modelFolder('llama'), out, { trueSequential: true });
      expect(again.finished).to.deep.equal(right.finished);
      expect([...again.overlays]).to.deep.equal([...right.overlays]);
      repeated += again.seen.length;
      for (const step of again.seen) {
        const same = right.seen.find((s) => s.modules.join() === step.modules.join())!;
        for (const [module, own] of step.statistics) expect(own, module).to.deep.equal(same.statistics.get(module));
      }
      expect(existsSync(`${out}.pith-partial`)).to.be.false;
      rmSync(out, { force: true });
    }
    expect(repeated, 'steps that were not gone over again').to.be.below(7 * right.seen.length);
  });
});
