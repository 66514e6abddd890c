/** Adapters from file to file: the golden of peft, extraction against exact spectra, merging of every form, resizing, fitting. */
import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { Adapter } from '../../formats/adapter/adapter.js';
import { exactSvd } from '../../kernels/linalg/svd.js';
import { adapterExtract, type ExtractOptions, type ExtractReport } from '../../pipelines/adapter-extract.js';
import { adapterFuse, adapterFuseDelta, type FuseOptions, type FuseReport } from '../../pipelines/adapter-fuse.js';
import { adapterLint, type LintOptions, type LintReport, type LintTarget } from '../../pipelines/adapter-lint.js';
import { adapterResize, type ResizeOptions, type ResizeReport } from '../../pipelines/adapter-resize.js';
import { deltaEncode } from '../../pipelines/delta-encode.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { openAny } from '../../workers/open.js';
import { drain, load, maxError, PREFIX, random, RUN, view, WRITE, writeAdapter, writeBase } from '../support/adapters.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, TINY } from '../support/files.js';
import { distance, frobenius, naiveProduct } from '../support/random-matrix.js';

const [BASE, TUNED, LORA] = ['base', 'tuned', 'lora'].map((n) => join(TINY, n)) as [string, string, string];
const SELECT = { embedLora: false, saveModules: [], include: [], exclude: [], skipUndecomposable: false, distributeScale: true };

const extract = (out: string, more: Partial<ExtractOptions> = {}): Promise<ExtractReport> =>
  drain(adapterExtract({ ...RUN, ...WRITE, ...SELECT, base: BASE, tuned: TUNED, out, rule: { maxRank: 8 }, ...more }));
const fuse = (adapter: string, out: string, more: Partial<FuseOptions> = {}): Promise<FuseReport> =>
  drain(adapterFuse({ ...RUN, ...WRITE, base: BASE, adapter, out, ...more }));
const resize = (adapter: string, out: string, more: Partial<ResizeOptions>): Promise<ResizeReport> =>
  drain(adapterResize({ ...RUN, ...WRITE, adapter, out, rule: { maxRank: 8 }, ...more }));
const lint = (adapter: string, target: LintTarget, more: Partial<LintOptions> = {}): Promise<LintReport> =>
  drain(adapterLint({ ...RUN, ...WRITE, adapter, target, ...more }));

const config = (folder: string): Record<string, unknown> => JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;

