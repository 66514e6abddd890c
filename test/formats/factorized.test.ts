/** Factors as they lie in files: ASVD's releases, what contradicts itself, and the keys of config.json. */
import { expect } from 'chai';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import { withFields, withoutFields } from '../../formats/config-fields.js';
import { METADATA_KEY } from '../../formats/factorized.js';
import { openAny } from '../../workers/open.js';
import { load, random, view } from '../support/adapters.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir, writeSafetensors } from '../support/files.js';
import { naiveProduct } from '../support/random-matrix.js';

const A = 'h.0.q.ALinear.weight';
const B = 'h.0.q.BLinear.weight';

describe('formats/factorized', () => {
  it('an ASVD release, which says nothing of itself in its file, is read as the dense model; bf16, f16 and f32', async () => {
    for (const dtype of ['BF16', 'F16', 'F32'] as const) {
      using dir = tempDir();
      const rng = new Rng(3);
      const [a, b] = [rng.normals(5 * 2), rng.normals(2 * 7)];
      const tensors = [
        view(A, [5, 2], a, dtype),
        view(B, [2, 7], b, dtype),
        view('h.0.q.ALinear.bias', [5], rng.normals(5), dtype),
        random(rng, 'h.0.k.weight', 3, 7),
      ];
      writeSafetensors(join(dir.path, 'model.safetensors'), tensors, { format: 'pt' });
      await using reader = await openAny(dir.path);
      expect([...reader.infos.keys()].sort()).to.deep.equal(['h.0.k.weight', 'h.0.q.bias', 'h.0.q.weight']);
      expect(reader.infos.get('h.0.q.weight')).to.deep.equal({ name: 'h.0.q.weight', dtype, shape: [5, 7] });
      expect(reader.stored!.tensors.get('h.0.q.weight')!.name).to.equal('rank 2');
      const [got, right] = [(await load(dir.path)).get('h.0.q.weight')!, naiveProduct(a, b, 5, 2, 7)];
      got.forEach((v, i) => expect(v).to.be.closeTo(right[i]!, dtype === 'F32' ? 1e-5 : 0.1));
      // running a model rounds nothing
      await using running = await openAny(dir.path, { merged: 'F32' });
      expect(running.infos.get('h.0.q.weight')!.dtype).to.equal('F32');
      expect(running.infos.get('h.0.k.weight')!.dtype).to.equal('F32');
    }
  });

  it('what contradicts itself is refused with what does not fit', async () => {
    const rng = new Rng(4);
    const [a, b] = [random(rng, A, 5, 2), random(rng, B, 2, 7)];
    const section = (more: object): Record<string, string> => ({
      [METADATA_KEY]: JSON.stringify({ version: 1, method: 'svd', ranks: { 'h.0.q': 2 }, ...more }),
    });
    const cases: [string, Parameters<typeof writeSafetensors>[1], Record<string, string>?][] = [
      ['has no', [a]],
      ['belongs to no factored layer', [a, b, random(rng, 'h.1.q.BLinear.weight', 2, 7)]],
      ['belongs to no factored layer', [a, b, random(rng, 'h.0.q.BLinear.bias', 2)]],
      ['is no product', [a, random(rng, B, 3, 7)]],
      ['is no product', [random(rng, A, 5), b]],
      ['floats of one type', [a, view(B, [2, 7], rng.normals(14), 'BF16')]],
      ['there twice', [a, b, random(rng, 'h.0.q.weight', 5, 7)]],
      ['has rank 3 by its metadata, 2 in the file', [a, b], section({ ranks: { 'h.0.q': 3 } })],
      ['has rank 2 by its metadata, no factors in the file', [a, b], section({ ranks: { 'h.0.q': 2, 'h.0.k': 2 } })],
      ['a later version: expected at most 1, got 2', [a, b], section({ version: 2 })],
      ['it is not JSON', [a, b], { [METADATA_KEY]: '{' }],
      ['method', [a, b], { [METADATA_KEY]: '{"version":1,"ranks":{}}' }],
    ];
    for (const [message, tensors, metadata] of cases) {
      using dir = tempDir();
      writeSafetensors(join(dir.path, 'model.safetensors'), tensors, metadata);
      expect((await expectCode('FACTORIZED_MALFORMED', () => openAny(dir.path))).message).to.contain(message);
    }
  });

  it('config.json: what is put in comes out again, byte for byte, wherever it stands', () => {
    const texts = ['{\n  "a": 1e-05,\n  "b": [1, {"x": 2}]\n}\n', '{}', '{"a":"} \\" ,","pith":{"q":[1,2]}}', '{ "b" : null }'];
    for (const text of texts) {
      const bytes = Buffer.from(text);
      const put = withFields(bytes, [{ key: 'ranks', value: '{"m.0":3}', add: true }, { key: 'section', value: '{"ranks":{"$&":[1]}}', add: true }]); // prettier-ignore
      if (text !== '{}') expect(JSON.parse(Buffer.from(put).toString())).to.deep.include({ ranks: { 'm.0': 3 }, section: { ranks: { '$&': [1] } } });
      if (text !== '{}') expect(JSON.parse(Buffer.from(withoutFields(put, ['section', 'ranks'])).toString())).to.deep.equal(JSON.parse(text));
      if (text.startsWith('{\n')) expect(Buffer.from(withoutFields(put, ['section', 'ranks'])).toString()).to.equal(text);
      expect(Buffer.from(withoutFields(bytes, ['none', 'x'])).toString()).to.equal(text);
    }
    expect(JSON.parse(Buffer.from(withoutFields(Buffer.from('{"a": 1, "b": {"a": 2}, "c": 3}'), ['a', 'c'])).toString())).to.deep.equal({ b: { a: 2 } });
    expect(Buffer.from(withoutFields(Buffer.from('{"a": 1}'), ['a'])).toString()).to.equal('{}');
  });
});
