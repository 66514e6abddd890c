/** PEFT folders: what is read, what is refused and by which name, what is written. */
import { expect } from 'chai';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { Adapter } from '../../formats/adapter/adapter.js';
import { configJson, parseConfig, patternKey, patternValue, refuseMovedBase } from '../../formats/adapter/config.js';
import { PREFIX, random, writeAdapter } from '../support/adapters.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir, TINY } from '../support/files.js';

const rng = new Rng(1);
const pair = (path: string, rank = 4, embedding = false): TensorView[] => [
  random(rng, `${PREFIX}${path}.${embedding ? 'lora_embedding_A' : 'lora_A.weight'}`, rank, 6),
  random(rng, `${PREFIX}${path}.${embedding ? 'lora_embedding_B' : 'lora_B.weight'}`, 5, rank),
];

describe('formats/adapter', () => {
  it("the shipped adapter: peft's own file", () => {
    using a = Adapter.open(join(TINY, 'lora'));
    expect(a.modules.size).to.equal(28);
    const m = a.modules.get('model.layers.0.mlp.down_proj')!;
    expect([m.rank, m.scaling, m.embedding, m.a.shape, m.b.shape]).to.deep.equal([8, 2, false, [8, 512], [256, 8]]);
    expect(a.saved.size).to.equal(0);
  });

  it('patterns, rank stabilization, embeddings, DoRA, biases, full copies, a key with the adapter name', () => {
    using dir = tempDir();
    const magnitude = ['m.q', 'm.deep.k', 'm.embed_tokens'].map((p) => random(rng, `${PREFIX}${p}.lora_magnitude_vector`, 5));
    const tensors = [...pair('m.q'), ...pair('m.deep.k', 2), ...pair('m.embed_tokens', 4, true), ...magnitude, random(rng, `${PREFIX}m.norm.weight`, 5)];
    tensors[0] = { ...tensors[0]!, name: `${PREFIX}m.q.lora_A.default.weight` };
    const config = { use_rslora: true, use_dora: true, rank_pattern: { '^m\\.deep\\.k': 2 }, alpha_pattern: { 'd.*k': 3 }, modules_to_save: ['norm'] };
    using a = Adapter.open(writeAdapter(dir.path, tensors, config));
    expect(a.modules.get('m.q')!.scaling).to.equal(8 / 2);
    expect(a.modules.get('m.deep.k')!.rank).to.equal(2);
    expect(a.modules.get('m.deep.k')!.scaling).to.be.closeTo(3 / Math.SQRT2, 1e-12);
    expect(a.modules.get('m.embed_tokens')!.embedding).to.equal(true);
    expect([...a.saved.keys()]).to.deep.equal(['m.norm.weight']);
  });

  const cases: readonly [what: string, code: Parameters<typeof expectCode>[0], tensors: () => TensorView[], config: object, says: string][] = [
    ['a factor without the other', 'TENSOR_MISSING', () => pair('m.q').slice(0, 1), {}, 'm.q.lora_B.weight'],
    ['a magnitude that DoRA needs', 'TENSOR_MISSING', () => pair('m.q'), { use_dora: true }, 'm.q.lora_magnitude_vector'],
    ['a magnitude without DoRA', 'ADAPTER_KEY', () => [...pair('m.q'), random(rng, `${PREFIX}m.q.lora_magnitude_vector`, 5)], {}, 'use_dora'],
    ['a bias without lora_bias', 'ADAPTER_KEY', () => [...pair('m.q'), random(rng, `${PREFIX}m.q.lora_B.bias`, 5)], {}, 'lora_bias'],
    ['a foreign tensor', 'ADAPTER_KEY', () => [...pair('m.q'), random(rng, `${PREFIX}m.q.hada_w1_a`, 5)], {}, 'm.q.hada_w1_a'],
    ['a full copy that is not listed', 'ADAPTER_KEY', () => [...pair('m.q'), random(rng, `${PREFIX}m.norm.weight`, 5)], {}, 'modules_to_save'],
    ['a key without the prefix', 'ADAPTER_KEY', () => [random(rng, 'm.q.lora_A.weight', 4, 6)], {}, PREFIX],
    ['a rank that is not the config’s', 'SHAPE_MISMATCH', () => pair('m.q', 3), {}, 'm.q.lora_A.weight'],
    ['rank 0', 'ADAPTER_CONFIG', () => pair('m.q'), { r: 0 }, '"r"'],
    ['rank 0 in a pattern', 'ADAPTER_CONFIG', () => pair('m.q'), { rank_pattern: { q: 0 } }, 'rank_pattern.q'],
    ['a rank that is text', 'ADAPTER_CONFIG', () => pair('m.q'), { r: '4' }, '"r"'],
    ['alpha 0', 'ADAPTER_CONFIG', () => pair('m.q'), { lora_alpha: 0 }, 'lora_alpha'],
    ['another type', 'NOT_AN_ADAPTER', () => pair('m.q'), { peft_type: 'IA3' }, 'IA3'],
    ['a feature that changes the weights', 'ADAPTER_UNSUPPORTED', () => pair('m.q'), { layer_replication: [[0, 2]] }, 'layer_replication'],
    ['no tensors', 'NOT_AN_ADAPTER', () => [], {}, 'no tensors'],
  ];
  for (const [what, code, tensors, config, says] of cases) {
    it(`refuses ${what}`, async () => {
      using dir = tempDir();
      const error = await expectCode(code, () => Adapter.open(writeAdapter(dir.path, tensors(), config as Record<string, unknown>)));
      expect(error.exitCode).to.equal(65);
      expect(error.message).to.contain(says);
    });
  }

  it('refuses a folder without a part, a config that is no JSON, a path that is not there, a start that moved the base', async () => {
    using dir = tempDir();
    const folder = writeAdapter(join(dir.path, 'a'), pair('m.q'), { init_lora_weights: 'pissa_niter_4' });
    {
      using a = Adapter.open(folder);
      await expectCode('ADAPTER_UNSUPPORTED', () => refuseMovedBase(a.config, folder));
    }
    writeFileSync(join(folder, 'adapter_config.json'), '{');
    await expectCode('NOT_AN_ADAPTER', () => Adapter.open(folder));
    rmSync(join(folder, 'adapter_config.json'));
    await expectCode('NOT_AN_ADAPTER', () => Adapter.open(folder));
    const other = writeAdapter(join(dir.path, 'b'), pair('m.q'));
    rmSync(join(other, 'adapter_model.safetensors'));
    await expectCode('NOT_AN_ADAPTER', () => Adapter.open(other));
    const gone = await expectCode('NOT_FOUND', () => Adapter.open(join(dir.path, 'no')));
    expect(gone.exitCode).to.equal(66);
  });

  it('a written config is read back: largest rank, patterns for the others, one scale', () => {
    const ranks = new Map([
      ['m.0.q', 16],
      ['m.1.q', 3],
      ['m.10.q', 16],
    ]);
    const text = configJson({ ranks, scaling: 2, targetModules: ['q'], modulesToSave: [], baseModel: 'org/base', taskType: 'CAUSAL_LM' });
    const c = parseConfig(text, 'x');
    for (const [path, rank] of ranks) {
      expect(patternValue(c.rankPattern, path, 'x') ?? c.r).to.equal(rank);
      expect((patternValue(c.alphaPattern, path, 'x') ?? c.alpha) / rank).to.equal(2);
    }
    expect(patternValue({ [patternKey('m.1.q')]: 7 }, 'x.m.1.q', 'x')).to.equal(undefined);
    expect(c.baseModel).to.equal('org/base');
    expect(Object.keys(JSON.parse(text) as object)).to.deep.equal(Object.keys(JSON.parse(text) as object).sort());
  });
});
