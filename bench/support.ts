/** What the benches share: running pith and its peers in processes of their own, watching them, and tables. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync } from 'node:fs';
import { mkdtempSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The package's root, seen from dist/bench. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const BIN = join(ROOT, 'bin', 'run.js');
export const TINY = join(ROOT, 'examples', 'tiny');

export interface Run {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Wall time from spawn to exit, process start included. */
  readonly ms: number;
  /** User and system CPU time, ms; the last sample before the exit, so up to one sampling interval short. */
  readonly cpuMs: number;
  /** High-water mark of the resident set (VmHWM), bytes; 0 where /proc does not have it. */
  readonly peakBytes: number;
}

const SAMPLE_MS = 10;
/** Linux counts CPU time in ticks of 1/100 s. */
const TICK_MS = 10;

/** Runs a command to its end, sampling /proc. It gets a process group of its own; `onStart` may keep the pid, to kill it. */
export function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; onStart?: (pid: number) => void } = {},
): Promise<Run> {
  const started = performance.now();
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_V8_COVERAGE: '', ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (b: Buffer) => out.push(b));
  child.stderr.on('data', (b: Buffer) => err.push(b));
  let peakBytes = 0;
  let cpuMs = 0;
  const sample = (): void => {
    try {
      const hwm = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'))?.[1];
      if (hwm !== undefined) peakBytes = Math.max(peakBytes, Number(hwm) * 1024);
      const stat = readFileSync(`/proc/${child.pid}/stat`, 'latin1').split(') ')[1]?.split(' ');
      cpuMs = (Number(stat?.[11]) + Number(stat?.[12])) * TICK_MS;
    } catch {
      // the process is gone, or there is no /proc
    }
  };
  const timer = setInterval(sample, SAMPLE_MS);
  if (child.pid !== undefined) options.onStart?.(child.pid);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearInterval(timer);
      const text = (parts: Buffer[]): string => Buffer.concat(parts).toString('utf8');
      resolve({ code, signal, stdout: text(out), stderr: text(err), ms: performance.now() - started, cpuMs, peakBytes });
    });
  });
}

/** pith itself; throws when it fails. */
export async function pith(args: readonly string[], options: { cwd?: string; env?: Record<string, string> } = {}): Promise<Run> {
  const r = await run(process.execPath, [BIN, ...args], options);
  if (r.code !== 0) throw new Error(`pith ${args.join(' ')} ended with ${r.code ?? r.signal}: ${r.stderr}`);
  return r;
}

export interface PeerResult {
  readonly bytes: number;
  /** Best of the repeats, seconds, file to file inside the running interpreter: its start and its imports are not counted. */
  readonly encodeS: number;
  readonly restoreS: number;
  readonly [more: string]: number | string | boolean;
}

/** The Python of the peers' environment (bench/README.md), or undefined. */
export function peerPython(): string | undefined {
  return process.env['PITH_PEERS'] === '' ? undefined : process.env['PITH_PEERS'];
}

/** Runs bench/peers/<script>; its last line of stdout is one JSON object. */
export async function peer(script: string, args: readonly string[]): Promise<PeerResult & { wallMs: number; peakBytes: number }> {
  const python = peerPython();
  if (python === undefined) throw new Error('PITH_PEERS names no Python; see bench/README.md');
  const r = await run(python, [join(ROOT, 'bench', 'peers', script), ...args]);
  if (r.code !== 0) throw new Error(`${script} ended with ${r.code ?? r.signal}:\n${r.stderr}`);
  const line = r.stdout.trim().split('\n').at(-1) ?? '';
  return { ...(JSON.parse(line) as PeerResult), wallMs: r.ms, peakBytes: r.peakBytes };
}

export function workFolder(name: string): { path: string } & Disposable {
  const path = mkdtempSync(join(process.env['PITH_BENCH_TMP'] ?? tmpdir(), `pith-bench-${name}-`));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** SHA-256 of a file of any size, read in pieces; brings it into the page cache too. */
export function hashFile(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const hash = createHash('sha256');
    const buffer = Buffer.allocUnsafe(8 << 20);
    for (let n = readSync(fd, buffer); n > 0; n = readSync(fd, buffer)) hash.update(buffer.subarray(0, n));
    return hash.digest('hex');
  } finally {
    closeSync(fd);
  }
}

/** relative name -> SHA-256 of every file below a folder, or of the one file. */
export function hashTree(path: string): Map<string, string> {
  if (statSync(path).isFile()) return new Map([['', hashFile(path)]]);
  const files = readdirSync(path, { withFileTypes: true, recursive: true }).filter((e) => e.isFile());
  return new Map(files.map((e) => join(e.parentPath, e.name)).map((p) => [p.slice(path.length + 1), hashFile(p)]));
}

/** Throws unless both trees hold the same files with the same bytes; answers their number. */
export function assertSameTree(expected: ReadonlyMap<string, string>, path: string): number {
  const got = hashTree(path);
  for (const name of new Set([...expected.keys(), ...got.keys()])) {
    if (expected.get(name) !== got.get(name)) throw new Error(`${path}: file "${name}" differs`);
  }
  return got.size;
}

export const kill = (pid: number): void => {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // it has ended already
  }
};

/** A Markdown table, the first column left, the others right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const width = head.map((_, i) => Math.max(...all.map((r) => (r[i] ?? '').length), 3));
  const line = (r: readonly string[]): string => `| ${r.map((c, i) => (i === 0 ? c.padEnd(width[i]!) : c.padStart(width[i]!))).join(' | ')} |`;
  return [line(head), `| ${width.map((w, i) => (i === 0 ? '-'.repeat(w) : `${'-'.repeat(w - 1)}:`)).join(' | ')} |`, ...rows.map(line)].join('\n');
}

/** What the numbers were made on; no names of machines. */
export function machine(): string {
  const gcc = spawnSync('uname', ['-m'], { encoding: 'utf8' }).stdout.trim();
  return `${availableParallelism()} cores, ${gcc}, Node ${process.versions.node}, load before ${execFileSync('cat', ['/proc/loadavg'], { encoding: 'utf8' }).split(' ')[0] ?? '?'}`;
}

export const MB = 1e6;
export const seconds = (ms: number): string => (ms / 1000).toFixed(2);
export const times = (x: number): string => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2));

/** Prints each check with its verdict and sets the exit code: a bench that misses its target says so. */
export function verdicts(checks: readonly (readonly [what: string, ok: boolean])[]): void {
  for (const [what, ok] of checks) {
    console.log(`${ok ? 'met   ' : 'MISSED'} ${what}`);
    if (!ok) process.exitCode = 1;
  }
}

/** `--name value` of the command line. */
export function option(name: string, fallback: string): string {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : (process.argv[at + 1] ?? fallback);
}

/** Arguments that are neither `--name` nor its value. */
export function positionals(count: number, usage: string): string[] {
  const out = process.argv.slice(2).filter((a, i, all) => !a.startsWith('--') && !(all[i - 1] ?? '').startsWith('--'));
  if (out.length >= count) return out;
  console.error(`usage: ${usage}`);
  process.exit(64);
}
