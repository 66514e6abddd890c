/** The statistics file: what is written is read, and what is wrong is named. */
import { expect } from 'chai';
import { join } from 'node:path';
import { StatsFile } from '../../../formats/stats/file.js';
import { openCheckpoint } from '../../../formats/open-checkpoint.js';
import { statInfo } from '../../../formats/stats/schema.js';
import { expectCode } from '../../support/expect-error.js';
import { tempDir, writeSafetensors } from '../../support/files.js';
import { MANIFEST, statView, writeStats } from '../../support/stats-files.js';

const SIDES = { in: 3, out: 2 };
const q = 'model.layers.0.self_attn.q_proj';
const k = 'model.layers.0.self_attn.k_proj';
const views = [
  statView(q, 'inputSqNorm', SIDES, (i) => i + 1),
  statView(q, 'inputGram', SIDES, (i) => i * i),
  statView(q, 'tokens', SIDES, () => 16),
  statView(k, 'fisherRow', SIDES, (i) => i + 0.5),
];
const manifest = { ...MANIFEST, alias: { [k]: q } };

describe('statistics file', () => {
  it('gives back what it holds, under a module that shares it too', () => {
    using dir = tempDir();
    const path = join(dir.path, 's.safetensors');
    writeStats(path, views, manifest);
    using stats = StatsFile.open(path);
    expect(stats.manifest).to.deep.equal(manifest);
    expect([...stats.modules].sort()).to.deep.equal([k, q]);
    for (const module of [q, k]) {
      expect([...stats.read(module, 'inputSqNorm')]).to.deep.equal([1, 2, 3]);
      expect([...stats.read(module, 'inputGram', [1, 3])]).to.deep.equal([9, 16, 25, 36, 49, 64]);
      expect(stats.tokens(module)).to.equal(16);
    }
    expect([...stats.read(k, 'fisherRow')]).to.deep.equal([0.5, 1.5]);
    expect(stats.has(k, 'inputGram')).to.be.true;
    expect(stats.has(q, 'fisherRow')).to.be.false;
    expect(stats.has(k, 'inputAbsMean')).to.be.false;
    stats.require(q, ['inputSqNorm', 'inputGram', 'tokens'], SIDES);
    stats.require(k, ['inputGram', 'fisherRow'], SIDES);
    stats.requireModel(MANIFEST.model.contentHash);
  });

  it('is an ordinary checkpoint', async () => {
    using dir = tempDir();
    const path = join(dir.path, 's.safetensors');
    writeStats(path, views, manifest);
    await using reader = await openCheckpoint(path);
    expect(reader.infos.get(`${q}.inputGram`)).to.deep.equal(statInfo(q, 'inputGram', SIDES));
  });

  it('another model, a missing statistic, other sides: named', async () => {
    using dir = tempDir();
    const path = join(dir.path, 's.safetensors');
    writeStats(path, views, manifest);
    using stats = StatsFile.open(path);
    const model = await expectCode('STATS_MODEL', () => stats.requireModel('00'.repeat(32)));
    expect(model.exitCode).to.equal(65);
    expect(model.message).to.include('tiny').and.include('00'.repeat(32)).and.include(MANIFEST.model.contentHash);
    const missing = await expectCode('STATS_MISSING', () => stats.require(k, ['inputSqNorm', 'fisherA'], SIDES));
    expect(missing.message).to.include('fisherA').and.include(k).and.include(path);
    await expectCode('STATS_MISSING', () => stats.read('model.layers.9.mlp.down_proj', 'inputGram'));
    await expectCode('STATS_MISSING', () => stats.tokens('model.layers.9.mlp.down_proj'));
    const sides = await expectCode('SHAPE_MISMATCH', () => stats.require(k, ['inputGram'], { in: 4, out: 2 }));
    expect(sides.message).to.include('F32 [4, 4]').and.include('F32 [3, 3]');
  });

  it('what is no statistics file, or a damaged one', async () => {
    using dir = tempDir();
    const path = join(dir.path, 's.safetensors');
    writeSafetensors(path, views);
    await expectCode('NOT_STATS', () => StatsFile.open(path));
    const damaged: [string, Record<string, string>][] = [
      ['pith.version', { 'pith.version': 'x' }],
      ['model', { model: '{' }],
      ['model', { model: '{"name":"a","contentHash":"12"}' }],
      ['tokens', { tokens: '-1' }],
      ['alias', { alias: '[]' }],
      ['nothing is stored', { alias: '{"a":"b"}' }],
    ];
    for (const [name, change] of damaged) {
      writeStats(path, views, manifest, change);
      const error = await expectCode('STATS_MALFORMED', () => StatsFile.open(path));
      expect(error.message).to.include(name);
    }
    writeStats(path, views, manifest, { 'pith.version': '2' });
    await expectCode('STATS_VERSION', () => StatsFile.open(path));
    writeStats(path, [...views, { name: 'a.weight', dtype: 'F32', shape: [0], bytes: new Uint8Array(0) }], manifest);
    await expectCode('STATS_MALFORMED', () => StatsFile.open(path));
    writeStats(path, [{ ...views[0]!, dtype: 'F16', shape: [6] }], MANIFEST);
    await expectCode('STATS_MALFORMED', () => StatsFile.open(path));
  });
});
