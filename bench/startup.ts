/**
 * How long a start takes, and what it loads:
 *   node dist/bench/startup.js [--repeat 15]
 * `pith --help` against `node -e 0`; a lossless encode of the tiny pair. Best of several, taken in turns. That tfjs is not loaded is
 * seen from outside: NODE_DEBUG=module would miss ES modules, so a preloaded hook lists every file URL that the process and its
 * threads load (`--import`, node:module register), and the list must not name a tfjs bundle.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { BIN, machine, option, run, table, TINY, times, verdicts, workFolder } from './support.js';

const repeat = Number(option('repeat', '15'));
using work = workFolder('startup');
const out = join(work.path, 'd.safetensors');
const encode = [BIN, 'delta', 'encode', '--base', join(TINY, 'base'), '--tuned', join(TINY, 'tuned'), '--out', out, '--quiet'];
const COMMANDS: Record<string, string[]> = { 'node -e 0': ['-e', '0'], 'pith --help': [BIN, '--help'], 'pith delta encode, tiny pair': encode };

const best = new Map<string, { ms: number; cpuMs: number }>();
for (let i = 0; i < repeat; i++) {
  for (const [name, args] of Object.entries(COMMANDS)) {
    rmSync(out, { force: true });
    const r = await run(process.execPath, args);
    if (r.code !== 0) throw new Error(`${name} ended with ${r.code ?? r.signal}: ${r.stderr}`);
    const b = best.get(name);
    best.set(name, { ms: Math.min(r.ms, b?.ms ?? Infinity), cpuMs: Math.min(r.cpuMs, b?.cpuMs ?? Infinity) });
  }
}

/** Every module URL that the run loads, in its threads too. */
async function loaded(args: string[]): Promise<string[]> {
  const log = join(work.path, 'loaded.txt');
  const hook = join(work.path, 'hook.mjs');
  const register = join(work.path, 'register.mjs');
  writeFileSync(log, '');
  writeFileSync(
    hook,
    `import { appendFileSync } from 'node:fs';
export async function load(url, context, next) { appendFileSync(${JSON.stringify(log)}, url + '\\n'); return next(url, context); }\n`,
  );
  // required files (CommonJS) do not pass an ES module hook: note them where they are resolved
  writeFileSync(
    register,
    `import Module, { register } from 'node:module';
import { appendFileSync } from 'node:fs';
register(${JSON.stringify(pathToFileURL(hook).href)});
const load = Module._load;
Module._load = function (request, ...rest) { appendFileSync(${JSON.stringify(log)}, 'require ' + request + '\\n'); return load.call(this, request, ...rest); };\n`,
  );
  rmSync(out, { force: true });
  const r = await run(process.execPath, args, { env: { NODE_OPTIONS: `--import=${register}` } });
  if (r.code !== 0) throw new Error(`with the hook: ${r.stderr}`);
  return [...new Set(readFileSync(log, 'utf8').trim().split('\n'))];
}

const isTf = (url: string): boolean => /tensorflow|tfjs|dist\/vendor\//.test(url);
const lists = new Map<string, string[]>();
for (const name of ['pith --help', 'pith delta encode, tiny pair']) lists.set(name, await loaded(COMMANDS[name]!));
// the proof must be able to fail: a run that imports a file of such a name is seen
const standIn = join(work.path, 'tfjs-stand-in.mjs');
writeFileSync(standIn, 'export default 0;\n');
const control = await loaded(['--input-type=module', '-e', `await import(${JSON.stringify(pathToFileURL(standIn).href)})`]);

const node = best.get('node -e 0')!.ms;
console.log(`${machine()}; best of ${repeat}, in turns\n`);
const rows = [...best].map(([name, b]) => [
  name,
  b.ms.toFixed(0),
  times(b.ms / node),
  String(lists.get(name)?.length ?? ''),
  lists.has(name) ? String(lists.get(name)!.filter(isTf).length) : '',
]);
console.log(`${table(['', 'ms', 'x node -e 0', 'modules loaded', 'of tfjs'], rows)}\n`);
const help = await run(process.execPath, [BIN, '--help']);
const topics = ['delta', 'methods', 'inspect', 'diff', 'doctor', 'demo'].filter((t) => !new RegExp(`^\\s+${t}\\b`, 'm').test(help.stdout));
verdicts([
  ['pith --help <= 4 x node -e 0', best.get('pith --help')!.ms <= 4 * node],
  ['lossless encode of the tiny pair < 1 s', best.get('pith delta encode, tiny pair')!.ms < 1000],
  ['the hook sees the threads of the encode', lists.get('pith delta encode, tiny pair')!.some((u) => u.includes('workers/entry'))],
  ['tfjs is loaded for neither', [...lists.values()].every((l) => l.length > 5 && !l.some(isTf))],
  ['the hook sees a module named like tfjs when one is loaded', control.some(isTf)],
  [`--help names inspect, diff, doctor, demo, delta, methods${topics.length > 0 ? ` (missing: ${topics.join(', ')})` : ''}`, topics.length === 0],
]);