describe('pipelines/adapter fuse', () => {
  it("the shipped adapter in f32: peft's merged weights within 2e-6, untouched tensors exact, side files kept", async () => {
    using dir = tempDir();
    const out = join(dir.path, 'merged');
    const report = await fuse(LORA, out, { dtype: 'F32' });
    const [got, golden, base] = [await load(out), await load(join(TINY, 'golden.safetensors')), await load(BASE)];
    const names = [...golden.keys()].filter((n) => n.startsWith('lora-merged.'));
    expect(names.length).to.equal(2);
    for (const n of names) expect(maxError(got.get(n.slice('lora-merged.'.length))!, golden.get(n)!), n).to.be.at.most(2e-6);
    expect(Array.from(got.get('model.norm.weight')!)).to.deep.equal(Array.from(base.get('model.norm.weight')!));
    expect(report).to.include({ copied: 10, maxError: 0, untied: false });
    expect(report.tensors.length).to.equal(28);
    expect(readdirSync(out).sort()).to.deep.equal(readdirSync(BASE).sort());
    expect(readFileSync(join(out, 'tokenizer.json'))).to.deep.equal(readFileSync(join(BASE, 'tokenizer.json')));
    const was = readFileSync(join(BASE, 'config.json'), 'utf8');
    expect(readFileSync(join(out, 'config.json'), 'utf8')).to.equal(was.replace('"bfloat16"', '"float32"'));
  });

  it('in the type of the base: the f32 result rounded once, and the largest rounding error as it is; shards', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    await fuse(LORA, p('f32.safetensors'), { dtype: 'F32' });
    const report = await fuse(LORA, p('bf16'), { shardBytes: 2e6 });
    const [exact, stored] = [await load(p('f32.safetensors')), await load(p('bf16'))];
    let worst = 0;
    for (const t of report.tensors) {
      const error = maxError(stored.get(t.name)!, exact.get(t.name)!);
      expect(error).to.be.closeTo(t.maxError, 1e-9);
      worst = Math.max(worst, error);
    }
    expect(report.maxError).to.be.closeTo(worst, 1e-9);
    expect(worst).to.be.within(1e-4, 2 ** -8);
    expect(readdirSync(p('bf16')).filter((f) => f.startsWith('model-'))).to.have.length.above(1);
    expect(readdirSync(p('bf16'))).to.include('model.safetensors.index.json');
  });

  it('every form of a module: rsLoRA, DoRA either way round, embeddings, convolutions, biases, full copies', async () => {
    using dir = tempDir();
    const rng = new Rng(2);
    const base = [random(rng, 'm.q.weight', 7, 6), random(rng, 'm.c_attn.weight', 6, 9), random(rng, 'm.embed_tokens.weight', 11, 6), random(rng, 'm.conv.weight', 5, 2, 3), random(rng, 'm.b.weight', 4, 6), random(rng, 'm.b.bias', 4), random(rng, 'm.norm.weight', 6)]; // prettier-ignore
    const named = (path: string, suffix: string, ...shape: number[]): TensorView => random(rng, `${PREFIX}m.${path}.${suffix}`, ...shape);
    const tensors = [named('q', 'lora_A.weight', 4, 6), named('q', 'lora_B.weight', 7, 4), named('q', 'lora_magnitude_vector', 7)];
    tensors.push(named('c_attn', 'lora_A.weight', 4, 6), named('c_attn', 'lora_B.weight', 9, 4), named('c_attn', 'lora_magnitude_vector', 9));
    tensors.push(named('embed_tokens', 'lora_embedding_A', 4, 11), named('embed_tokens', 'lora_embedding_B', 6, 4), named('embed_tokens', 'lora_magnitude_vector', 6)); // prettier-ignore
    const dora = writeAdapter(join(dir.path, 'dora'), tensors, { use_dora: true, use_rslora: true, fan_in_fan_out: true });
    const others = [named('conv', 'lora_A.weight', 4, 2, 3), named('conv', 'lora_B.weight', 5, 4, 1), named('b', 'lora_A.weight', 4, 6), named('b', 'lora_B.weight', 4, 4), named('norm', 'weight', 6)]; // prettier-ignore
    const plain = writeAdapter(join(dir.path, 'plain'), [...others], { modules_to_save: ['norm'] });
    const biased = writeAdapter(join(dir.path, 'biased'), [others[2]!, others[3]!, named('b', 'lora_B.bias', 4)], { lora_bias: true });
    const folder = writeBase(join(dir.path, 'base'), base);
    const w = await load(folder);
    const at = async (adapter: string, name: string): Promise<Float32Array> => {
      const out = join(dir.path, `${name}-${Math.abs(name.length)}-${adapter.split('/').at(-1)!}.safetensors`);
      await fuse(adapter, out, { base: folder });
      return (await load(out)).get(name)!;
    };
    const values = async (adapter: string): Promise<(suffix: string) => Float32Array> => {
      const all = await load(join(adapter, 'adapter_model.safetensors'));
      return (suffix) => all.get(`${PREFIX}m.${suffix}`)!;
    };
    const of = await values(dora);
    // W'[o, :] = m[o] V[o, :] / ||V[o, :]||, V in (out, in)
    const expected = (v: Float64Array, magnitude: Float32Array, columns: number): number[] => {
      const norms = Array.from(magnitude, (_, o) => frobenius(v.subarray(o * columns, (o + 1) * columns)));
      return Array.from(v, (x, i) => (magnitude[Math.floor(i / columns)]! * x) / norms[Math.floor(i / columns)]!);
    };
    const flip = (x: ArrayLike<number>, rows: number, columns: number): number[] =>
      Array.from({ length: rows * columns }, (_, i) => x[(i % rows) * columns + Math.floor(i / rows)]!);
    const scale = 8 / Math.sqrt(4);
    const q = naiveProduct(of('q.lora_B.weight'), of('q.lora_A.weight'), 7, 4, 6).map((x, i) => w.get('m.q.weight')![i]! + scale * x);
    expect(maxError(await at(dora, 'm.q.weight'), expected(q, of('q.lora_magnitude_vector'), 6))).to.be.lessThan(1e-6);
    const straight = flip(w.get('m.c_attn.weight')!, 6, 9);
    const c = naiveProduct(of('c_attn.lora_B.weight'), of('c_attn.lora_A.weight'), 9, 4, 6).map((x, i) => straight[i]! + scale * x);
    expect(maxError(await at(dora, 'm.c_attn.weight'), flip(expected(c, of('c_attn.lora_magnitude_vector'), 6), 9, 6))).to.be.lessThan(1e-6);
    const table = flip(w.get('m.embed_tokens.weight')!, 11, 6);
    const e = naiveProduct(of('embed_tokens.lora_embedding_B'), of('embed_tokens.lora_embedding_A'), 6, 4, 11).map((x, i) => table[i]! + scale * x);
    const embedded = await at(dora, 'm.embed_tokens.weight');
    expect(maxError(embedded, flip(expected(e, of('embed_tokens.lora_magnitude_vector'), 11), 6, 11))).to.be.lessThan(1e-6);
    const more = await values(plain);
    const k = naiveProduct(more('conv.lora_B.weight'), more('conv.lora_A.weight'), 5, 4, 6);
    expect(
      maxError(
        await at(plain, 'm.conv.weight'),
        k.map((x, i) => w.get('m.conv.weight')![i]! + 2 * x),
      ),
    ).to.be.lessThan(1e-6);
    expect(Array.from(await at(plain, 'm.norm.weight'))).to.deep.equal(Array.from(more('norm.weight')));
    const bias = (await values(biased))('b.lora_B.bias');
    expect(
      maxError(
        await at(biased, 'm.b.bias'),
        bias.map((x, i) => w.get('m.b.bias')![i]! + 2 * x),
      ),
    ).to.be.lessThan(1e-6);
  });

  it('a head that shares the embedding: kept shared when both change alike, else of its own', async () => {
    using dir = tempDir();
    const rng = new Rng(5);
    const base = writeBase(join(dir.path, 'base'), [random(rng, 'model.embed_tokens.weight', 9, 5), random(rng, 'model.q.weight', 5, 5)], { tie_word_embeddings: true }); // prettier-ignore
    const copy = random(rng, `${PREFIX}model.embed_tokens.weight`, 9, 5);
    const alike = writeAdapter(join(dir.path, 'alike'), [copy, { ...copy, name: `${PREFIX}lm_head.weight` }], { modules_to_save: ['embed_tokens', 'lm_head'] });
    const one = await fuse(alike, join(dir.path, 'one'), { base });
    expect(one.untied).to.equal(false);
    expect([...(await load(join(dir.path, 'one'))).keys()]).to.not.include('lm_head.weight');
    const own = writeAdapter(join(dir.path, 'own'), [random(rng, `${PREFIX}lm_head.lora_A.weight`, 4, 5), random(rng, `${PREFIX}lm_head.lora_B.weight`, 9, 4)]);
    const two = await fuse(own, join(dir.path, 'two'), { base });
    expect(two.untied).to.equal(true);
    const [was, now] = [await load(base), await load(join(dir.path, 'two'))];
    expect(Array.from(now.get('model.embed_tokens.weight')!)).to.deep.equal(Array.from(was.get('model.embed_tokens.weight')!));
    expect(distance(now.get('lm_head.weight')!, was.get('model.embed_tokens.weight')!)).to.be.greaterThan(1);
    expect(readFileSync(join(dir.path, 'two', 'config.json'), 'utf8')).to.contain('"tie_word_embeddings": false');
  });

  it('the same bytes at 1 and 3 threads; as a delta it restores to the same checkpoint', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    await fuse(LORA, p('one'), { threads: 1 });
    await fuse(LORA, p('three'), { threads: 3 });
    expect(hashTree(p('one'))).to.deep.equal(hashTree(p('three')));
    const options = { ...RUN, ...WRITE, base: BASE, adapter: LORA, out: p('d.safetensors') };
    const r = await drain(adapterFuseDelta(options, { method: 'lossless', params: {}, selects: () => true }));
    expect(r.bytes).to.be.lessThan(0.5 * r.rawBytes);
    await drain(deltaRestore({ ...RUN, ...WRITE, resume: true, base: BASE, delta: p('d.safetensors'), out: p('back') }));
    expect(hashTree(p('back'))).to.deep.equal(hashTree(p('one')));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['back', 'd.safetensors', 'one', 'three']);
  });

  it('refuses a base that does not fit, an existing output and a moved base, and leaves nothing', async () => {
    using dir = tempDir();
    const rng = new Rng(3);
    const folder = writeBase(join(dir.path, 'base'), [random(rng, 'm.q.weight', 7, 6)]);
    const ab = (path: string, output: number): TensorView[] => [random(rng, `${PREFIX}${path}.lora_A.weight`, 4, 6), random(rng, `${PREFIX}${path}.lora_B.weight`, output, 4)]; // prettier-ignore
    const out = join(dir.path, 'out');
    for (const [tensors, more, says] of [
      [ab('m.k', 7), {}, 'm.k'],
      [ab('m.q', 8), {}, '[8, 6]'],
      [[random(rng, `${PREFIX}m.norm.weight`, 6)], { modules_to_save: ['norm'] }, 'm.norm'],
      [[...ab('m.q', 7), random(rng, `${PREFIX}m.q.lora_B.bias`, 7)], { lora_bias: true }, 'bias'],
    ] as const) {
      const error = await expectCode('ADAPTER_BASE', () => fuse(writeAdapter(join(dir.path, 'a'), tensors, more), out, { base: folder }));
      expect(error.exitCode).to.equal(65);
      expect(error.message).to.contain(says);
    }
    const moved = writeAdapter(join(dir.path, 'a'), ab('m.q', 7), { init_lora_weights: 'olora' });
    await expectCode('ADAPTER_UNSUPPORTED', () => fuse(moved, out, { base: folder }));
    await expectCode('OUTPUT_EXISTS', () => fuse(LORA, join(dir.path, 'base')));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['a', 'base']);
    expect(readdirSync(folder).sort()).to.deep.equal(['config.json', 'model.safetensors']);
  });
});

