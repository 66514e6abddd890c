/** Names of modules: which are selected by which, and what lies the other way round. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { TensorInfo } from '../../core/tensor.js';
import { findTensor, isConv1d, modelConfig, modulesOf, shortestNames, tiedHead } from '../../models/modules.js';

const infos = (...tensors: [string, ...number[]][]): Map<string, TensorInfo> =>
  new Map(tensors.map(([name, ...shape]) => [name, { name, dtype: 'BF16' as const, shape }]));

describe('models/modules', () => {
  it('selected names select the chosen modules and no other, as peft matches them', () => {
    const leaf = fc.constantFrom('norm', 'input_norm', 'q', 'k', 'proj');
    const path = fc.tuple(fc.constantFrom('m.0', 'm.1', 'm.10', 'x'), leaf).map((p) => p.join('.'));
    fc.assert(
      fc.property(fc.uniqueArray(fc.tuple(path, fc.boolean()), { minLength: 1, maxLength: 16, selector: ([p]) => p }), (modules) => {
        const all = modules.map(([p]) => p);
        const chosen = modules.filter(([, yes]) => yes).map(([p]) => p);
        const whole = shortestNames(chosen, all, 'whole');
        expect(all.filter((p) => whole.some((n) => p === n || p.endsWith(`.${n}`)))).to.deep.equal(chosen);
        const ending = shortestNames(chosen, all, 'ending');
        const matched = all.filter((p) => ending.some((n) => p.endsWith(n)));
        for (const p of chosen) expect(matched).to.include(p);
        expect(matched.length).to.equal(chosen.length);
      }),
    );
  });

  it('a leaf alone when every namesake is chosen, full paths otherwise', () => {
    expect(shortestNames(['m.0.q', 'm.1.q', 'm.0.k'], ['m.0.q', 'm.1.q', 'm.0.k', 'm.1.k'], 'whole')).to.deep.equal(['m.0.k', 'q']);
    // peft takes any ending of modules_to_save: "norm" would take input_norm too
    expect(shortestNames(['m.norm'], ['m.norm', 'm.0.input_norm'], 'ending')).to.deep.equal(['m.norm']);
  });

  it('kinds of modules, biases, tensors of no module, GPT-2 names and Conv1D', () => {
    const llama = modelConfig({ model_type: 'llama', architectures: ['LlamaForCausalLM'], tie_word_embeddings: true });
    const { modules, others } = modulesOf(infos(['model.embed_tokens.weight', 8, 4], ['model.q.weight', 4, 4], ['model.q.bias', 4], ['model.norm.weight', 4], ['model.conv.weight', 4, 4, 3], ['inv_freq', 2]), llama); // prettier-ignore
    expect(modules.map((m) => [m.path, m.kind])).to.deep.equal([
      ['model.embed_tokens', 'embedding'],
      ['model.q', 'linear'],
      ['model.norm', 'other'],
      ['model.conv', 'other'],
    ]);
    expect(modules[1]!.bias).to.equal('model.q.bias');
    expect(others).to.deep.equal(['inv_freq']);
    expect(tiedHead(modules, llama)).to.include({ path: 'lm_head', weight: 'model.embed_tokens.weight' });
    expect(tiedHead(modules, { ...llama, tied: false })).to.equal(undefined);
    const gpt2 = modelConfig({ model_type: 'gpt2', architectures: ['GPT2LMHeadModel'] });
    expect(gpt2.tied).to.equal(true);
    const [c] = modulesOf(infos(['h.0.attn.c_attn.weight', 4, 12]), gpt2).modules;
    expect(c).to.include({ path: 'transformer.h.0.attn.c_attn', conv1d: true, weight: 'h.0.attn.c_attn.weight' });
    expect(isConv1d('model.layers.0.c_proj', llama)).to.equal(false);
  });

  it('the tensor of an adapter path, with the prefix the file leaves out or adds', () => {
    const file = infos(['h.0.attn.c_attn.weight', 4, 12], ['model.layers.0.q.weight', 4, 4]);
    expect(findTensor(file, 'transformer.h.0.attn.c_attn', 'weight')?.name).to.equal('h.0.attn.c_attn.weight');
    expect(findTensor(file, 'layers.0.q', 'weight')?.name).to.equal('model.layers.0.q.weight');
    expect(findTensor(file, 'model.layers.1.q', 'weight')).to.equal(undefined);
  });
});
