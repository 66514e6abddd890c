/**
 * Perplexity of a pruned model, whole processes:
 *   node dist/bench/prune.js MODEL --calib CALIB.txt --eval EVAL.txt [--methods magnitude,wanda,sparsegpt,admm] [--sizes 0.3,0.5,0.6,0.7,2:4]
 *     [--nsamples 64] [--seqlen 512] [--max-tokens N] [--threads 2] [--one-shot]
 * Every method at every size, blocks in order on --nsamples windows of CALIB (`--one-shot`: statistics of the dense model, taken once for all methods),
 * then `pith eval` on EVAL by the GPTQ protocol. E is the mean over layers of the error, and of what: block by block each
 * method knows as much of the inputs as it asks for; with --one-shot all are judged by the output. Checks: neighbours in the order magnitude,
 * wanda, sparsegpt, admm do not get worse by more than 1 %, and wanda is better than magnitude.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { machine, MB, option, pith, positionals, seconds, table, verdicts, workFolder } from './support.js';

const usage = 'node dist/bench/prune.js MODEL --calib CALIB.txt --eval EVAL.txt [--methods LIST] [--sizes LIST] [--max-tokens N] [--one-shot]';
const [model = ''] = positionals(1, usage);
const [calib, text] = [option('calib', ''), option('eval', '')];
if (calib === '' || text === '') throw new Error(usage);
const methods = option('methods', 'magnitude,wanda,sparsegpt,admm').split(',');
const sizes = option('sizes', '0.3,0.5,0.6,0.7,2:4').split(',');
const [nsamples, seqlen, threads, maxTokens] = [option('nsamples', '64'), option('seqlen', '512'), option('threads', '2'), option('max-tokens', '')];
const oneShot = process.argv.includes('--one-shot');
/** Methods that rank by the weights alone. */
const WEIGHTS_ONLY = ['magnitude', 'random'];
/** What neighbours may differ by. */
const TIE = 1.01;
const ORDER = ['magnitude', 'wanda', 'sparsegpt', 'admm', 'alps'];

using work = workFolder('prune');
const windows = ['--nsamples', nsamples, '--seqlen', seqlen];
const stats = join(work.path, 'stats.safetensors');

async function perplexity(checkpoint: string): Promise<number> {
  const limit = maxTokens === '' ? [] : ['--max-tokens', maxTokens];
  const args = ['eval', checkpoint, '--dataset', text, '--protocol', 'gptq', '--seqlen', seqlen, ...limit, '-j', threads, '--json', '--quiet'];
  return (JSON.parse((await pith(args)).stdout) as { ppl: number }).ppl;
}

interface Figure {
  readonly ppl: number;
  readonly error: number;
  readonly errorOf: string;
  readonly sparsity: number;
  readonly ms: number;
  readonly peakBytes: number;
}

async function figure(method: string, size: string): Promise<Figure> {
  const out = join(work.path, 'out');
  const data = WEIGHTS_ONLY.includes(method) ? [] : oneShot ? ['--stats', stats] : ['--dataset', calib, ...windows];
  const target = size.includes(':') ? ['--pattern', size] : ['--sparsity', size];
  const r = await pith(['prune', model, '--method', method, ...target, ...data, '-j', threads, '--out', out, '--json', '--quiet']);
  const doc = JSON.parse(r.stdout) as { sparsity: number; ms: number; peakRssBytes: number; tensors: { error: number; errorOf: string }[] };
  const ppl = await perplexity(out);
  rmSync(out, { recursive: true });
  const error = doc.tensors.reduce((sum, t) => sum + t.error, 0) / doc.tensors.length;
  return { ppl, error, errorOf: doc.tensors[0]!.errorOf, sparsity: doc.sparsity, ms: doc.ms, peakBytes: doc.peakRssBytes };
}

if (oneShot) await pith(['calibrate', model, '--dataset', calib, ...windows, '-j', threads, '--out', stats, '--quiet']);
const dense = await perplexity(model);
console.log(machine());
console.log(`dense: perplexity ${dense.toFixed(3)}; ${nsamples} windows of ${seqlen} tokens, ${oneShot ? 'one-shot' : 'block by block'}`);
const rows: string[][] = [];
const checks: [string, boolean][] = [];
for (const size of sizes) {
  const found = new Map<string, Figure>();
  for (const method of methods) {
    const f = await figure(method, size);
    found.set(method, f);
    rows.push([size, method, f.ppl.toFixed(3), (f.ppl / dense).toFixed(3), `${f.error.toFixed(4)} ${f.errorOf}`, `${(100 * f.sparsity).toFixed(2)} %`, seconds(f.ms), (f.peakBytes / MB).toFixed(0)]); // prettier-ignore
    console.error(rows.at(-1)!.join('  '));
  }
  const order = ORDER.filter((m) => found.has(m));
  for (const [i, better] of order.entries()) {
    if (i === 0) continue;
    const worse = order[i - 1]!;
    const factor = worse === 'magnitude' ? 1 : TIE;
    checks.push([`${size}: ${better} is no worse than ${worse}`, found.get(better)!.ppl <= factor * found.get(worse)!.ppl]);
  }
}
console.log(table(['size', 'method', 'perplexity', 'to dense', 'E', 'zeros', 's', 'peak MB'], rows));
verdicts(checks);