describe('workers/adapted-reader', () => {
  it('BASE+ADAPTER reads what a fuse writes, whole, by rows and by bytes, and works as the base of a delta', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    await fuse(LORA, p('m'));
    await using composed = await openAny(`${BASE}+${LORA}`);
    await using merged = await openAny(p('m'));
    expect([...composed.infos.values()]).to.have.deep.members([...merged.infos.values()]);
    const names = [...merged.infos.keys()];
    // asked for all at once: reads wait for each other
    const views = await Promise.all(names.map((n) => composed.read(n)));
    for (const v of views) expect(Buffer.compare(v.bytes, (await merged.read(v.name)).bytes), v.name).to.equal(0);
    const name = 'model.layers.0.mlp.up_proj.weight';
    expect((await composed.read(name, [3, 9])).bytes).to.deep.equal((await merged.read(name, [3, 9])).bytes);
    const encode = { ...RUN, ...WRITE, resume: false, method: 'lossless', params: {}, selects: () => true };
    const r = await drain(deltaEncode({ ...encode, base: `${BASE}+${LORA}`, tuned: p('m'), out: p('d.safetensors') }));
    expect(r.tensors.every((t) => t.method === 'identical')).to.equal(true);
    await drain(deltaRestore({ ...RUN, ...WRITE, resume: true, base: `${BASE}+${LORA}`, delta: p('d.safetensors'), out: p('back') }));
    expect(hashTree(p('back'))).to.deep.equal(hashTree(p('m')));
    await expectCode('USAGE', () => drain(deltaEncode({ ...encode, base: BASE, tuned: `${BASE}+${LORA}`, out: p('e.safetensors') })));
    await expectCode('NOT_FOUND', () => openAny(`${BASE}+${p('nowhere')}`));
    await expectCode('ADAPTER_BASE', () => openAny(`${join(TINY, 'golden.safetensors')}+${LORA}`));
  });
});

