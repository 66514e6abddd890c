/**
 * A forward pass of 2,048 tokens with every next token's log probability, against transformers:
 *   node dist/bench/forward.js MODEL [--threads 2] [--repeat 3]
 * As one sequence of 2,048 and as four of 512 (or what the model's positions allow). pith: the score task in threads that are warm, sequences
 * shared out to them as `pith eval` does, weights read from the page cache each time, block by block, in their storage type. transformers (peers/logits.py --time): the model in f32 in memory, torch's
 * fast attention, logits of all tokens. The two take turns, best of the repeats. Before the times count, the perplexity of 2,048 tokens of --text
 * (WikiText, say) is compared.
 * GFLOP/s: of the products with weights and of the attention that a causal model needs; share: of a 2048^3 sgemm of the same library in the same run.
 */
import { setupBackend } from '../kernels/backend/setup.js';
import { measureBackend } from '../kernels/backend/probe.js';
import { requireCausalConfig } from '../models/config/parse.js';
import { causalModel } from '../models/index.js';
import { modelRef } from '../pipelines/model-ref.js';
import { share } from '../pipelines/eval-score.js';
import { openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import type { ScoreTask } from '../workers/messages/model.js';
import { machine, option, peerPython, pith, positionals, run, seconds, table, times, verdicts, ROOT } from './support.js';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

const TOKENS = 2048;
/** Of transformers' time. */
const TARGET = 1;
const SAME = 1e-4;
const [path] = positionals(1, 'forward.js MODEL [--text FILE] [--threads 2] [--repeat 3]') as [string];
const threads = Number(option('threads', '2'));
const repeat = Number(option('repeat', '3'));
const text = option('text', join(ROOT, 'README.md'));

/** transformers' figures by shape: one process, so that it alone has the cores. */
async function transformers(args: readonly string[]): Promise<Record<string, number & number[]>[]> {
  const r = await run(peerPython()!, [join(ROOT, 'bench/peers/logits.py'), path, '--threads', `${threads}`, ...args]);
  if (r.code !== 0) throw new Error(`logits.py ended with ${r.code ?? r.signal}:\n${r.stderr}`);
  return r.stdout.trim().split('\n').map((line) => JSON.parse(line) as Record<string, number & number[]>); // prettier-ignore
}

await using reader = await openAny(path);
const ref = await modelRef(path, reader);
const config = requireCausalConfig(ref.config, ref.configFile);
const model = await causalModel(config, { file: path, infos: reader.infos });
const lengths = [Math.min(TOKENS, config.maxPositions), Math.min(512, config.maxPositions)];

/** Floating-point operations of a pass: 2 a weight and token; scores and their sums over half of all pairs. */
function flops(length: number): number {
  const weights = model.blocks.flatMap((b) => b.linears).reduce((sum, l) => sum + l.in * l.out, model.head.vocabulary * model.head.columns);
  const attention = config.numLayers * 2 * 2 * (length / 2) * config.numHeads * config.headDim;
  return TOKENS * (2 * weights + attention);
}

/** The sequences of a shape, shared out to threads as `pith eval` does. */
function tasks(length: number): ScoreTask[] {
  const sequences = Array.from({ length: Math.floor(TOKENS / length) }, (_, s) =>
    Int32Array.from({ length: length + 1 }, (_, i) => (i * 7919 + s * 31 + 17) % config.vocabSize),
  );
  const shards = share(sequences, Math.min(threads, sequences.length));
  const settings = { seed: 0, device: 'cpu' as const, blasThreads: Math.max(1, Math.floor(threads / shards.length)), memoryBytes: 2e9 };
  return shards.map((members, i) => ({
    type: 'score',
    settings,
    model: ref,
    sequences: members.map((m) => sequences[m]!),
    spool: join(tmpdir(), `pith-bench-forward-${process.pid}.${i}`),
  }));
}

console.log(`${machine()}; ${path.split('/').at(-1)}`);
const backend = await setupBackend('cpu', { blasThreads: threads });
let peak = 0;
if (peerPython() !== undefined) {
  const [theirs] = await transformers(['--ppl', text, '--window', '512', '--max-tokens', `${TOKENS}`]);
  const ours = JSON.parse((await pith(['eval', path, '--dataset', text, '--seqlen', '512', '--max-tokens', `${TOKENS}`, '--json', '--quiet'])).stdout) as {
    ppl: number;
  };
  if (Math.abs(ours.ppl / theirs!['ppl']! - 1) > SAME) throw new Error(`perplexities differ: ${ours.ppl} and ${theirs!['ppl']}`);
  console.log(`perplexity of ${TOKENS} tokens: ${ours.ppl}, transformers ${theirs!['ppl']}`);
}
await using pool = new WorkerPool({ threads });
const pass = (length: number): Promise<unknown> => Promise.all(tasks(length).map((t) => pool.run(t)));
const best = new Map<number, { ours: number; theirs: number }>();
for (let i = 0; i < repeat; i++) {
  peak = Math.max(peak, (await measureBackend(backend, TOKENS)).gflops);
  for (const length of lengths) {
    await pass(length);
    const started = performance.now();
    await pass(length);
    const ms = performance.now() - started;
    const known = best.get(length) ?? { ours: Infinity, theirs: Infinity };
    best.set(length, { ...known, ours: Math.min(known.ours, ms) });
  }
  if (peerPython() === undefined) continue;
  for (const r of await transformers(['--time', '--repeat', '1'])) {
    const known = best.get(r['shape']![1]!);
    if (known !== undefined) known.theirs = Math.min(known.theirs, 1000 * r['forwardS']!);
  }
}
const rows = [...best].map(([length, { ours, theirs }]) => {
  const gflops = flops(length) / ours / 1e6;
  return [
    `${Math.floor(TOKENS / length)} x ${length}`,
    seconds(ours),
    gflops.toFixed(0),
    `${((100 * gflops) / peak).toFixed(0)} %`,
    seconds(theirs),
    times(ours / theirs),
  ];
});
console.log(`sgemm ${peak.toFixed(0)} GFLOP/s on ${threads} threads\n`);
console.log(table(['sequences', 'pith, s', 'GFLOP/s', 'of sgemm', 'transformers, s', 'pith / transformers'], rows));
console.log('');
if (peerPython() !== undefined) {
  verdicts([...best].map(([length, { ours, theirs }]) => [`${Math.floor(TOKENS / length)} x ${length}: at most ${TARGET} x transformers' time`, ours <= TARGET * theirs] as const)); // prettier-ignore
}
