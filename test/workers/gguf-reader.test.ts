/**
 * GGUF models as checkpoints: names, dtypes and values against transformers models that were written by the converter's rules
 * (scripts/golden/gguf.py), the side files against those models' own configs.
 */
import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DTYPES } from '../../core/dtype.js';
import { Rng } from '../../core/rng.js';
import { rowLength } from '../../core/shape.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { GgufFile } from '../../formats/gguf/file.js';
import { checkpointStamp } from '../../formats/stamp.js';
import { requireModelConfig } from '../../models/config/parse.js';
import { generationConfigOf } from '../../models/gguf/config.js';
import { openAny } from '../../workers/open.js';
import { decodeF32 } from '../../core/float.js';
import { adapterFuse } from '../../pipelines/adapter-fuse.js';
import { drain, load, maxError, PREFIX, random, RUN, WRITE, writeAdapter } from '../support/adapters.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';
import { GGUF_GOLDEN, ggufBytes, metadataOf, type TestKey, type TestTensor } from '../support/gguf.js';

interface Golden {
  readonly file: string;
  readonly architecture: string;
  readonly tensors: Readonly<Record<string, { dtype: string; shape: number[]; sha256: string }>>;
  readonly config: Readonly<Record<string, unknown>>;
}
const { models } = JSON.parse(readFileSync(join(GGUF_GOLDEN, 'models.json'), 'utf8')) as { models: Golden[] };

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const json = (folder: string, name: string): Record<string, unknown> => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Record<string, unknown>;

async function expectTensors(reader: CheckpointReader, { tensors }: Golden): Promise<void> {
  const got: Record<string, unknown> = {};
  for (const { name, dtype, shape } of reader.infos.values()) got[name] = { dtype, shape: [...shape], sha256: sha((await reader.read(name)).bytes) };
  expect(got).to.deep.equal(tensors);
}

