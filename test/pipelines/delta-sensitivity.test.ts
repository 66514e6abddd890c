/** Errors weighed by what they do to predictions: groups, weights, and an encode that measures them. */
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { groupsOf, weigh } from '../../pipelines/delta-sensitivity.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir, TINY } from '../support/files.js';

const RUN = { threads: 2, maxMemoryBytes: 2e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

describe('delta sensitivity', () => {
  it('groups the same module of one part of the depth; a layer is a part in a model of few', () => {
    const names = [...Array.from({ length: 12 }, (_, i) => `model.layers.${i}.mlp.up_proj.weight`), 'model.embed_tokens.weight'];
    const groups = groupsOf(names, 12);
    expect([...groups.keys()]).to.deep.equal(['0:mlp.up_proj', '1:mlp.up_proj', '2:mlp.up_proj', '3:mlp.up_proj', 'model.embed_tokens']);
    expect(groups.get('1:mlp.up_proj')).to.deep.equal(names.slice(3, 6));
    expect(groupsOf(names.slice(0, 3), 3).size).to.equal(3);
  });

  it('weights are KLD per squared error, and the whole error counts as before', () => {
    const { weights, groups } = weigh([
      { group: 'a', names: ['a1', 'a2'], kld: 0.3, error: 2 },
      { group: 'b', names: ['b'], kld: 0.05, error: 1 },
      { group: 'c', names: ['c'], kld: 0, error: 5 },
    ]);
    expect(weights.get('a1')! / weights.get('b')!).to.be.closeTo(3, 1e-12);
    expect(weights.get('a1')).to.equal(weights.get('a2'));
    expect(weights.get('c')!).to.be.greaterThan(0);
    expect(2 * weights.get('a1')! + weights.get('b')! + 5 * weights.get('c')!).to.be.closeTo(8, 1e-9);
    expect(groups.map((g) => g.group)).to.deep.equal(['a', 'b', 'c']);
  });

  it('groups that do nothing to predictions leave the shares as they are', () => {
    expect(weigh([{ group: 'a', names: ['a'], kld: 0, error: 2 }]).weights.size).to.equal(0);
  });

  const options = (dir: string, more: Partial<EncodeOptions>): EncodeOptions => ({
    ...RUN,
    base: join(TINY, 'base'),
    tuned: join(TINY, 'tuned'),
    out: join(dir, 'd.safetensors'),
    method: 'auto',
    params: { codecs: 'ecsq' },
    selects: () => true,
    force: true,
    dryRun: false,
    resume: false,
    ...more,
  });
  const text = (dir: string): string => {
    const file = join(dir, 'text.jsonl');
    const rows = Array.from({ length: 40 }, (_, i) => ({ text: `Question: A farmer has ${i} cows and buys ${i + 3} more. How many?\nAnswer: ${2 * i + 3}\n` }));
    writeFileSync(file, rows.map((r) => JSON.stringify(r)).join('\n'));
    return file;
  };

  it('an encode with data meets its size, moves bytes to what matters, and is proven', async function () {
    this.timeout(180_000);
    using dir = tempDir();
    const data = { spec: { file: text(dir.path) }, nsamples: 2, seqlen: 48, seed: 0 };
    const target = { ratio: 25 };
    const plain: EncodeReport = await drain(deltaEncode(options(dir.path, { target })));
    const weighed: EncodeReport = await drain(deltaEncode(options(dir.path, { target, data })));
    expect(weighed.bytes).to.be.at.most(Math.floor(weighed.rawBytes / 25));
    expect(weighed.bytes).to.be.at.least(0.99 * Math.floor(weighed.rawBytes / 25));
    const { groups, tried, power } = weighed.sensitivity!;
    expect(tried.map((t) => t.power)).to.deep.equal([0, 0.75, 0.5, 0.25]);
    expect(tried.find((t) => t.power === power)!.kld, 'what is kept diverges least').to.equal(Math.min(...tried.map((t) => t.kld)));
    expect(power, 'on this pair weights pay').to.be.greaterThan(0);
    expect(groups.length).to.be.greaterThan(20);
    expect(groups.every((g) => g.kld >= 0 && g.weight > 0)).to.equal(true);
    const error = (r: EncodeReport, name: string): number => r.tensors.find((t) => t.name === name)!.error ?? 0;
    const [heavy, light] = [groups.reduce((a, b) => (a.weight > b.weight ? a : b)), groups.reduce((a, b) => (a.weight < b.weight ? a : b))];
    const tensor = (g: { group: string }): string => `model.layers.${g.group.replace(':', '.')}.weight`;
    expect(error(weighed, tensor(heavy)), `${heavy.group}, which weighs most`).to.be.lessThan(error(plain, tensor(heavy)));
    expect(error(weighed, tensor(light)), `${light.group}, which weighs least`).to.be.at.least(error(plain, tensor(light)));
    const proof = await drain(deltaVerify({ ...RUN, base: join(TINY, 'base'), delta: join(dir.path, 'd.safetensors'), tuned: undefined }));
    expect(proof.ok).to.equal(true);
  });

  it('data without a size to share is refused', async () => {
    using dir = tempDir();
    const data = { spec: { file: text(dir.path) }, nsamples: 2, seqlen: 48, seed: 0 };
    await expectCode('USAGE', () => drain(deltaEncode(options(dir.path, { data, target: { maxError: 0.3 } }))));
  });
});
