/** A GGUF file that holds all of a model, vocabulary too, evaluates as the folder that it was made from. */
import { expect } from 'chai';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { evaluate, type EvalReport } from '../../pipelines/eval.js';
import { drain, RUN } from '../support/adapters.js';
import { ROOT, tempDir } from '../support/files.js';
import { ggufBytes, type TestKey, type TestTensor } from '../support/gguf.js';
import { tiny } from '../support/models.js';

const NAMES: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
};

function ggufName(name: string): string {
  if (name === 'model.embed_tokens.weight') return 'token_embd.weight';
  if (name === 'model.norm.weight') return 'output_norm.weight';
  const [, layer, module] = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name)!;
  return `blk.${layer}.${NAMES[module!]!}.weight`;
}

/** Rows of a head's halves one by one in turn, as llama.cpp's converter lays q and k. */
function interleaved(values: Float32Array, rows: number, heads: number): Float32Array {
  const [width, half] = [values.length / rows, rows / heads / 2];
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const [head, inHead] = [Math.floor(row / (2 * half)), row % (2 * half)];
    const to = head * 2 * half + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
    out.set(values.subarray(row * width, (row + 1) * width), to * width);
  }
  return out;
}

async function write(folder: string, file: string): Promise<void> {
  const json = (name: string): never => JSON.parse(readFileSync(join(folder, name), 'utf8')) as never;
  const c = json('config.json') as Record<string, number>;
  const { model, added_tokens: added } = json('tokenizer.json') as { model: { vocab: Record<string, number>; merges: (string | string[])[] }; added_tokens: { id: number; content: string }[] }; // prettier-ignore
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(model.vocab)) tokens[id] = token;
  for (const t of added) tokens[t.id] = t.content;
  const special = new Set(added.map((t) => t.id));
  const u32 = (key: string, value: number): TestKey => ({ key, type: 'u32', value });
  const text = (key: string, value: string): TestKey => ({ key, type: 'string', value });
  const keys: TestKey[] = [
    text('general.architecture', 'llama'),
    u32('llama.context_length', c['max_position_embeddings']!),
    u32('llama.embedding_length', c['hidden_size']!),
    u32('llama.block_count', c['num_hidden_layers']!),
    u32('llama.feed_forward_length', c['intermediate_size']!),
    u32('llama.attention.head_count', c['num_attention_heads']!),
    u32('llama.attention.head_count_kv', c['num_key_value_heads']!),
    u32('llama.rope.dimension_count', c['head_dim']!),
    u32('llama.vocab_size', c['vocab_size']!),
    { key: 'llama.attention.layer_norm_rms_epsilon', type: 'f32', value: c['rms_norm_eps']! },
    { key: 'llama.rope.freq_base', type: 'f32', value: 10000 },
    text('tokenizer.ggml.model', 'gpt2'),
    text('tokenizer.ggml.pre', 'gpt-2'),
    { key: 'tokenizer.ggml.tokens', type: 'array', of: 'string', value: tokens },
    { key: 'tokenizer.ggml.token_type', type: 'array', of: 'i32', value: tokens.map((_, id) => (special.has(id) ? 3 : 1)) },
    { key: 'tokenizer.ggml.merges', type: 'array', of: 'string', value: model.merges.map((m) => (typeof m === 'string' ? m : m.join(' '))) },
    u32('tokenizer.ggml.eos_token_id', c['eos_token_id']!),
    u32('tokenizer.ggml.bos_token_id', c['bos_token_id']!),
    { key: 'tokenizer.ggml.add_bos_token', type: 'bool', value: false },
  ];
  await using reader = await openCheckpoint(folder);
  const tensors: TestTensor[] = [];
  for (const { name, shape } of reader.infos.values()) {
    const { dtype, bytes } = await reader.read(name);
    const values = decodeF32(dtype, bytes);
    const heads = name.includes('q_proj') ? c['num_attention_heads']! : name.includes('k_proj') ? c['num_key_value_heads']! : 0;
    const data = encodeAs('F32', heads === 0 ? values : interleaved(values, shape[0]!, heads));
    tensors.push({ name: ggufName(name), dims: shape.toReversed(), type: 'F32', data });
  }
  writeFileSync(file, ggufBytes({ keys, tensors }));
}

describe('eval of a GGUF file', function () {
  this.timeout(60_000);
  it('gives the figures of the folder', async () => {
    using dir = tempDir();
    const file = join(dir.path, 'tuned.gguf');
    await write(tiny('tuned'), file);
    const work = join(dir.path, 'work');
    mkdirSync(work);
    const dataset = { spec: { file: join(ROOT, 'test/fixtures/eval/rows.jsonl') }, protocol: 'gptq' as const, seqlen: 64 };
    const report = async (checkpoint: string, reference?: string): Promise<EvalReport> =>
      (await drain(evaluate({ ...RUN, checkpoint, dataset, work, ...(reference === undefined ? {} : { reference }) }))).report;
    const r = await report(file, tiny('tuned'));
    expect(r.kld!.max).to.be.below(1e-9);
    expect(r.ppl).to.be.closeTo((await report(tiny('tuned'))).ppl!, 1e-6);
  });
});
