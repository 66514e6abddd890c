// Writes test/fixtures/stats-v1: a frozen statistics file of version 1 and the hashes of what is read from it.
// Run by hand after a build: node scripts/freeze-stats.mjs. A file that is there is never written again; a new version gets a folder of its own.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { StatsFile } from '../dist/formats/stats/file.js';
import { STATISTICS } from '../dist/formats/stats/schema.js';
import { calibrate } from '../dist/pipelines/calibrate.js';

/* global AbortController */
const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, 'test/fixtures/stats-v1');
if (existsSync(folder)) {
  console.log('frozen already');
  process.exit(0);
}
mkdirSync(folder);
const file = join(folder, 'stats.safetensors');
const sequences = Array.from({ length: 4 }, (_, s) => Int32Array.from({ length: s === 1 ? 9 : 16 }, (_, i) => (5 * i + 17 * s) % 48));
const run = calibrate({
  checkpoint: join(root, 'test/golden/models/llama'),
  out: file,
  data: async () => ({ sequences, name: 'ids', sha256: '00'.repeat(32) }),
  statistics: ['inputSqNorm', 'inputAbsMean', 'inputGram'],
  fisher: ['fisherRow', 'fisherA', 'fisherB'],
  selects: (weight) => weight.includes('.layers.0.'),
  force: false,
  dryRun: false,
  resume: false,
  threads: 1,
  maxMemoryBytes: 1e9,
  seed: 3,
  device: 'cpu',
  signal: new AbortController().signal,
});
while (!(await run.next()).done);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const stats = StatsFile.open(file);
const modules = Object.fromEntries(
  [...stats.modules].sort().map((m) => {
    const values = STATISTICS.filter((s) => s !== 'tokens' && stats.has(m, s)).map((s) => [s, sha256(new Uint8Array(stats.read(m, s).buffer))]);
    return [m, { tokens: stats.tokens(m), ...Object.fromEntries(values) }];
  }),
);
writeFileSync(
  join(folder, 'cases.json'),
  `${JSON.stringify({ version: 1, sha256: sha256(readFileSync(file)), manifest: stats.manifest, modules }, null, 1)}\n`,
);
stats[Symbol.dispose]();
