/** A statistics file that was frozen when its version 1 was: today's code must read it for ever. Never written by a test. */
import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { StatsFile } from '../../../formats/stats/file.js';
import { STATISTICS, type StatsManifest } from '../../../formats/stats/schema.js';
import { ROOT } from '../../support/files.js';

const FOLDER = join(ROOT, 'test', 'fixtures', 'stats-v1');
const FILE = join(FOLDER, 'stats.safetensors');
const frozen = JSON.parse(readFileSync(join(FOLDER, 'cases.json'), 'utf8')) as {
  readonly version: number;
  readonly sha256: string;
  readonly manifest: StatsManifest;
  /** By module: hashes of the values as f32, and its tokens. */
  readonly modules: Readonly<Record<string, Readonly<Record<string, string | number>>>>;
};
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('frozen statistics, version 1', () => {
  it('is the file that was frozen, and reads as then', () => {
    expect(frozen.version).to.equal(1);
    expect(sha256(readFileSync(FILE))).to.equal(frozen.sha256);
    using stats = StatsFile.open(FILE);
    expect(stats.manifest).to.deep.equal(frozen.manifest);
    expect([...stats.modules].sort()).to.deep.equal(Object.keys(frozen.modules));
    // q, k, v, o, gate, up, down
    expect(Object.keys(frozen.modules).length).to.equal(7);
    for (const [module, { tokens, ...values }] of Object.entries(frozen.modules)) {
      expect(stats.tokens(module)).to.equal(tokens);
      for (const s of STATISTICS) {
        if (s === 'tokens') continue;
        const read = stats.read(module, s);
        expect(sha256(new Uint8Array(read.buffer, read.byteOffset, read.byteLength)), `${module}.${s}`).to.equal(values[s]);
      }
    }
  });
});
