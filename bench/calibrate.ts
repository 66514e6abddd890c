/**
 * Statistics of a Llama's layers on a text, whole processes, on all cores:
 *   node dist/bench/calibrate.js MODEL TEXT [--nsamples 64] [--seqlen 512] [--threads 2] [--layers 0,15,29]
 * Rows: squared norms alone, which is what the forward pass costs; Gram matrices as well; what the second took longer. GFLOP/s count the products with
 * the blocks' weights, and n^2 operations a token for the Gram matrix of n channels, over the whole time, process start and content hash included.
 * torch runs the same windows in f32 with hooks. The Gram matrices of --layers are checked against sums in f64 of its activations.
 */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseDatasetSpec } from '../formats/dataset/dataset.js';
import { StatsFile } from '../formats/stats/file.js';
import { calibrationData } from '../pipelines/calibration-data.js';
import { openAny } from '../workers/open.js';
import { machine, MB, option, peer, peerPython, pith, positionals, seconds, table, times, verdicts, workFolder, type Run } from './support.js';

const [model = '', text = ''] = positionals(2, 'node dist/bench/calibrate.js MODEL TEXT [--nsamples 64] [--seqlen 512] [--threads 2] [--layers 0,15,29]');
const [nsamples, seqlen, threads] = [Number(option('nsamples', '64')), Number(option('seqlen', '512')), option('threads', '2')];
/** ||ours - torch||_F / ||torch||_F of a Gram matrix. */
const TARGET = 1e-5;

using work = workFolder('calibrate');
const out = (name: string): string => join(work.path, `${name}.safetensors`);

const calibrate = (name: string, stats: string): Promise<Run> =>
  pith(['calibrate', model, '--dataset', text, '--nsamples', `${nsamples}`, '--seqlen', `${seqlen}`, '--stats', stats, '-j', threads, '--out', out(name)]);

/** Operations of the forward pass and of the Gram matrices. */
function operations(): { forward: number; gram: number } {
  using stats = StatsFile.open(out('gram'));
  const grams = [...stats.file.entries.values()].filter(({ info }) => info.name.endsWith('.inputGram'));
  const c = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, number>;
  const [h, m, heads] = [c['hidden_size']!, c['intermediate_size']!, c['num_attention_heads']!];
  const size = c['head_dim'] ?? h / heads;
  const weights = 2 * h * size * (heads + (c['num_key_value_heads'] ?? heads)) + 3 * h * m;
  const tokens = nsamples * seqlen;
  return { forward: 2 * c['num_hidden_layers']! * weights * tokens, gram: grams.reduce((sum, { info }) => sum + info.shape[0]! ** 2 * tokens, 0) };
}

/** The windows that pith draws. */
async function writeIds(file: string): Promise<void> {
  await using reader = await openAny(model);
  const { sequences } = await calibrationData(reader, { spec: parseDatasetSpec(text), nsamples, seqlen, seed: 0 });
  writeFileSync(file, Buffer.concat(sequences.map((s) => Buffer.from(s.buffer, s.byteOffset, s.byteLength))));
}

const norms = await calibrate('sqnorm', 'sqnorm,absmean');
const grams = await calibrate('gram', 'sqnorm,absmean,gram');
const { forward, gram } = operations();
const row = (name: string, ms: number, flops: number, run?: Run): string[] => [
  name,
  seconds(ms),
  (flops / 1e6 / ms).toFixed(1),
  run === undefined ? '' : seconds(run.cpuMs),
  run === undefined ? '' : (run.peakBytes / MB).toFixed(0),
];
const rows = [
  row('squared norms, means', norms.ms, forward, norms),
  row('Gram matrices too', grams.ms, forward + gram, grams),
  row('the difference', grams.ms - norms.ms, gram),
];
const checks: [string, boolean][] = [];
if (peerPython() !== undefined) {
  const ids = join(work.path, 'ids.i32');
  await writeIds(ids);
  const theirs = await peer('calibrate.py', [model, ids, `${seqlen}`, out('gram'), '--layers', option('layers', '0,15,29'), '--threads', threads]);
  const [forwardS, gramS] = [Number(theirs['forwardS']), Number(theirs['gramS'])];
  rows.push(row('torch, forward alone', 1000 * forwardS, forward), row('torch, Gram matrices too', 1000 * gramS, forward + gram));
  const [frobenius, entry] = [Number(theirs['frobenius']), Number(theirs['entry'])];
  checks.push([`${String(theirs['modules'])} Gram matrices within ${TARGET} of torch's: ${frobenius.toExponential(1)}`, frobenius < TARGET]);
  checks.push([`every entry within ${TARGET} sqrt(G_ii G_jj): ${entry.toExponential(1)}`, entry < TARGET]);
  rows.push(['ours / torch', times(grams.ms / 1000 / gramS), '', '', '']);
}
console.log(`${machine()}; ${nsamples} x ${seqlen} tokens, ${(statSync(out('gram')).size / MB).toFixed(0)} MB of statistics\n`);
console.log(table(['statistics', 's', 'GFLOP/s', 'CPU s', 'peak MB'], rows), '\n');
verdicts(checks);
