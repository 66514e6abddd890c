/**
 * Ids of a long text, warm, on one thread, against transformers' fast tokenizer, token by token:
 *   node dist/bench/tokenizer.js TEXT MODEL [MODEL ...] [--repeat 3]
 * A MODEL is a folder with a tokenizer.json. Reading the files is not in the times; a tokenizer whose ids differ anywhere has none.
 */
import { readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { tokenizerOf } from '../workers/load-tokenizer.js';
import { machine, MB, option, peer, peerPython, positionals, seconds, table, times, verdicts, workFolder } from './support.js';

const [file = '', ...folders] = positionals(2, 'node dist/bench/tokenizer.js TEXT MODEL [MODEL ...] [--repeat 3]');
const repeat = Number(option('repeat', '3'));
/** Time over the peer's. */
const TARGET = 2;

const text = readFileSync(file, 'utf8');
const bytes = statSync(file).size;
const rows: string[][] = [];
const checks: [string, boolean][] = [];
using work = workFolder('tokenizer');

for (const folder of folders) {
  const name = basename(folder);
  const started = performance.now();
  tokenizerOf(folder);
  const loadMs = performance.now() - started;
  const all = Array.from({ length: repeat + 1 }, () => {
    // a tokenizer of its own each time: words that were met are kept
    const fresh = tokenizerOf(folder);
    const begin = performance.now();
    const ids = fresh.encode(text);
    return { ms: performance.now() - begin, ids };
  });
  const ms = Math.min(...all.slice(1).map((a) => a.ms));
  const ids = all[0]!.ids;
  const row = [name, String(ids.length), `${loadMs.toFixed(0)} ms`, seconds(ms), (bytes / MB / (ms / 1000)).toFixed(2)];
  if (peerPython() === undefined) {
    rows.push([...row, '', '']);
    continue;
  }
  const out = join(work.path, `${name}.i32`);
  const theirs = await peer('tokenizer.py', [folder, file, out, '--repeat', String(repeat)]);
  const raw = readFileSync(out);
  const expected = new Int32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length));
  const differs = expected.length === ids.length ? ids.findIndex((id, i) => id !== expected[i]) : Math.min(ids.length, expected.length);
  checks.push([`${name}: all ${expected.length} ids are transformers'${differs < 0 ? '' : `, first other one at ${differs}`}`, differs < 0]);
  checks.push([`${name}: time <= ${TARGET} x transformers'`, differs < 0 && ms <= TARGET * 1000 * theirs.encodeS]);
  rows.push([...row, seconds(1000 * theirs.encodeS), times(ms / 1000 / theirs.encodeS)]);
}

console.log(`${machine()}; ${basename(file)}, ${(bytes / MB).toFixed(2)} MB\n`);
console.log(table(['tokenizer', 'tokens', 'load', 's', 'MB/s', "transformers' s", 'ours / theirs'], rows), '\n');
verdicts(checks);
