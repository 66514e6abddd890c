// Writes test/fixtures/residual-v1. Run once, when the format was frozen; a new version gets a folder of its own.
import { mkdirSync, writeFileSync, existsSync } from 'node:fs';
import { encodeAs } from '../dist/core/float.js';
import { Rng } from '../dist/core/rng.js';
import { ResidualCodec } from '../dist/kernels/residual/codec.js';

const folder = new URL('../test/fixtures/residual-v1/', import.meta.url);
if (existsSync(new URL('cases.json', folder))) throw new Error('version 1 is frozen');
mkdirSync(folder, { recursive: true });
const codec = await ResidualCodec.create();
const n = 1500;
const rng = new Rng(1);
const a = rng
  .fork('a')
  .normals(n)
  .map((v) => v * 0.02);
const b = a.map((v, i) => v + 0.0004 * rng.fork(`d${i}`).normal());
const noise = Uint8Array.from({ length: n }, () => rng.uint32());
const sparse = (bytes) => bytes.map((v, i) => (i % 200 === 0 ? v ^ 1 : v));
const cases = [];
function add(name, dtype, base, tuned, wordBytes) {
  const words = tuned.length / wordBytes;
  const v = codec.reserve(tuned.length);
  if (base) v.base.set(base);
  v.tuned.set(tuned);
  const segment = codec.encodeSegment(dtype, words, base !== undefined).slice();
  cases.push({ name, dtype, words, hasBase: base !== undefined, mode: codec.stats.mode });
  for (const [part, bytes] of Object.entries({ base, tuned, segment })) if (bytes) writeFileSync(new URL(`${name}.${part}`, folder), bytes);
}
for (const dtype of ['BF16', 'F16', 'F32']) {
  const wb = dtype === 'F32' ? 4 : 2;
  add(`dense-${dtype}`, dtype, encodeAs(dtype, a), encodeAs(dtype, b), wb);
  add(`plane-${dtype}`, dtype, undefined, encodeAs(dtype, b), wb);
}
add('sparse-BF16', 'BF16', encodeAs('BF16', a), sparse(encodeAs('BF16', a)), 2);
add('identical-BF16', 'BF16', encodeAs('BF16', a), encodeAs('BF16', a), 2);
add('raw-U8', 'U8', undefined, noise, 1);
add(
  'dense-I8',
  'I8',
  noise,
  noise.map((v, i) => v + (i % 3)),
  1,
);
add(
  'dense-F8_E4M3',
  'F8_E4M3',
  noise,
  noise.map((v, i) => v ^ (i % 2)),
  1,
);
add('plane-I32', 'I32', undefined, new Uint8Array(Int32Array.from({ length: n }, (_, i) => (i % 77) - 30).buffer), 4);
writeFileSync(new URL('cases.json', folder), `${JSON.stringify(cases, null, 1)}\n`);