describe('pipelines/adapter extract', () => {
  it('every factor pair is the best of its rank; the residual it states is that of the files; merged it is nearer to the fine-tune', async () => {
    using dir = tempDir();
    const report = await extract(join(dir.path, 'a'), { dtype: 'F32', skipUndecomposable: true, exclude: ['embed|lm_head'] });
    expect(report.modules.length).to.equal(28);
    expect(report.saved).to.deep.equal([]);
    const [w0, w1] = [await load(BASE), await load(TUNED)];
    using adapter = Adapter.open(join(dir.path, 'a'));
    await fuse(join(dir.path, 'a'), join(dir.path, 'm.safetensors'), { dtype: 'F32' });
    const merged = await load(join(dir.path, 'm.safetensors'));
    for (const m of report.modules.filter((_, i) => i % 5 === 0)) {
      const name = `${m.name}.weight`;
      const d = w1.get(name)!.map((v, i) => v - w0.get(name)![i]!);
      const [out, input] = [adapter.modules.get(m.name)!.b.shape[0]!, adapter.modules.get(m.name)!.a.shape[1]!];
      const { s } = exactSvd(Float64Array.from(d), out, input);
      const optimum = Math.sqrt(s.subarray(8).reduce((sum, v) => sum + v * v, 0)) / frobenius(d);
      expect(m.residual / optimum).to.be.within(1 - 1e-6, 1.0005);
      expect(distance(merged.get(name)!, w1.get(name)!) / frobenius(d)).to.be.closeTo(m.residual, 1e-4);
    }
  });

  it('at full rank with all flags on, the merged adapter is the fine-tune: embeddings, head and norms too', async () => {
    using dir = tempDir();
    await extract(join(dir.path, 'a'), { dtype: 'F32', rule: { maxRank: 512 } });
    const report = await fuse(join(dir.path, 'a'), join(dir.path, 'm'));
    const [got, w1] = [await load(join(dir.path, 'm')), await load(TUNED)];
    expect([...got.keys()].sort()).to.deep.equal([...w1.keys()].sort());
    for (const [name, w] of w1) {
      const factors = /_proj\.weight$/.test(name);
      // components below a thousandth of the largest are not kept
      expect(maxError(got.get(name)!, w), name).to.be.at.most(factors ? 5e-4 : 0);
    }
    expect(report.untied).to.equal(false);
  });

  it('ranks by energy, by epsilon, by size; scales in one factor or both; the smaller side is the limit', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const only = { skipUndecomposable: true, exclude: ['embed|lm_head'] };
    const half = await extract(p('energy'), { ...only, rule: { maxRank: 128, energy: 0.5 } });
    for (const m of half.modules) expect(m.residual ** 2).to.be.at.most(0.5 + 1e-6);
    expect(new Set(half.modules.map((m) => m.rank)).size).to.be.greaterThan(3);
    expect(Math.max(...(await extract(p('capped'), { ...only, rule: { maxRank: 4, energy: 0.5 } })).modules.map((m) => m.rank))).to.equal(4);
    const sized = await extract(p('sized'), { ...only, rule: { maxRank: 128 }, targetBytes: 120_000 });
    expect(sized.bytes).to.be.within(100_000, 120_000);
    const even = await extract(p('even'), { ...only, rule: { maxRank: 4 } });
    expect(sized.residual).to.be.lessThan(even.residual * 1.05);
    await expectCode('TARGET_TOO_SMALL', () => extract(p('tiny'), { ...only, targetBytes: 1000 }));
    const epsilon = await extract(p('epsilon'), { ...only, rule: { maxRank: 128, svEpsilon: 0.2 } });
    const { s } = exactSvd(...(await difference('model.layers.0.mlp.up_proj.weight', 512, 256)));
    expect(epsilon.modules.find((m) => m.name === 'model.layers.0.mlp.up_proj')?.rank).to.equal(s.filter((v) => v > 0.2).length);
    await extract(p('in-a'), { ...only, dtype: 'F32', distributeScale: false });
    await extract(p('both'), { ...only, dtype: 'F32' });
    const [a, both] = [await load(join(p('in-a'), 'adapter_model.safetensors')), await load(join(p('both'), 'adapter_model.safetensors'))];
    const key = `${PREFIX}model.layers.1.mlp.up_proj`;
    const b = a.get(`${key}.lora_B.weight`)!;
    for (let k = 0; k < 8; k++) expect(frobenius(Array.from({ length: 512 }, (_, i) => b[i * 8 + k]!))).to.be.closeTo(1, 1e-3);
    const product = (f: Map<string, Float32Array>): Float64Array => naiveProduct(f.get(`${key}.lora_B.weight`)!, f.get(`${key}.lora_A.weight`)!, 512, 8, 256);
    expect(maxError(product(a), product(both))).to.be.lessThan(1e-5);
  });

  async function difference(name: string, m: number, n: number): Promise<[Float64Array, number, number]> {
    const [w0, w1] = [await load(BASE), await load(TUNED)];
    return [Float64Array.from(w1.get(name)!, (v, i) => v - w0.get(name)![i]!), m, n];
  }

  it('what goes where: mergekit’s rules for embeddings, saved modules, regular expressions and norms', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const all = await extract(p('all'));
    expect(config(p('all'))).to.deep.include({ modules_to_save: ['embed_tokens', 'input_layernorm', 'lm_head', 'norm', 'post_attention_layernorm'] });
    expect(config(p('all'))['target_modules']).to.deep.equal(['down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj']);
    expect(all.modules.length).to.equal(28);
    const q = await extract(p('q'), { include: ['q_proj'], exclude: ['layers\\.0', 'embed', 'lm_head'] });
    expect(q.modules.map((m) => m.name)).to.deep.equal([1, 2, 3].map((i) => `model.layers.${i}.self_attn.q_proj`));
    expect(config(p('q'))['target_modules']).to.deep.equal(q.modules.map((m) => m.name));
    expect(config(p('q'))['modules_to_save']).to.equal(null);
    const embed = await extract(p('embed'), { embedLora: true, skipUndecomposable: true, saveModules: ['k_proj'] });
    expect(embed.modules.map((m) => m.name)).to.include.members(['model.embed_tokens', 'lm_head']);
    expect(embed.saved).to.deep.equal([0, 1, 2, 3].map((i) => `model.layers.${i}.self_attn.k_proj`));
    expect(embed.skipped.length).to.equal(9);
    const fused = await fuse(p('embed'), p('fused'));
    expect(fused.untied).to.equal(false);
  });

  it('what did not change is not in the adapter; biases and grown vocabularies are', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const rng = new Rng(7);
    const base = [random(rng, 'model.embed_tokens.weight', 9, 5), random(rng, 'model.l.0.q.weight', 6, 5), random(rng, 'model.l.0.q.bias', 6), random(rng, 'model.l.1.q.weight', 6, 5), random(rng, 'model.l.1.q.bias', 6), random(rng, 'buffer', 3)]; // prettier-ignore
    const plus = (t: TensorView): TensorView =>
      view(
        t.name,
        t.shape,
        new Float32Array(t.bytes.slice().buffer).map((v, i) => v + Math.sin(i + 1)),
      );
    const grown = random(rng, 'model.embed_tokens.weight', 11, 5);
    const tuned = [grown, plus(base[1]!), plus(base[2]!), base[3]!, base[4]!, plus(base[5]!)];
    const pair = { base: writeBase(p('base'), base), tuned: writeBase(p('tuned'), tuned) };
    const report = await extract(p('a'), { ...pair, embedLora: true, rule: { maxRank: 5 } });
    expect(report.modules.map((m) => m.name)).to.deep.equal(['model.l.0.q']);
    expect(config(p('a'))).to.deep.include({ target_modules: ['model.l.0.q'], modules_to_save: ['embed_tokens'], bias: 'all' });
    expect(report.skipped.map((s) => s.name)).to.deep.equal(['buffer']);
    await fuse(p('a'), p('m'), { base: pair.base });
    const [got, wanted] = [await load(p('m')), await load(pair.tuned)];
    for (const name of ['model.embed_tokens.weight', 'model.l.0.q.weight', 'model.l.0.q.bias', 'model.l.1.q.weight']) {
      expect(maxError(got.get(name)!, wanted.get(name)!), name).to.be.lessThan(1e-6);
    }
    await expectCode('NOTHING_TO_EXTRACT', () => extract(p('none'), { base: pair.base, tuned: pair.base }));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['a', 'base', 'm', 'tuned']);
  });

  it('the same bytes at 1 and 3 threads; a cancelled or failing run leaves nothing, and the old output', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    await extract(p('one'), { threads: 1 });
    await extract(p('three'), { threads: 3 });
    expect(hashTree(p('one'))).to.deep.equal(hashTree(p('three')));
    const before = hashTree(p('one'));
    const abort = new AbortController();
    const run = adapterExtract({
      ...RUN,
      ...WRITE,
      ...SELECT,
      base: BASE,
      tuned: TUNED,
      out: p('one'),
      rule: { maxRank: 4 },
      force: true,
      signal: abort.signal,
    });
    const error = await errorOf(async () => {
      for await (const event of run) if (event.type === 'tensor.done') abort.abort();
    });
    expect(error.code).to.equal('CANCELLED');
    expect(hashTree(p('one'))).to.deep.equal(before);
    const rng = new Rng(1);
    const other = writeBase(p('other'), [random(rng, 'model.layers.0.self_attn.q_proj.weight', 3, 3)]);
    const wrong = await expectCode('SHAPE_MISMATCH', () =>
      extract(p('x'), { base: other, include: ['layers.0.self_attn.q_proj'], exclude: ['embed|lm_head'] }),
    );
    expect(wrong.message).to.contain('layers.0.self_attn.q_proj').and.contain('[3, 3]');
    const missing = await expectCode('TENSOR_MISSING', () => extract(p('x'), { base: other, exclude: ['embed|lm_head|norm'] }));
    expect([wrong.exitCode, missing.exitCode]).to.deep.equal([65, 65]);
    expect(readdirSync(dir.path).sort()).to.deep.equal(['one', 'other', 'three']);
    await extract(p('one'), { force: true, rule: { maxRank: 2 } });
    expect(config(p('one'))['r']).to.equal(2);
  });
});

