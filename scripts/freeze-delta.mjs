// Writes test/fixtures/delta-v2 and -v3: frozen delta files of the container's versions, their bases, and the hashes of what they restore to;
// of version 3, files of two layers, the layers alone too.
// Run by hand after a build: node scripts/freeze-delta.mjs. A case that is there is never written again; a new row of CASES adds
// its folder and its entry. A new container version gets a folder of its own: delta-v1 was made by this script before there was a 2.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeF32, encodeAs } from '../dist/core/float.js';
import { Rng } from '../dist/core/rng.js';
import { byteLength } from '../dist/core/shape.js';
import { SafetensorsWriter } from '../dist/formats/safetensors/writer.js';
import { deltaEncode } from '../dist/pipelines/delta-encode.js';
import { deltaRestore } from '../dist/pipelines/delta-restore.js';
import { deltaSplit } from '../dist/pipelines/delta-split.js';

/* global AbortController */
const folderOf = (version) => fileURLToPath(new URL(`../test/fixtures/delta-v${version}/`, import.meta.url));
const rng = new Rng(20);

const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');
const words = (name, dtype, shape, bytes) => ({ name, dtype, shape, bytes });
const noise = (label, n) => {
  const r = rng.fork(label);
  return Uint8Array.from({ length: n }, () => r.uint32());
};
/** Weights as a model has them: standard deviation 0.02. */
const weights = (name, dtype, shape) =>
  words(
    name,
    dtype,
    shape,
    encodeAs(
      dtype,
      rng
        .fork(name)
        .normals(shape.reduce((a, b) => a * b, 1))
        .map((v) => v * 0.02),
    ),
  );
/** A small step of a float tensor, as fine-tuning makes it: some last bits change. */
const step = (v, bits = 3) => {
  const r = rng.fork(`step ${v.name}`);
  const bytes = v.bytes.slice();
  const width = { F64: 8, I64: 8, F32: 4, I32: 4, BF16: 2, F16: 2 }[v.dtype] ?? 1;
  for (let i = 0; i < bytes.length; i += width) bytes[i] ^= r.integer(1 << bits);
  return { ...v, bytes };
};
/** Low-rank move plus noise, as a longer fine-tune makes it. */
const drift = (v) => {
  const [m, n] = [v.shape[0], v.shape.slice(1).reduce((x, y) => x * y, 1)];
  const r = rng.fork(`drift ${v.name}`);
  const [a, b, e] = [r.normals(m * 3), r.normals(n * 3), r.normals(m * n)];
  const moved = decodeF32(v.dtype, v.bytes).map((x, i) => {
    const [row, column] = [Math.floor(i / n), i % n];
    return x + 0.0005 * e[i] + 0.002 * (a[3 * row] * b[3 * column] + a[3 * row + 1] * b[3 * column + 1] + a[3 * row + 2] * b[3 * column + 2]);
  });
  return { ...v, bytes: encodeAs(v.dtype, moved) };
};
/** One value in 200 changes, as in a step of reinforcement learning. */
const sparse = (v) => ({ ...v, bytes: v.bytes.map((b, i) => (i % 400 === 0 ? b ^ 1 : b)) });
const random = (name, dtype, shape) => words(name, dtype, shape, noise(name, byteLength(dtype, shape)));
/** NaN payloads, infinities, both zeros, subnormals: every 97th bf16 pattern. */
const patterns = (name, shift) => words(name, 'BF16', [676], new Uint8Array(Uint16Array.from({ length: 676 }, (_, i) => i * 97 + shift).buffer));

async function save(path, views, options, metadata) {
  const w = new SafetensorsWriter(path, views, options);
  for (const v of views) await w.write(v);
  await w.finalize(metadata);
}
const files = (dir, contents) => {
  for (const [name, bytes] of Object.entries(contents)) {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), bytes);
  }
};

