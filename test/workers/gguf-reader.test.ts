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
import { openAny } from '../../workers/open.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';
import { GGUF_GOLDEN, ggufBytes, type TestKey, type TestTensor } from '../support/gguf.js';

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

/** What transformers 5 calls `rope_parameters` in the words of the older keys that are synthesized. */
function ropeOf(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const all = config['rope_parameters'] as Record<string, Record<string, unknown> | undefined> | undefined;
  if (all === undefined) return {};
  const { rope_theta: theta, ...full } = all['full_attention'] ?? all;
  delete full['partial_rotary_factor'];
  // phi3 has it beside the scaling
  if (full['rope_type'] === 'longrope') delete full['original_max_position_embeddings'];
  const local = all['sliding_attention']?.['rope_theta'];
  const scaling = full['rope_type'] === 'default' ? {} : { rope_scaling: full };
  return { rope_theta: theta, ...scaling, ...(local === undefined ? {} : { rope_local_base_freq: local }) };
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

      it('config.json says what the model says', async () => {
        await using reader = await openAny(path);
        const config = json((await reader.sideFolder!())!, 'config.json');
        const want = { ...golden.config, ...ropeOf(golden.config) };
        expect(config['architectures']).to.be.an('array').with.length(1);
        // names that this version of the config class has no more, or has under another name
        const old = ['hidden_act', 'n_ctx', 'position_embedding_type', 'rope_scaling', 'partial_rotary_factor'].filter((k) => !(k in want));
        const keys = Object.fromEntries(Object.entries(config).filter(([k]) => ![...old, 'architectures', 'torch_dtype'].includes(k)));
        if (typeof keys['rope_scaling'] === 'object') delete (keys['rope_scaling'] as Record<string, unknown>)['type'];
        // null says nothing
        for (const [key, value] of Object.entries(keys).filter(([, v]) => v !== null))
          expect(value, key).to.deep.equal(want[key] ?? (key.startsWith('use_') || key.endsWith('_bias') ? false : undefined));
        // and nothing that shapes the computation is left out
        const shaping = Object.keys(ropeOf(golden.config)).concat('tie_word_embeddings', 'model_type', 'vocab_size');
        for (const key of shaping) expect(config, key).to.have.property(key);
      });
    });
  }

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

    writeFileSync(path, ggufBytes({ keys, tensors: [tensor('blk.0.attn_q.weight', 6)] }));
    expect((await expectCode('SHAPE_MISMATCH', () => openAny(path))).message).to.include('rows of 2 heads of even size, got 6 rows');
    writeFileSync(path, ggufBytes({ keys: keys.slice(0, 1), tensors: [tensor('blk.0.attn_q.weight', 8)] }));
    expect((await expectCode('GGUF_FIELD', () => openAny(path))).message).to.include('llama.attention.head_count');
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

  it('removes what it synthesized', async () => {
    const reader = await openAny(join(GGUF_GOLDEN, 'bert.gguf'));
    const side = (await reader.sideFolder!())!;
    expect(existsSync(side)).to.equal(true);
    await reader[Symbol.asyncDispose]();
    expect(existsSync(side)).to.equal(false);
  });
});
