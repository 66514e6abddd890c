/**
 * SIGKILL at random moments of a run, then the same command again: what must hold after each.
 * Shared by the small test here and by bench/kill9.ts on a real pair.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { Rng } from '../../core/rng.js';
import { BIN, hashTree } from '../support/files.js';

export interface KillPlan {
  readonly args: readonly string[];
  /** The path that `args` write to; its folder holds nothing else that a run makes. */
  readonly out: string;
  readonly moments: number;
  readonly seed: number;
}

export interface KillReport {
  /** Length of the undisturbed run, ms; kills fall into 0 .. 1.05 times that. */
  readonly ms: number;
  /** The process was still running when it was killed. */
  readonly killed: number;
  /** The kill came when the whole result was already there. */
  readonly complete: number;
  /** The rerun went on from the partial result; the others started anew. */
  readonly resumed: number;
  /** What did not hold, one line each; empty when all is well. */
  readonly faults: readonly string[];
}

interface Ended {
  readonly code: number | null;
  readonly stderr: string;
  readonly ms: number;
}

/** Runs pith in a process group of its own and kills the whole group after `killAfterMs`. */
function run(args: readonly string[], killAfterMs?: number): Promise<Ended> {
  const started = performance.now();
  const env = { ...process.env, NODE_V8_COVERAGE: '' };
  const child = spawn(process.execPath, [BIN, ...args, '--json'], { detached: true, stdio: ['ignore', 'ignore', 'pipe'], env });
  let stderr = '';
  child.stderr.on('data', (b: Buffer) => (stderr += b.toString('utf8')));
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => killGroup(child.pid), killAfterMs);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, stderr, ms: performance.now() - started });
    });
  });
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // it has ended already
  }
}

/** Bytes that the run took over from the one before, from its `job.start` event. */
function resumedBytes(stderr: string): number {
  const line = stderr.split('\n').find((l) => l.includes('"job.start"'));
  return line === undefined ? 0 : ((JSON.parse(line) as { resumedBytes?: number }).resumedBytes ?? 0);
}

/** `right` of an undisturbed run is the measure; throws when that one fails. */
export async function killRuns(plan: KillPlan): Promise<KillReport> {
  const { args, out, moments, seed } = plan;
  const folder = dirname(out);
  const before = new Set(readdirSync(folder));
  const first = await run(args);
  if (first.code !== 0) throw new Error(`the undisturbed run ended with ${first.code}: ${first.stderr}`);
  const right = JSON.stringify(sorted(hashTree(out)));
  rmSync(out, { recursive: true });
  const rng = new Rng(seed).fork(basename(out));
  const faults: string[] = [];
  let [killed, complete, resumed] = [0, 0, 0];
  for (let i = 0; i < moments; i++) {
    const at = rng.uniform() * first.ms * 1.05;
    const say = (what: string): void => void faults.push(`seed ${seed}, run ${i}, killed after ${at.toFixed(1)} ms: ${what}`);
    const end = await run(args, at);
    if (end.code !== 0) killed++;
    const whole = existsSync(out);
    if (whole && JSON.stringify(sorted(hashTree(out))) !== right) say('a damaged result under the final name');
    const again = await run(args);
    if (whole) {
      complete++;
      if (again.code !== 73) say(`the rerun over a whole result ended with ${again.code}: ${again.stderr.slice(-200)}`);
    } else {
      if (again.code !== 0) say(`the rerun ended with ${again.code}: ${again.stderr.slice(-200)}`);
      else if (JSON.stringify(sorted(hashTree(out))) !== right) say('the rerun made other bytes');
      if (resumedBytes(again.stderr) > 0) resumed++;
    }
    const left = readdirSync(folder).filter((n) => !before.has(n) && n !== basename(out));
    if (left.length > 0) say(`left behind after the rerun: ${left.join(', ')}${whole ? ' (the result was whole)' : ''}`);
    for (const n of [...left, basename(out)]) rmSync(`${folder}/${n}`, { recursive: true, force: true });
  }
  return { ms: first.ms, killed, complete, resumed, faults };
}

const sorted = (tree: Record<string, string>): [string, string][] => Object.entries(tree).sort(([a], [b]) => (a < b ? -1 : 1));
