import { expect } from 'chai';
import { placeOf } from '../../models/place.js';

describe('models/place', () => {
  for (const [name, place] of [
    ['model.layers.12.self_attn.q_proj.weight', { stack: 'model.layers', layer: 12, module: 'self_attn.q_proj' }],
    ['model.layers.0.self_attn.q_proj.bias', { stack: 'model.layers', layer: 0, module: 'self_attn.q_proj.bias' }],
    ['model.layers.3.mlp.experts.17.down_proj.weight', { stack: 'model.layers', layer: 3, module: 'mlp.experts.*.down_proj' }],
    ['encoder.block.5.layer.1.DenseReluDense.wi_0.weight', { stack: 'encoder.block', layer: 5, module: 'layer.*.DenseReluDense.wi_0' }],
    ['h.7.attn.c_attn.weight', { stack: 'h', layer: 7, module: 'attn.c_attn' }],
    ['0.weight', { stack: '', layer: 0, module: 'weight' }],
    ['model.embed_tokens.weight', { stack: '', module: 'model.embed_tokens' }],
    ['weight', { stack: '', module: 'weight' }],
    ['a.3', { stack: '', module: 'a.3' }],
    ['', { stack: '', module: '' }],
  ] as const) {
    it(name, () => expect(placeOf(name)).to.deep.equal(place));
  }
});
