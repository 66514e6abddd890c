/**
 * Training steps against torch and peft, from the same adapter over the same batches:
 *   node dist/bench/finetune.js MODEL TEXT [--steps 20] [--timed 4] [--batch 4] [--seqlen 256] [--rank 16] [--threads 2] [--methods lora,dora,ia3]
 * Losses of all steps are compared; the time of a step is the median of the last `timed` ones. GFLOP/s count the products with the blocks' and the
 * head's weights, forwards and to the inputs: 4 a weight and token; the second forward pass of every block is not counted.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseDatasetSpec } from '../formats/dataset/dataset.js';
import { OPTIMIZER_DEFAULTS } from '../kernels/optim/optimizers.js';
import { loadMethod } from '../methods/index.js';
import { calibrationData } from '../pipelines/calibration-data.js';
import { selectTargets } from '../pipelines/finetune/targets.js';
import { modelRef } from '../pipelines/model-ref.js';
import type { TrainBatch } from '../workers/messages/train.js';
import { openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { machine, MB, option, peer, peerPython, positionals, table, times, verdicts, workFolder } from './support.js';

const [model = '', text = ''] = positionals(2, 'node dist/bench/finetune.js MODEL TEXT [--steps 20] [--timed 4] [--methods lora,dora,ia3]');
const [steps, timed, batch, seqlen] = [
  Number(option('steps', '20')),
  Number(option('timed', '4')),
  Number(option('batch', '4')),
  Number(option('seqlen', '256')),
];
const [rank, threads] = [Number(option('rank', '16')), Number(option('threads', '2'))];
const methods = option('methods', 'lora,dora,ia3').split(',');
/** Relative difference of a step's losses; and the times that a step may take of torch's. */
const TARGETS = { loss: 1e-3, lora: 0.8, full: 1, rss: 0.7 };
const RATE = 1e-3;

using work = workFolder('finetune');

async function batches(): Promise<TrainBatch[]> {
  await using reader = await openAny(model);
  const { sequences } = await calibrationData(reader, { spec: parseDatasetSpec(text), nsamples: steps * batch, seqlen, seed: 0 });
  return Array.from({ length: steps }, (_, s) => toBatch(sequences.slice(s * batch, (s + 1) * batch)));
}

function toBatch(sequences: readonly Int32Array[]): TrainBatch {
  const n = sequences.length * seqlen;
  const out = { inputs: new Int32Array(n), targets: new Int32Array(n).fill(-100), segments: new Int32Array(n), positions: new Int32Array(n) };
  for (const [i, s] of sequences.entries()) {
    out.inputs.set(s, i * seqlen);
    out.targets.set(s.subarray(1), i * seqlen);
    for (let j = 0; j < seqlen; j++) out.positions[i * seqlen + j] = j;
  }
  return { rows: sequences.length, columns: seqlen, ...out, weights: Float32Array.from(out.targets, (t) => (t >= 0 ? 1 : 0)) };
}

interface Measured {
  readonly losses: readonly number[];
  /** Of a step, ms. */
  readonly ms: number;
  readonly peakBytes: number;
}

const median = (v: readonly number[]): number => v.toSorted((a, b) => a - b)[Math.floor(v.length / 2)]!;

/** The adapter before the first step goes to `start`. */
async function ours(method: string, all: readonly TrainBatch[], start: string): Promise<Measured> {
  await using reader = await openAny(model);
  await using pool = new WorkerPool({ threads: 1 });
  const settings = { seed: 0, device: 'cpu' as const, blasThreads: threads, memoryBytes: 4e9 };
  const ref = await modelRef(model, reader);
  const params = method === 'ia3' || method === 'full' ? {} : { rank };
  const { targets: wanted } = (await loadMethod('adapter', method)).create(params);
  const shape = await pool.run({ type: 'model-shape', settings, model: ref });
  const targets = selectTargets(wanted, shape.blocks.flatMap((b) => b.linears.map((l) => l.module)), model); // prettier-ignore
  const optimizer = { name: 'adamw' as const, weightDecay: 0, ...OPTIMIZER_DEFAULTS.adamw };
  await pool.run({
    type: 'train-open',
    settings,
    model: ref,
    method: { name: method, params },
    recipe: { name: 'sft', params: {} },
    targets,
    optimizer,
    steps,
  });
  if (method !== 'full') {
    const targetModules = [...new Set(targets.map((t) => t.slice(t.lastIndexOf('.') + 1)))];
    await pool.run({ type: 'train-adapter', folder: start, base: model, taskType: 'CAUSAL_LM', paths: {}, targetModules });
  }
  const [losses, ms]: [number[], number[]] = [[], []];
  for (const [i, b] of all.entries()) {
    const begun = performance.now();
    losses.push((await pool.run({ type: 'train-step', batches: [b], step: i + 1, rate: RATE, clip: 1 })).loss);
    ms.push(performance.now() - begun);
  }
  return { losses, ms: median(ms.slice(-timed)), peakBytes: Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? 0) * 1024 };
}

function flops(): number {
  const c = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, number>;
  const [h, m, heads] = [c['hidden_size']!, c['intermediate_size']!, c['num_attention_heads']!];
  const weights = 2 * h * (h / heads) * (heads + (c['num_key_value_heads'] ?? heads)) + 3 * h * m;
  return 4 * batch * seqlen * (c['num_hidden_layers']! * weights + c['vocab_size']! * h);
}

const all = await batches();
const ids = join(work.path, 'ids.i32');
writeFileSync(ids, Buffer.concat(all.map((b) => Buffer.from(b.inputs.buffer))));
const rows: string[][] = [];
const checks: [string, boolean][] = [];
for (const method of methods) {
  const start = join(work.path, method);
  mkdirSync(start);
  const mine = await ours(method, all, start);
  const row = (who: string, ms: number, peak: number): string[] => [method, who, ms.toFixed(0), (flops() / 1e6 / ms).toFixed(0), (peak / MB).toFixed(0)];
  rows.push(row('pith', mine.ms, mine.peakBytes));
  if (peerPython() === undefined) continue;
  const theirs = await peer('peft_train.py', [
    model,
    start,
    ids,
    `${batch}`,
    `${seqlen}`,
    `${RATE}`,
    '--timed',
    `${timed}`,
    '--threads',
    `${threads}`,
    '--method',
    method,
  ]);
  const [ms, peak, losses] = [Number(theirs['ms']), theirs.peakBytes, String(theirs['losses']).split(' ').map(Number)];
  rows.push(row('torch + peft', ms, peak), [method, 'ours / theirs', times(mine.ms / ms), '', times(mine.peakBytes / peak)]);
  const worst = Math.max(...losses.map((l, i) => Math.abs(l - mine.losses[i]!) / l));
  const target = method === 'full' ? TARGETS.full : TARGETS.lora;
  checks.push([`${method}: losses of ${steps} steps within ${TARGETS.loss}: ${worst.toExponential(1)}`, worst < TARGETS.loss]);
  checks.push([`${method}: a step in at most ${target} of torch's time: ${times(mine.ms / ms)}`, mine.ms <= target * ms]);
  checks.push([`${method}: at most ${TARGETS.rss} of its memory: ${times(mine.peakBytes / peak)}`, mine.peakBytes <= TARGETS.rss * peak]);
}
console.log(`${machine()}; ${batch} x ${seqlen} tokens a step\n`);
console.log(table(['method', '', 'ms a step', 'GFLOP/s', 'peak MB'], rows), '\n');
verdicts(checks);