describe('pipelines/adapter resize and lint', () => {
  it('a smaller rank at the least error, scale kept; the same or a larger one changes nothing; energy', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const small = await resize(LORA, p('small'), { rule: { maxRank: 3 } });
    const product = async (folder: string): Promise<Float64Array> => {
      using adapter = Adapter.open(folder);
      const m = adapter.modules.get('model.layers.2.mlp.up_proj')!;
      const all = await load(join(folder, 'adapter_model.safetensors'));
      return naiveProduct(all.get(m.b.name)!, all.get(m.a.name)!, 512, m.rank, 256).map((v) => m.scaling * v);
    };
    const [full, cut] = [await product(LORA), await product(p('small'))];
    const { s } = exactSvd(full, 512, 256);
    const optimum = Math.sqrt(s.subarray(3).reduce((sum, v) => sum + v * v, 0)) / frobenius(full);
    const stated = small.modules.find((m) => m.name === 'model.layers.2.mlp.up_proj')!.error;
    expect(stated).to.be.closeTo(optimum, 1e-5);
    expect(distance(cut, full) / frobenius(full)).to.be.closeTo(optimum, 1e-4);
    await resize(LORA, p('same'), { rule: { maxRank: 8 } });
    expect(await load(join(p('same'), 'adapter_model.safetensors'))).to.deep.equal(await load(join(LORA, 'adapter_model.safetensors')));
    const wide = await resize(LORA, p('wide'), { rule: { maxRank: 16 }, uniformRank: 16 });
    expect([wide.rank, wide.error]).to.deep.equal([16, 0]);
    expect(maxError(await product(p('wide')), full)).to.be.lessThan(1e-6);
    const energetic = await resize(LORA, p('energy'), { rule: { maxRank: Infinity, energy: 0.9 } });
    for (const m of energetic.modules) expect(m.error ** 2).to.be.at.most(0.1 + 1e-6);
    expect(new Set(energetic.modules.map((m) => m.rank)).size).to.be.greaterThan(1);
  });

  it('targets: what they would refuse or misread, and an adapter that fits and means the same', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    for (const target of ['peft', 'vllm', 'llama.cpp'] as const) expect((await lint(LORA, target, { base: BASE })).ok, target).to.equal(true);
    const codes = (r: LintReport): string[] => r.findings.filter((f) => f.severity === 'error').map((f) => f.code);
    await extract(p('mixed'), { skipUndecomposable: true, exclude: ['embed|lm_head'], rule: { maxRank: 64, energy: 0.5 }, dtype: 'F32' });
    const { rank } = await lint(p('mixed'), 'peft', { base: BASE });
    expect(rank).to.be.greaterThan(8);
    expect((await lint(p('mixed'), 'vllm')).ok).to.equal(true);
    expect(codes(await lint(p('mixed'), 'vllm', { maxRank: 8 }))).to.deep.equal(['rank-cap']);
    // llama.cpp divides the one alpha by each tensor's own rank
    expect(codes(await lint(p('mixed'), 'llama.cpp'))).to.deep.equal(['scale']);
    expect(codes(await lint(p('mixed'), 'mlx'))).to.deep.equal(['layout', 'ranks']);
    const fitted = await lint(p('mixed'), 'llama.cpp', { out: p('fit') });
    expect([fitted.ok, fitted.fitted?.error]).to.deep.equal([true, 0]);
    expect((await lint(p('fit'), 'llama.cpp')).findings).to.deep.equal([]);
    await fuse(p('mixed'), p('m1.safetensors'), { dtype: 'F32' });
    await fuse(p('fit'), p('m2.safetensors'), { dtype: 'F32' });
    const [m1, m2] = [await load(p('m1.safetensors')), await load(p('m2.safetensors'))];
    for (const [name, w] of m1) expect(maxError(m2.get(name)!, w), name).to.be.lessThan(1e-6);
    await lint(p('mixed'), 'vllm', { maxRank: 8, out: p('eight') });
    expect((await lint(p('eight'), 'vllm', { maxRank: 8 })).ok).to.equal(true);
  });

  it('a rank above the sides of its weight is cut to them, and means the same', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const rng = new Rng(9);
    const tensors = [random(rng, `${PREFIX}m.q.lora_A.weight`, 20, 6), random(rng, `${PREFIX}m.q.lora_B.weight`, 8, 20)];
    const wide = writeAdapter(p('wide'), tensors, { r: 20, lora_alpha: 40 });
    const found = await lint(wide, 'peft', { out: p('fit') });
    expect(found.findings.map((f) => f.code)).to.deep.equal(['rank-above-sides']);
    expect(found.fitted?.rank).to.equal(6);
    expect((await lint(p('fit'), 'peft')).findings).to.deep.equal([]);
    const base = writeBase(p('base'), [random(rng, 'm.q.weight', 8, 6)]);
    for (const name of ['wide', 'fit']) await fuse(p(name), p(`${name}.safetensors`), { base });
    const [a, b] = [await load(p('wide.safetensors')), await load(p('fit.safetensors'))];
    expect(maxError(b.get('m.q.weight')!, a.get('m.q.weight')!)).to.be.lessThan(1e-5);
  });

  it('what no rank can mend stays an error and writes nothing: full copies, DoRA, a base that does not fit', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    await extract(p('whole'));
    const r = await lint(p('whole'), 'vllm', { out: p('fit') });
    expect([r.ok, r.fitted]).to.deep.equal([false, undefined]);
    expect(r.findings[0]).to.include({ code: 'modules-to-save', fixable: false });
    const rng = new Rng(1);
    const tensors = [random(rng, `${PREFIX}m.q.lora_A.weight`, 4, 6), random(rng, `${PREFIX}m.q.lora_B.weight`, 5, 4), random(rng, `${PREFIX}m.q.lora_magnitude_vector`, 5)]; // prettier-ignore
    const dora = writeAdapter(p('dora'), tensors, { use_dora: true, target_modules: ['k'] });
    expect((await lint(dora, 'llama.cpp')).findings.map((f) => f.code)).to.deep.equal(['dora']);
    expect((await lint(dora, 'mlx')).findings.map((f) => f.code)).to.deep.equal(['layout']);
    const wrong = await lint(dora, 'peft', { out: p('named') });
    expect(wrong.findings.map((f) => f.code)).to.deep.equal(['not-targeted']);
    expect(config(p('named'))['target_modules']).to.deep.equal(['q']);
    await expectCode('ADAPTER_BASE', () => lint(dora, 'peft', { base: BASE }));
    const mlx = await lint(LORA, 'mlx', { out: p('mlx') });
    expect(mlx.ok).to.equal(true);
    const [ours, peft] = [await load(join(p('mlx'), 'adapters.safetensors')), await load(join(LORA, 'adapter_model.safetensors'))];
    const [a, b] = [ours.get('model.layers.0.mlp.up_proj.lora_a')!, peft.get(`${PREFIX}model.layers.0.mlp.up_proj.lora_A.weight`)!];
    // (in, r) of (r, in)
    for (let i = 0; i < 256; i++) for (let k = 0; k < 8; k++) expect(a[i * 8 + k]).to.equal(b[k * 256 + i]);
    expect(config(p('mlx'))).to.deep.include({ fine_tune_type: 'lora', num_layers: 4 });
  });
});