/** name -> how to make base and tuned (folders to fill), and the method. Tensor modes inside are the coder's own choice. `version`: of the container, 2 by default; 1 is what its own program made. */
const CASES = [
  {
    name: 'dtypes',
    method: 'lossless',
    version: 1,
    async build(base, tuned) {
      const b = ['BF16', 'F16', 'F32'].map((d) => weights(`dense.${d}`, d, [48, 32]));
      b.push(...['F64', 'I64', 'I32', 'I16', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'U8', 'I8'].map((d) => random(`noise.${d}`, d, [24, 20])));
      b.push(...['BOOL', 'F4', 'F6_E2M3', 'C64', 'U64'].map((d) => random(`odd.${d}`, d, [16, 8])));
      b.push(weights('sparse.BF16', 'BF16', [60, 50]), weights('sparse.F32', 'F32', [40, 40]), weights('chunks.BF16', 'BF16', [700, 100]));
      const t = b.map((v) => (v.name.startsWith('sparse') ? sparse(v) : step(v)));
      b.push(weights('identical', 'BF16', [30, 10]), patterns('patterns', 0), random('unrelated', 'BF16', [30, 30]));
      t.push(
        b.find((v) => v.name === 'identical'),
        patterns('patterns', 1),
        { ...random('unrelated 2', 'BF16', [30, 30]), name: 'unrelated' },
      );
      await save(join(base, 'model.safetensors'), b, {}, { format: 'pt' });
      await save(join(tuned, 'model.safetensors'), t, {}, { format: 'pt', note: 'tuned "here"\n' });
      files(base, { 'config.json': '{"a":1}\n', 'tokenizer.json': '{"base":true}\n' });
      files(tuned, { 'config.json': '{"a":1}\n', 'tokenizer.json': '{"base":false}\n', 'sub/own.bin': noise('own', 300), 'empty.txt': '' });
    },
  },
  {
    name: 'shapes',
    method: 'lossless',
    async build(base, tuned) {
      const b = [weights('embed', 'BF16', [100, 8]), weights('shrunk', 'BF16', [40, 8]), weights('reshaped', 'F32', [6, 2]), weights('retyped', 'F32', [4])];
      b.push(weights('removed', 'F32', [5]), weights('scalar', 'F32', []), words('empty', 'BF16', [0, 4], new Uint8Array(0)), weights('名前 "x"', 'F16', [9]));
      const of = (name) => step(b.find((v) => v.name === name));
      const grown = { ...of('embed'), shape: [117, 8], bytes: Buffer.concat([of('embed').bytes, weights('more', 'BF16', [17, 8]).bytes]) };
      const t = [grown, { ...of('shrunk'), shape: [30, 8], bytes: of('shrunk').bytes.slice(0, 480) }, weights('reshaped', 'F32', [3, 4])];
      t.push(weights('retyped', 'BF16', [4]), of('scalar'), of('empty'), of('名前 "x"'), random('added', 'I64', [7]));
      await save(join(base, 'model.safetensors'), b, {}, undefined);
      await save(join(tuned, 'model.safetensors'), t, {}, undefined);
    },
  },
  {
    name: 'sharded',
    method: 'lossless',
    async build(base, tuned) {
      const b = Array.from({ length: 7 }, (_, i) => weights(`layer.${i}.weight`, 'BF16', [20 + i, 16]));
      await save(base, b, { shardBytes: 2000 }, { format: 'pt' });
      await save(
        tuned,
        b.map((v) => step(v)),
        { shardBytes: 1500 },
        { format: 'pt' },
      );
    },
  },
  {
    name: 'alone',
    method: 'lossless',
    version: 1,
    alone: true,
    async build(_, tuned) {
      const t = [weights('w.BF16', 'BF16', [64, 40]), weights('w.F32', 'F32', [40, 30]), weights('w.F16', 'F16', [40, 30]), random('raw', 'U8', [500])];
      // more elements than one segment of the coder holds
      t.push(
        words(
          'long',
          'I8',
          [1_200_000],
          Uint8Array.from({ length: 1_200_000 }, (_, i) => (i % 4096 === 0 ? 1 + ((i >> 12) % 3) : 0)),
        ),
      );
      await save(join(tuned, 'model.safetensors'), t, {}, { format: 'pt' });
      files(tuned, { 'config.json': '{}\n' });
    },
  },
  ...[
    { name: 'ere-float', params: { rank: 3 } },
    { name: 'ere-int8', params: { rank: 5, factors: 'int8' } },
    { name: 'ere-int4', params: { energy: 0.6, factors: 'int4' } },
    { name: 'ecsq', method: 'ecsq', params: { step: 2 } },
    { name: 'lowrank-ecsq', method: 'lowrank-ecsq', params: { step: 0.7 } },
    { name: 'bitdelta', method: 'bitdelta', params: { tensors: 'matrices' } },
    { name: 'int-2', method: 'int', params: { bits: 2 } },
    { name: 'int-5', method: 'int', params: { bits: 5, groupSize: 48, scale: 'f16', fit: 'max' } },
    { name: 'sparse-bf16', method: 'sparse', params: { density: 0.1 } },
    { name: 'sparse-exact', method: 'sparse', params: { density: 0.3, values: 'exact' } },
    { name: 'delta-come', method: 'delta-come', params: { bands: '8:2,5:3,3:6,2:4' } },
  ].map((c) => ({
    method: 'ere',
    ...c,
    async build(base, tuned) {
      const b = [weights('a.weight', 'BF16', [70, 90]), weights('b.weight', 'F16', [90, 40]), weights('c.weight', 'F32', [64, 66])];
      b.push(weights('conv.weight', 'BF16', [12, 8, 3, 3]), weights('norm.weight', 'BF16', [90]), weights('embed', 'BF16', [80, 16]));
      const move = c.name.endsWith('ecsq')
        ? drift
        : (v) => {
            const d = rng.fork(`move ${v.name}`).normals(v.shape.reduce((x, y) => x * y, 1));
            return {
              ...v,
              bytes: encodeAs(
                v.dtype,
                decodeF32(v.dtype, v.bytes).map((x, i) => x + 0.004 * d[i]),
              ),
            };
          };
      const t = b.map(move);
      t[5] = { ...t[5], shape: [85, 16], bytes: Buffer.concat([t[5].bytes, weights('more', 'BF16', [5, 16]).bytes]) };
      await save(join(base, 'model.safetensors'), b, {}, { format: 'pt' });
      await save(join(tuned, 'model.safetensors'), t, {}, { format: 'pt' });
    },
  })),
  {
    name: 'pruned',
    method: 'pruned',
    alone: true,
    async build(_, tuned) {
      const kept = (v, keep) => {
        const width = v.dtype === 'F32' ? 4 : 2;
        return { ...v, bytes: v.bytes.map((b, i) => (keep(Math.floor(i / width)) ? b : 0)) };
      };
      const r = rng.fork('pruned');
      const half = (v) =>
        kept(
          v,
          (
            (m) => (i) =>
              m[i] !== 0
          )(Array.from({ length: v.shape.reduce((x, y) => x * y, 1) }, () => r.integer(2))),
        );
      const t = ['BF16', 'F16', 'F32'].map((d) => half(weights(`half.${d}`, d, [96, 70])));
      t.push(
        kept(weights('2:4', 'BF16', [80, 64]), (i) => i % 4 === (i >> 2) % 3 || i % 4 === 3),
        kept(weights('1:4 tail', 'F32', [60, 42]), (i) => i % 42 >= 40 || (i % 42) % 4 === (i >> 3) % 4),
      );
      t.push(
        kept(weights('rows', 'BF16', [90, 50]), (i) => Math.floor(i / 50) % 3 === 0),
        kept(weights('conv', 'F16', [16, 8, 3, 3]), (i) => i % 5 === 0),
      );
      t.push(
        words('zero', 'BF16', [40, 40], new Uint8Array(3200)),
        kept({ ...patterns('patterns', 0), shape: [26, 26] }, (i) => i % 2 === 0),
      );
      t.push(weights('dense', 'BF16', [40, 30]), weights('norm', 'BF16', [70]), words('empty', 'F32', [0, 4], new Uint8Array(0)));
      // more words than one segment of the coder holds
      t.push(kept(weights('long', 'BF16', [70_000, 16]), (i) => i % 601 === 0));
      await save(join(tuned, 'model.safetensors'), t, {}, { format: 'pt' });
      files(tuned, { 'config.json': '{"a":1}\n' });
    },
  },
  ...[
    { name: 'ecsq', method: 'ecsq', params: { step: 3 } },
    { name: 'auto', method: 'auto', target: { maxError: 0.3 } },
    { name: 'ere', method: 'ere', params: { rank: 4 } },
  ].map((c) => ({
    ...c,
    version: 3,
    progressive: true,
    async build(base, tuned) {
      const b = [weights('a.weight', 'BF16', [70, 90]), weights('b.weight', 'F16', [90, 40]), weights('c.weight', 'F32', [48, 50])];
      b.push(weights('norm.weight', 'BF16', [90]), weights('embed', 'BF16', [80, 16]), weights('shrunk', 'BF16', [60, 24]));
      b.push(weights('same.weight', 'BF16', [20, 20]), weights('reshaped', 'F32', [6, 2]), weights('removed', 'F32', [5]));
      const t = b.slice(0, 6).map(drift);
      t[4] = { ...t[4], shape: [85, 16], bytes: Buffer.concat([t[4].bytes, weights('more', 'BF16', [5, 16]).bytes]) };
      t[5] = { ...t[5], shape: [50, 24], bytes: t[5].bytes.slice(0, 2400) };
      t.push(b[6], weights('reshaped', 'F32', [3, 4]), random('added', 'I64', [7]));
      await save(base, b, {}, { format: 'pt' });
      await save(tuned, t, { shardBytes: 20000 }, { format: 'pt' });
      files(base, { 'config.json': '{"a":1}\n', 'tokenizer.json': '{"base":true}\n' });
      files(tuned, { 'config.json': '{"a":1}\n', 'tokenizer.json': '{"base":false}\n' });
    },
  })),
];

