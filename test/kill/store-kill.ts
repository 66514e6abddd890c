/**
 * SIGKILL at random moments of the work of `store add` and `store gc`: what must hold after each. Shared by the small test here and by bench/store.ts.
 */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import { pith } from '../support/cli.js';
import { BIN, hashTree } from '../support/files.js';

export interface StoreKillPlan {
  /** A store as it is before every run; never changed. */
  readonly prepared: string;
  /** Models that it holds, and the folders that they came from. */
  readonly models: ReadonlyMap<string, string>;
  /** Added by the run that is killed; undefined: a gc is killed. */
  readonly add?: { readonly name: string; readonly path: string };
  /** Folder for copies. */
  readonly work: string;
  readonly moments: number;
  readonly seed: number;
}

export interface StoreKillReport {
  /** Length of an undisturbed run from its first touch of the store on; kills fall into this time. */
  readonly ms: number;
  /** The process was still running when it was killed. */
  readonly killed: number;
  /** It had changed the store without finishing. */
  readonly midway: number;
  readonly faults: readonly string[];
}

/** How often the parent looks whether the run has begun its work. */
const POLL_MS = 1;
/** A run that ended before its moment is tried again, with the moment this much earlier. */
const EARLIER = 0.6;
const TRIES = 6;

/** It has made its first file in the store: Node's own start, which takes longer the busier the machine is, lies behind it. */
const hasBegun = (store: string): boolean => existsSync(join(store, 'lock')) || readdirSync(join(store, 'tmp')).length > 0;

interface Ended {
  readonly code: number | null;
  /** From its first touch of the store to its end. */
  readonly ms: number;
}

/** Runs pith in a process group of its own and kills the whole group so long after its first touch of the store. */
function run(args: readonly string[], store: string, killAfterMs?: number): Promise<Ended> {
  const child = spawn(process.execPath, [BIN, ...args, '--quiet'], { detached: true, stdio: 'ignore', env: { ...process.env, NODE_V8_COVERAGE: '' } });
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // it has ended already
    }
  };
  let [begun, timer] = [performance.now(), undefined as NodeJS.Timeout | undefined];
  const watch = setInterval(() => {
    if (!hasBegun(store)) return;
    clearInterval(watch);
    begun = performance.now();
    if (killAfterMs !== undefined) timer = setTimeout(kill, killAfterMs);
  }, POLL_MS);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(watch);
      clearTimeout(timer);
      resolve({ code, ms: performance.now() - begun });
    });
  });
}

const objects = (store: string): string => Object.keys(hashTree(join(store, 'objects'))).sort().join('\n'); // prettier-ignore

export async function killStore(plan: StoreKillPlan): Promise<StoreKillReport> {
  const { prepared, models, add, work, moments, seed } = plan;
  const store = join(work, 'store');
  const args = add === undefined ? ['store', 'gc', store, '--older-than', '0s'] : ['store', 'add', store, add.path, '--name', add.name];
  const fresh = (): void => {
    rmSync(store, { recursive: true, force: true });
    cpSync(prepared, store, { recursive: true });
  };
  let ms = Infinity;
  // the shortest of three: a run that other work slowed down would put the moments behind the end of most runs
  for (let i = 0; i < 3; i++) {
    fresh();
    const undisturbed = await run(args, store);
    if (undisturbed.code !== 0) throw new Error(`the undisturbed run ended with ${undisturbed.code ?? 'a signal'}`);
    ms = Math.min(ms, undisturbed.ms);
  }
  const [before, after] = [objects(prepared), objects(store)];
  const rng = new Rng(seed).fork(args[1]!);
  const faults: string[] = [];
  let [killed, midway] = [0, 0];
  for (let i = 0; i < moments; i++) {
    let at = rng.uniform() * ms;
    fresh();
    let end = await run(args, store, at);
    for (let tries = 1; end.code === 0 && tries < TRIES; tries++) {
      at *= EARLIER;
      fresh();
      end = await run(args, store, at);
    }
    const say = (what: string): void => void faults.push(`seed ${seed}, run ${i}, killed after ${at.toFixed(1)} ms: ${what}`);
    if (end.code !== 0) killed++;
    const now = objects(store);
    if (end.code !== 0 && now !== before && now !== after) midway++;
    const verify = pith(['store', 'verify', store, '--quiet']);
    if (verify.code !== 0) say(`verify ended with ${verify.code ?? '?'}: ${verify.stdout}${verify.stderr}`);
    const expected = new Map(models);
    if (add !== undefined) {
      const whole = existsSync(join(store, 'models', `${add.name}.json`));
      const again = pith([...args, '--quiet']);
      if (again.code !== (whole ? 73 : 0)) say(`the same command again ended with ${again.code ?? '?'}: ${again.stderr}`);
      expected.set(add.name, add.path);
    }
    const gc = pith(['store', 'gc', store, '--older-than', '0s', '--json']);
    if (gc.code !== 0) say(`gc ended with ${gc.code ?? '?'}: ${gc.stderr}`);
    if (objects(store) !== after) say('not the objects of an undisturbed run after another gc');
    for (const [name, path] of expected) {
      const out = join(work, 'out');
      const got = pith(['store', 'get', store, name, '--out', out, '--quiet']);
      if (got.code !== 0) say(`get ${name} ended with ${got.code ?? '?'}: ${got.stderr}`);
      else if (JSON.stringify(sorted(hashTree(out))) !== JSON.stringify(sorted(hashTree(path)))) say(`${name} came back with other bytes`);
      rmSync(out, { recursive: true, force: true });
    }
    const left = [...readdirSync(join(store, 'tmp')), ...(existsSync(join(store, 'lock')) ? ['lock'] : [])];
    if (left.length > 0) say(`left behind: ${left.join(', ')}`);
  }
  rmSync(store, { recursive: true, force: true });
  return { ms, killed, midway, faults };
}

const sorted = (tree: Record<string, string>): [string, string][] => Object.entries(tree).sort(([a], [b]) => (a < b ? -1 : 1));

/** A store with `models` in it, and with the objects of `lost`, whose record is gone. */
export function prepareStore(store: string, models: ReadonlyMap<string, string>, lost: readonly string[] = []): void {
  const must = (args: readonly string[]): void => {
    const r = pith([...args, '--quiet']);
    if (r.code !== 0) throw new Error(`pith ${args.join(' ')} ended with ${r.code ?? '?'}: ${r.stderr}`);
  };
  must(['store', 'init', store]);
  for (const [name, path] of models) must(['store', 'add', store, path, '--name', name]);
  for (const path of lost) {
    must(['store', 'add', store, path, '--name', 'lost']);
    rmSync(join(store, 'models', 'lost.json'));
  }
}
