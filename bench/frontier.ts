/**
 * Bytes on disk against what the restored model loses, for every codec at every size:
 *   node dist/bench/frontier.js BASE TUNED --data GSM8K.jsonl --from 1500 [--sizes 1,2,4,8,16] [--methods auto,ere,...]
 *       [--auto-dataset FILE --auto-rows 0:320]
 *       [--limits 0.65:0.10,1.7:0.055] [--settings bitdelta,delta-come:allocate=greedy] [--stats FILE]
 *       [--deltatensors int4,sparse,quantized] [--threads 2]
 * KLD: of the restored checkpoint to the tuned one, nats a token, by bench/peers/kld.py with transformers. `--limits` are sizes with the
 * KLD that `auto` may have there; `--settings` are codecs at settings of their own, without a target; `--deltatensors` are strategies of
 * that package at its own defaults, through the same table. With `--stats` (pith calibrate) delta-come is run again, fitted to them. Files as they lie on disk, in percent of the fine-tune's tensor bytes.
 * `auto` is checked against the lower envelope of the single codecs at every size, within 2 %: in error, and in KLD. With --auto-dataset it is run on
 * that data as well (rows that the KLD is not measured on), and then it is this run whose KLD is checked.
 */
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { machine, option, peer, peerPython, pith, positionals, ROOT, seconds, table, verdicts, workFolder } from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/frontier.js BASE TUNED --data GSM8K.jsonl --from 1500') as [string, string];
const data = option('data', '');
const from = option('from', '1500');
const list = (name: string, fallback: string): string[] =>
  option(name, fallback)
    .split(',')
    .filter((s) => s !== '');
const methods = list('methods', 'auto,lowrank-ecsq,ecsq,ere,delta-come,int,sparse');
const sizes = list('sizes', '1,2,4,8,16').map(Number);
const limits = list('limits', '').map((l) => l.split(':').map(Number) as [size: number, kld: number]);
const settings = list('settings', 'bitdelta,lossless');
const strategies = list('deltatensors', peerPython() === undefined ? '' : 'int4,sparse,quantized');
const autoDataset = option('auto-dataset', '');
const autoData =
  autoDataset === '' ? [] : ['--dataset', autoDataset, '--template', 'Question: {question}\nAnswer: {answer}\n', ...rowsOf(option('auto-rows', ''))];
const stats = option('stats', '');
const threads = option('threads', '2');
const ENVELOPE = 1.02;

interface Point {
  readonly method: string;
  /** Percent of the raw bytes that were asked for. */
  readonly asked?: number;
  readonly percent: number;
  readonly error: number;
  readonly ms: number;
  readonly kld?: number;
}

function rowsOf(rows: string): string[] {
  return rows === '' ? [] : ['--rows', rows];
}

using work = workFolder('frontier');
const delta = join(work.path, 'd.safetensors');
const folder = join(work.path, 'restored');