const RUN = { threads: 1, maxMemoryBytes: 1e9, seed: 0, device: 'cpu', signal: new AbortController().signal, force: false, dryRun: false, resume: false };
async function drain(pipeline) {
  for (;;) {
    const s = await pipeline.next();
    if (s.done) return s.value;
  }
}
function hashes(dir) {
  const found = readdirSync(dir, { withFileTypes: true, recursive: true }).filter((e) => e.isFile());
  const paths = found.map((e) => join(e.parentPath, e.name)).sort();
  return Object.fromEntries(paths.map((p) => [p.slice(dir.length + 1), sha(readFileSync(p))]));
}

async function freeze(c, folder) {
  const out = join(folder, c.name);
  const work = mkdtempSync(join(tmpdir(), 'pith-freeze-'));
  try {
    const [base, tuned, back] = ['base', 'tuned', 'back'].map((n) => join(work, n));
    for (const d of [base, tuned]) mkdirSync(d);
    await c.build(base, tuned);
    const baseArg = c.alone ? undefined : base;
    const delta = join(work, 'delta.safetensors');
    const { method, params = {}, target, progressive = false } = c;
    const codec = { method, params, progressive, ...(target === undefined ? {} : { target }), selects: () => true };
    const report = await drain(deltaEncode({ ...RUN, base: baseArg, tuned, out: delta, ...codec }));
    const r = await drain(deltaRestore({ ...RUN, base: baseArg, delta, out: back }));
    const restored = hashes(back);
    if (r.exact && JSON.stringify(restored) !== JSON.stringify(hashes(tuned))) throw new Error(`${c.name}: the restore is not exact`);
    mkdirSync(out);
    if (!c.alone) cpSync(base, join(out, 'base'), { recursive: true });
    cpSync(delta, join(out, 'delta.safetensors'));
    const cut = { lossy: join(out, 'lossy.safetensors'), exact: join(out, 'exact.safetensors') };
    if (progressive) await drain(deltaSplit({ delta, ...cut, force: false, signal: RUN.signal }));
    const lossyBack = join(work, 'lossy');
    const lossy = progressive ? await drain(deltaRestore({ ...RUN, base: baseArg, delta, out: lossyBack, quality: 'lossy' })) : undefined;
    const tensors = Object.fromEntries(report.tensors.map((t) => [t.name, t.method]));
    return {
      name: c.name,
      method: c.method,
      alone: c.alone ?? false,
      exact: r.exact,
      delta: sha(readFileSync(delta)),
      contentHash: r.contentHash,
      tensors,
      restored,
      ...(lossy === undefined ? {} : { lossy: { bytes: report.layers.lossy, contentHash: lossy.contentHash, restored: hashes(lossyBack) } }),
    };
  } finally {
    rmSync(work, { recursive: true });
  }
}

for (const version of [2, 3]) {
  const folder = folderOf(version);
  mkdirSync(folder, { recursive: true });
  const list = join(folder, 'cases.json');
  const frozen = existsSync(list) ? JSON.parse(readFileSync(list, 'utf8')) : { version, cases: [] };
  for (const c of CASES) {
    if ((c.version ?? 2) !== version || frozen.cases.some((f) => f.name === c.name)) continue;
    frozen.cases.push(await freeze(c, folder));
    console.log(`frozen: ${c.name}, version ${version}`);
  }
  writeFileSync(list, `${JSON.stringify(frozen, null, 1)}\n`);
}