describe('workers/gguf-reader', () => {
  for (const golden of models) {
    describe(golden.file, () => {
      const path = join(GGUF_GOLDEN, golden.file);

      it('tensors have the names, dtypes, shapes and values of the model', async () => {
        await using reader = await openAny(path);
        await expectTensors(reader, golden);
        expect(reader.warnings).to.deep.equal([`${path}: no tokenizer.json: it holds no tokenizer`]);
      });

      it('rows and pieces of bytes are those of the whole', async () => {
        await using reader = await openAny(path);
        const rng = new Rng(5);
        for (const info of reader.infos.values()) {
          const whole = (await reader.read(info.name)).bytes;
          const rowBytes = (rowLength(info.shape) * DTYPES[info.dtype].bits) / 8;
          for (let i = 0; i < 6; i++) {
            const [start, begin] = [rng.integer(info.shape[0]!), rng.integer(whole.length)];
            const end = start + 1 + rng.integer(info.shape[0]! - start);
            const rows = await reader.read(info.name, [start, end]);
            expect(rows.shape).to.deep.equal([end - start, ...info.shape.slice(1)]);
            expect(Buffer.compare(rows.bytes, whole.subarray(start * rowBytes, end * rowBytes)), `${info.name} rows ${start} to ${end}`).to.equal(0);
            // anywhere, into memory that is aligned to nothing
            const piece = new Uint8Array(4099).subarray(3, 3 + Math.min(1 + rng.integer(4096), whole.length - begin));
            await reader.readInto(info.name, begin, piece);
            expect(Buffer.compare(piece, whole.subarray(begin, begin + piece.length)), `${info.name} bytes from ${begin}`).to.equal(0);
          }
          expect((await reader.read(info.name, [-5, 1e9])).shape).to.deep.equal(info.shape);
        }
      });

      it("config.json describes the same graph as the model's own", async () => {
        await using reader = await openAny(path);
        const folder = (await reader.sideFolder!())!;
        const graph = (document: unknown): object => ({ ...requireModelConfig(document, path), dtype: '', padToken: 0, architecture: '' });
        expect(graph(json(folder, 'config.json'))).to.deep.equal(graph(golden.config));
        expect(json(folder, 'config.json')['architectures']).to.be.an('array').with.length(1);
        expect(json(folder, 'config.json')['vocab_size']).to.equal(golden.config['vocab_size']);
      });
    });
  }

  it('config.json: floats are written as floats, and the end of a turn ends a text', async () => {
    await using reader = await openAny(join(GGUF_GOLDEN, 'gemma2.gguf'));
    const text = readFileSync(join((await reader.sideFolder!())!, 'config.json'), 'utf8');
    expect(text)
      .to.include('"final_logit_softcapping": 30.0,')
      .and.include('"rope_theta": 10000.0,')
      .and.include('"head_dim": 32,')
      .and.include('"rms_norm_eps": 0.000001,');
    using bpe = GgufFile.open(join(GGUF_GOLDEN, 'tokens-bpe.gguf'));
    expect(generationConfigOf(bpe)).to.deep.equal({ _from_model_config: true, bos_token_id: 1, eos_token_id: 2, pad_token_id: 2 });
    const number = (key: string): number | undefined => (key.endsWith('eot_token_id') ? 5 : bpe.number(key));
    expect(generationConfigOf({ ...metadataOf(bpe), number })).to.deep.include({ eos_token_id: [2, 5] });
  });

  it('a split model reads as the whole one', async () => {
    using dir = tempDir();
    const golden = models.find((m) => m.file === 'qwen3.gguf')!;
    using file = GgufFile.open(join(GGUF_GOLDEN, golden.file));
    const all = [...file.tensors.values()].map((e): TestTensor => {
      const data = new Uint8Array(e.bytes);
      file.readInto(e, 0, data);
      return { name: e.name, dims: [...e.shape].reverse(), type: e.type.name, data };
    });
    const whole = readFileSync(file.path);
    const keys: TestKey[] = [...file.keys()].map((key): TestKey => {
      const v = file.header.metadata.get(key)!;
      if (v.type === 'string') return { key, type: 'string', value: whole.toString('utf8', v.position, v.position + v.bytes) };
      if (v.type === 'array') throw new Error('no arrays in this file');
      return { key, type: v.type, value: v.value };
    });
    const split = (no: number): TestKey[] => [
      { key: 'split.no', type: 'u16', value: no },
      { key: 'split.count', type: 'u16', value: 3 },
      { key: 'split.tensors.count', type: 'i32', value: all.length },
    ];
    [all.slice(0, 7), all.slice(7, 8), all.slice(8)].forEach((tensors, no) => {
      writeFileSync(join(dir.path, `m-0000${no + 1}-of-00003.gguf`), ggufBytes({ keys: [...(no === 0 ? keys : []), ...split(no)], tensors }));
    });
    await using reader = await openAny(dir.path);
    await expectTensors(reader, golden);
    expect(reader.stored!.files.map((f) => f.tensors)).to.deep.equal([7, 1, all.length - 8]);
    expect(checkpointStamp(reader).split('|')).to.have.length(3);
  });

  it('an architecture that is not known: the names of the file, a warning, no config', async () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    const tensors: TestTensor[] = [
      { name: 'blk.0.attn_q.weight', dims: [32, 4], type: 'Q8_0' },
      { name: 'odd', dims: [256], type: 'IQ2_XS' },
    ];
    writeFileSync(path, ggufBytes({ keys: [{ key: 'general.architecture', type: 'string', value: 'mamba' }], tensors }));
    await using reader = await openAny(path);
    expect([...reader.infos.keys()]).to.deep.equal(['blk.0.attn_q.weight', 'odd']);
    expect(reader.warnings![0]).to.include('architecture "mamba" is not known');
    expect(reader.warnings!.at(-1)).to.include('1 tensors cannot be decoded, the first is "odd" (IQ2_XS)');
    expect((await reader.read('blk.0.attn_q.weight')).bytes).to.have.length(512);
    const error = await expectCode('DTYPE_UNSUPPORTED', () => reader.read('odd'));
    expect(error.message).to.include('IQ2_XS').and.include('"odd"');
    expect(existsSync(join((await reader.sideFolder!())!, 'config.json'))).to.equal(false);
  });

  it('tensors that an architecture does not have keep their names', async () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    const keys: TestKey[] = [
      { key: 'general.architecture', type: 'string', value: 'llama' },
      { key: 'llama.attention.head_count', type: 'u32', value: 2 },
    ];
    const tensor = (name: string, rows: number): TestTensor => ({ name, dims: [4, rows], type: 'F32' });
    writeFileSync(path, ggufBytes({ keys, tensors: [tensor('blk.0.attn_q.weight', 8), tensor('blk.0.ffn_gate_exps.weight', 4)] }));
    await using reader = await openAny(path);
    expect([...reader.infos.keys()]).to.deep.equal(['model.layers.0.self_attn.q_proj.weight', 'blk.0.ffn_gate_exps.weight']);
    expect(reader.warnings![0]).to.include('1 tensors are not of a llama model');

    // two spellings of one layer must not become one tensor
    writeFileSync(
      path,
      ggufBytes({
        keys,
        tensors: [tensor('blk.0.attn_v.weight', 4), tensor('blk.00.attn_v.weight', 4), tensor('model.norm.weight', 4), tensor('output_norm.weight', 4)],
      }),
    );
    await using twice = await openAny(path);
    expect([...twice.infos.keys()]).to.deep.equal([
      'model.layers.0.self_attn.v_proj.weight',
      'blk.00.attn_v.weight',
      'model.norm.weight',
      'output_norm.weight',
    ]);

    writeFileSync(path, ggufBytes({ keys, tensors: [tensor('blk.0.attn_q.weight', 6)] }));
    expect((await expectCode('SHAPE_MISMATCH', () => openAny(path))).message).to.include('rows of 2 heads of even size, got 6 rows');
    writeFileSync(path, ggufBytes({ keys: keys.slice(0, 1), tensors: [tensor('blk.0.attn_q.weight', 8)] }));
    expect((await expectCode('GGUF_FIELD', () => openAny(path))).message).to.include('llama.attention.head_count');
    writeFileSync(path, ggufBytes({ keys: [keys[0]!, { ...keys[1]!, value: 0 }], tensors: [tensor('blk.0.attn_q.weight', 8)] }));
    expect((await expectCode('GGUF_FIELD', () => openAny(path))).message).to.include('a whole number from 1 to 65536, got 0');
  });

  it('metadata that no model can have: GGUF_FIELD when a config is made of it', async () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    const numbers = { embedding_length: 8, feed_forward_length: 8, 'attention.head_count': 2, context_length: 8, 'attention.layer_norm_rms_epsilon': 1 };
    const keys = (layers: number, left?: string): TestKey[] => [
      { key: 'general.architecture', type: 'string', value: 'gemma2' },
      { key: 'gemma2.block_count', type: 'u32', value: layers },
      ...Object.entries(numbers).flatMap(([k, value]): TestKey[] => (k === left ? [] : [{ key: `gemma2.${k}`, type: 'u32', value }])),
    ];
    const side = async (of: TestKey[]): Promise<unknown> => {
      writeFileSync(path, ggufBytes({ keys: of }));
      await using reader = await openAny(path);
      return json((await reader.sideFolder!())!, 'config.json')['layer_types'];
    };
    expect(await side(keys(2))).to.deep.equal(['sliding_attention', 'full_attention']);
    expect((await expectCode('GGUF_FIELD', () => side(keys(4e9)))).message)
      .to.include('gemma2.block_count')
      .and.include('got 4000000000');
    expect((await expectCode('GGUF_FIELD', () => side(keys(2, 'context_length')))).message).to.include('gemma2.context_length');
  });

  it('side files of the folder itself are preferred to synthesized ones', async () => {
    using dir = tempDir();
    const folder = join(dir.path, 'model');
    mkdirSync(folder);
    copyFileSync(join(GGUF_GOLDEN, 'gpt2.gguf'), join(folder, 'gpt2.gguf'));
    writeFileSync(join(folder, 'tokenizer.json'), '{"own":true}');
    await using reader = await openAny(folder);
    const side = (await reader.sideFolder!())!;
    expect(json(side, 'tokenizer.json')).to.deep.equal({ own: true });
    expect(json(side, 'config.json')['model_type']).to.equal('gpt2');
    // named by its file, the folder around it means nothing
    await using bare = await openAny(join(folder, 'gpt2.gguf'));
    expect(existsSync(join((await bare.sideFolder!())!, 'tokenizer.json'))).to.equal(false);
  });

  it('takes an adapter, in place and fused; the synthesized config says which weights lie the other way round', async () => {
    using dir = tempDir();
    const [base, name] = [join(GGUF_GOLDEN, 'gpt2.gguf'), 'transformer.h.0.attn.c_attn'];
    const rng = new Rng(3);
    const [a, b] = [random(rng, `${PREFIX}${name}.lora_A.weight`, 4, 64), random(rng, `${PREFIX}${name}.lora_B.weight`, 192, 4)];
    const adapter = writeAdapter(join(dir.path, 'lora'), [a, b], { target_modules: ['c_attn'], fan_in_fan_out: true });
    const out = join(dir.path, 'out');
    await drain(adapterFuse({ ...RUN, ...WRITE, base, adapter, out }));
    const [plain, composed, fused] = [await load(base), await load(`${base}+${adapter}`), await load(out)];
    const [fa, fb] = [decodeF32('F32', a.bytes), decodeF32('F32', b.bytes)];
    // W' = W + 2 (B A)^T
    const want = plain.get(`${name}.weight`)!.map((w, at) => {
      const [i, o] = [Math.floor(at / 192), at % 192];
      return w + 2 * [0, 1, 2, 3].reduce((sum, r) => sum + fb[o * 4 + r]! * fa[r * 64 + i]!, 0);
    });
    for (const got of [composed, fused]) {
      expect(maxError(got.get(`${name}.weight`)!, want)).to.be.lessThan(1e-6);
      expect(got.get('transformer.wte.weight')).to.deep.equal(plain.get('transformer.wte.weight'));
    }
    expect(json(out, 'config.json')).to.include({ model_type: 'gpt2', n_layer: 1 });
  });

  it('removes what it synthesized', async () => {
    const reader = await openAny(join(GGUF_GOLDEN, 'bert.gguf'));
    const side = (await reader.sideFolder!())!;
    expect(existsSync(side)).to.equal(true);
    await reader[Symbol.asyncDispose]();
    expect(existsSync(side)).to.equal(false);
  });
});
