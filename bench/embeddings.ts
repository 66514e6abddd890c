/**
 * Vectors of texts by a text encoder against transformers: largest difference, least cosine, time of both.
 *     node dist/bench/embeddings.js MODEL TEXTS[.jsonl] [--texts 400]
 * A plain text file is taken line by line. Needs PITH_PEERS (bench/README.md).
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { availableParallelism } from 'node:os';
import { decodeF32 } from '../core/float.js';
import { WHOLE_TEXT } from '../core/text-row.js';
import { parseDatasetSpec, readRows } from '../formats/dataset/dataset.js';
import { SafetensorsFile } from '../formats/safetensors/file.js';
import { PLAIN_RECIPE } from '../models/sentence.js';
import { rowText } from '../models/windows/training.js';
import { embedAll, prepareTexts } from '../pipelines/eval-embeddings.js';
import { asEncoders, EvalModel } from '../pipelines/eval-models.js';
import { WorkerPool } from '../workers/pool.js';
import { machine, option, peer, positionals, seconds, table, times, verdicts, workFolder } from './support.js';

const [path, data] = positionals(2, 'node dist/bench/embeddings.js MODEL TEXTS') as [string, string];
const most = Number(option('texts', '400'));
const threads = availableParallelism();
const model = await EvalModel.open(path);
const encoder = asEncoders({ model }).model!;
const tokenizer = await encoder.tokenizer();

const texts: string[] = [];
for (const row of readRows(parseDatasetSpec(data))) {
  const text = rowText(row, tokenizer);
  texts.push(...(row.place === WHOLE_TEXT ? text.split('\n') : [text]).filter((t) => t.trim() !== ''));
}
texts.splice(most);

using work = workFolder('embeddings');
const started = performance.now();
const prepared = prepareTexts({ encoder, tokenizer, recipe: (await encoder.sentence()) ?? PLAIN_RECIPE }, texts.map((text) => ({ text }))); // prettier-ignore
const pool = new WorkerPool({ threads });
const run = { threads, maxMemoryBytes: 2e9, seed: 0, device: 'cpu', resolved: 'cpu', signal: new AbortController().signal } as const;
const events = embedAll(prepared, { ...run, job: 'bench', pool, work: work.path, totalBytes: encoder.bytes, doneBytes: 0 }, 'own');
let step = await events.next();
while (step.done !== true) step = await events.next();
const own = step.value;
const ms = performance.now() - started;
await pool[Symbol.asyncDispose]();

const [list, out] = [join(work.path, 'texts.json'), join(work.path, 'peer.safetensors')];
writeFileSync(list, JSON.stringify(texts));
const theirs = await peer('embeddings.py', [path, list, '--out', out, '--threads', String(threads)]);
using file = SafetensorsFile.open(out);
const { dtype, bytes } = file.read('embeddings');
const expected = decodeF32(dtype, bytes);
if (expected.length !== own.length) throw new Error(`${own.length} values; transformers has ${expected.length}`);
const difference = own.reduce((d, v, i) => Math.max(d, Math.abs(v - expected[i]!)), 0);
const width = own.length / texts.length;
const cosines = texts.map((_, t) => {
  const [a, b] = [own, expected].map((v) => v.subarray(t * width, (t + 1) * width)) as [Float32Array, Float32Array];
  const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, v, i) => sum + v * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
});
const least = Math.min(...cosines);
const tokens = prepared.sequences.reduce((sum, s) => sum + s.length, 0);

console.log(machine());
console.log(`${texts.length} texts of ${data}, ${tokens} tokens (transformers: ${theirs['tokens'] as number}), ${width} channels\n`); // prettier-ignore
console.log(
  table(
    ['', 'pith', 'transformers', 'ratio'],
    [
      ['largest difference', difference.toExponential(1), '-', '-'],
      ['1 - least cosine', (1 - least).toExponential(1), '-', '-'],
      ['seconds', seconds(ms), (theirs['seconds'] as number).toFixed(2), times((theirs['seconds'] as number) / (ms / 1000))],
    ],
  ),
);
verdicts([
  ['the same tokens', tokens === theirs['tokens']],
  ['vectors within 2e-5', difference < 2e-5],
  ['cosines within 1e-6 of 1', 1 - least < 1e-6],
]);
await model[Symbol.asyncDispose]();