/** One process for all checkpoints: the reference's probabilities are computed once. */
function startKld(python: string): { of(path: string): Promise<number>; end(): void } {
  const child = spawn(python, [join(ROOT, 'bench', 'peers', 'kld.py'), tuned, data, '--from', from, '--threads', threads, '-'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async of(path) {
      child.stdin.write(`${path}\n`);
      const line = (await lines.next()) as IteratorResult<string, undefined>;
      if (line.done === true) throw new Error('kld.py ended; run it by hand to see why');
      return (JSON.parse(line.value) as { kld: number }).kld;
    },
    end: () => child.stdin.end(),
  };
}

const python = peerPython();
const kld = python === undefined || data === '' ? undefined : startKld(python);

/** What was measured, on stderr too: a sweep takes long. */
async function point(p: Omit<Point, 'kld'>): Promise<Point> {
  const loss = await kld?.of(folder);
  const all = { ...p, ...(loss === undefined ? {} : { kld: loss }) };
  console.error(row(all).join('  '));
  return all;
}

/** undefined: the codec cannot be that small. */
async function measure(
  method: string,
  asked: number | undefined,
  more: readonly string[],
  name = [method, ...more.filter((m) => m !== '--set')].join(' '),
): Promise<Point | undefined> {
  // prettier-ignore
  const args = [
    'delta',
    'encode',
    '--base',
    base,
    '--tuned',
    tuned,
    '--out',
    delta,
    '--force',
    '--no-resume',
    '--method',
    method,
    '--json',
    '--quiet',
    '-j',
    threads,
    ...more,
  ];
  try {
    const r = await pith(asked === undefined ? args : [...args, '--target-ratio', String(100 / asked)]);
    const { ratio, error } = JSON.parse(r.stdout) as { ratio: number; error?: number };
    await pith(['delta', 'restore', '--base', base, '--delta', delta, '--out', folder, '-j', threads]);
    return await point({ method: name, ...(asked === undefined ? {} : { asked }), percent: 100 * ratio, error: error ?? 0, ms: r.ms });
  } catch (e) {
    if (asked !== undefined && String(e).includes('cannot be met')) return undefined;
    throw e;
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(delta, { force: true });
  }
}

async function measurePeer(strategy: string): Promise<Point> {
  try {
    const r = await peer('deltatensors_delta.py', [base, tuned, folder, '--strategy', strategy, '--threads', threads]);
    return await point({
      method: `deltatensors ${strategy}`,
      percent: (100 * r.bytes) / Number(r['rawBytes']),
      error: Number(r['error']),
      ms: 1000 * r.encodeS,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const row = (p: Point): string[] => [
  p.method,
  p.asked === undefined ? '' : `${p.asked} %`,
  `${p.percent.toFixed(2)} %`,
  p.error.toFixed(4),
  p.kld?.toPrecision(3) ?? '',
  seconds(p.ms),
];

const where = machine();
const points: Point[] = [];
const checks: [string, boolean][] = [];
const WITH_DATA = 'auto --dataset';
for (const [size, most] of limits) {
  const p = await measure('auto', size, []);
  if (p !== undefined) points.push(p);
  checks.push([`auto: <= ${size} % with a KLD of <= ${most}`, p !== undefined && p.percent <= size && (p.kld ?? Infinity) <= most]);
}
const swept: Point[] = [];
for (const method of methods) {
  for (const size of sizes) {
    const p = await measure(method, size, []);
    if (p !== undefined) swept.push(p);
  }
}
if (autoData.length > 0) {
  for (const size of sizes) {
    const p = await measure('auto', size, autoData, WITH_DATA);
    if (p !== undefined) swept.push(p);
  }
}
for (const s of settings) {
  const [method, ...set] = s.split(':') as [string, ...string[]];
  const args = set.flatMap((kv) => ['--set', kv]);
  const p = await measure(method, undefined, args);
  if (p !== undefined) points.push(p);
  if (p === undefined || method !== 'delta-come' || stats === '') continue;
  const fitted = await measure(method, undefined, [...args, '--stats', stats], `${p.method} --stats`);
  if (fitted === undefined) continue;
  points.push(fitted);
  checks.push([`${fitted.method}: the same bytes within 0.1 %`, Math.abs(fitted.percent / p.percent - 1) < 1e-3]);
  if (p.kld !== undefined)
    checks.push([`${fitted.method}: KLD ${(fitted.kld! / p.kld).toFixed(3)} of that of round-to-nearest, below it`, fitted.kld! < p.kld]);
}
for (const s of strategies) points.push(await measurePeer(s));
kld?.end();
for (const size of sizes) {
  const auto = swept.find((p) => p.method === 'auto' && p.asked === size);
  const others = swept.filter((p) => !p.method.startsWith('auto') && p.asked === size);
  if (auto === undefined || others.length === 0) continue;
  checks.push([`auto at ${size} %: error within 2 % of the best single codec or below`, auto.error <= ENVELOPE * Math.min(...others.map((p) => p.error))]);
  const judged = swept.find((p) => p.method === WITH_DATA && p.asked === size) ?? auto;
  if (judged.kld !== undefined)
    checks.push([`${judged.method} at ${size} %: KLD likewise`, judged.kld <= ENVELOPE * Math.min(...others.map((p) => p.kld ?? Infinity))]);
}
console.log(`${where}\n\n${table(['method', 'asked', 'file', 'error', 'KLD', 's'], [...points, ...swept].map(row))}\n`);
verdicts(checks);
