/**
 * Logits of a decoder against transformers' in f32 (peers/logits.py --out), for the first tokens of a text:
 *     node dist/bench/logits.js MODEL TEXT [--tokens 64]
 * Needs PITH_PEERS (bench/README.md). For text encoders see embeddings.ts.
 */
import { join } from 'node:path';
import { decodeF32 } from '../core/float.js';
import { SafetensorsFile } from '../formats/safetensors/file.js';
import { setupBackend } from '../kernels/backend/setup.js';
import { logitsOf } from '../test/support/models.js';
import { machine, option, peer, positionals, table, verdicts, workFolder } from './support.js';

const MOST = 2e-4;
const [model, text] = positionals(2, 'node dist/bench/logits.js MODEL TEXT') as [string, string];
using work = workFolder('logits');
const out = join(work.path, 'peer.safetensors');
await peer('logits.py', [model, '--tokens', option('tokens', '64'), '--text', text, '--out', out]);
using file = SafetensorsFile.open(out);
const values = (name: string): Float32Array => decodeF32('F32', file.read(name).bytes);
const ids = file.read('input_ids').bytes;
const tokens = new Int32Array(ids.buffer.slice(ids.byteOffset, ids.byteOffset + ids.byteLength));
const expected = values('logits');
const { description } = await setupBackend('cpu', { blasThreads: 2 });
const got = await logitsOf(model, [tokens]);
if (got.length !== expected.length) throw new Error(`${got.length} logits; transformers has ${expected.length}`);
const difference = got.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[i]!)), 0);
const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 0);

console.log(`${machine()}; ${description}\n`);
console.log(table(['model', 'tokens', 'logits', 'largest', 'largest difference'], [[model.split('/').at(-1)!, `${tokens.length}`, `${got.length}`, largest.toFixed(2), difference.toExponential(2)]])); // prettier-ignore
console.log('');
verdicts([[`largest difference at most ${MOST}`, difference <= MOST] as const]);
