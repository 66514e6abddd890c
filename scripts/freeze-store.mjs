// Writes test/fixtures/store-v1: a frozen store of version 1 and the hashes of what its models restore to.
// Run by hand after a build: node scripts/freeze-store.mjs. A store that is there is never written again; a new version gets a folder of its own.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodeAs } from '../dist/core/float.js';
import { Rng } from '../dist/core/rng.js';
import { SafetensorsWriter } from '../dist/formats/safetensors/writer.js';
import { storeAdd } from '../dist/pipelines/store-add.js';
import { storeInit, storeList } from '../dist/pipelines/store-list.js';

/* global AbortController */
const folder = fileURLToPath(new URL('../test/fixtures/store-v1/', import.meta.url));
if (existsSync(folder)) {
  console.log('frozen already');
  process.exit(0);
}
const rng = new Rng(40);
const weights = (name, dtype, shape) => {
  const n = shape.reduce((a, b) => a * b, 1);
  const values = rng.fork(name).normals(n);
  return {
    name,
    dtype,
    shape,
    bytes: encodeAs(
      dtype,
      Float32Array.from(values, (v) => 0.02 * v),
    ),
  };
};
const bytes = (name, dtype, shape, n) => {
  const r = rng.fork(name);
  return { name, dtype, shape, bytes: Uint8Array.from({ length: n }, () => r.uint32()) };
};
/** Some last bits change. */
const step = (v, label) => {
  const r = rng.fork(`${label} ${v.name}`);
  const width = { BF16: 2, F16: 2, F32: 4 }[v.dtype] ?? 1;
  const out = v.bytes.slice();
  for (let i = 0; i < out.length; i += width) out[i] ^= r.integer(4);
  return { ...v, bytes: out };
};

const first = [
  weights('embed', 'BF16', [60, 16]),
  weights('a.weight', 'BF16', [48, 40]),
  weights('b.weight', 'F32', [20, 30]),
  weights('c.weight', 'F16', [30, 30]),
];
first.push(bytes('d', 'F8_E4M3', [20, 20], 400), bytes('e', 'I64', [9], 72), bytes('scalar', 'F32', [], 4), bytes('empty', 'U8', [0, 3], 0));
first.push({ ...first[0], name: 'tied' }, weights('shrunk', 'BF16', [50, 8]));
const second = first.map((v) => step(v, 'second'));
second[0] = { ...second[0], shape: [66, 16], bytes: Buffer.concat([second[0].bytes, weights('more', 'BF16', [6, 16]).bytes]) };
second[9] = { ...second[9], shape: [40, 8], bytes: second[9].bytes.slice(0, 640) };
const third = second.map((v) => step(v, 'third'));

const RUN = { threads: 1, maxMemoryBytes: 1e9, seed: 0, device: 'cpu', signal: new AbortController().signal };
const work = mkdtempSync(join(tmpdir(), 'pith-freeze-'));
const hashes = (dir) => {
  const paths = readdirSync(dir, { withFileTypes: true, recursive: true }).filter((e) => e.isFile());
  const sorted = paths.map((e) => join(e.parentPath, e.name)).sort();
  return Object.fromEntries(sorted.map((p) => [p.slice(dir.length + 1), createHash('sha256').update(readFileSync(p)).digest('hex')]));
};
try {
  const store = join(work, 'store');
  storeInit(store);
  const models = {};
  for (const [name, views, shardBytes] of [
    ['first', first],
    ['second', second, 3000],
    ['third', third],
  ]) {
    const path = join(work, name);
    mkdirSync(join(path, 'sub'), { recursive: true });
    const writer = new SafetensorsWriter(path, views, { metadata: { of: name }, ...(shardBytes === undefined ? {} : { shardBytes }) });
    for (const v of views) await writer.write(v);
    await writer.finalize();
    writeFileSync(join(path, 'config.json'), '{"a":1}\n');
    writeFileSync(join(path, 'sub', 'own.txt'), `of ${name}\n`.repeat(20));
    writeFileSync(join(path, 'empty.txt'), '');
    const add = storeAdd({ ...RUN, store, checkpoint: path, name: undefined, force: false, dryRun: false });
    while (!(await add.next()).done);
    models[name] = hashes(path);
  }
  const depths = Object.fromEntries(storeList(store).models.map((m) => [m.name, m.depth]));
  rmSync(join(store, 'tmp'), { recursive: true });
  mkdirSync(folder, { recursive: true });
  cpSync(store, join(folder, 'store'), { recursive: true });
  writeFileSync(join(folder, 'cases.json'), `${JSON.stringify({ version: 1, depths, models, store: hashes(join(folder, 'store')) }, null, 1)}\n`);
} finally {
  rmSync(work, { recursive: true });
}
