/**
 * Peak resident memory of evaluating an 8 B Llama at --max-memory, and its time:
 *   node dist/bench/memory-eval.js [--max-memory 2GB] [--seqlen 512] [--layers 32] [--threads 2] [--dir DIR]
 * A sharded bf16 checkpoint of zeros (sparse files: it takes no disk), 4096 wide, 14336 inside, 128256 tokens, with a tokenizer of 2048 tokens; one
 * sequence. All logits are 0, so the perplexity must be the vocabulary's size: that is checked first.
 * Limit: max-memory + 200 MB + the largest tensor in f32. Everything is deleted at the end.
 */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { byteLength, elementCount } from '../core/shape.js';
import { parseSize } from '../cli/sizes.js';
import { machine, MB, option, pith, ROOT, seconds, table, TINY, verdicts } from './support.js';
import { bf16, ends, HIDDEN, INNER, KEYS, layer, TOKENS, writeSparse } from './synthetic.js';

const maxMemory = option('max-memory', '2GB');
const seqlen = option('seqlen', '512');
const layers = Number(option('layers', '32'));
const threads = option('threads', '2');
const HEAD_DIM = 128;
const dir = mkdtempSync(join(option('dir', tmpdir()), 'pith-bench-memory-eval-'));

try {
  const model = join(dir, 'model');
  const tensors = [...ends(), bf16('model.norm.weight', [HIDDEN]), ...Array.from({ length: layers }, (_, i) => layer(i)).flat()];
  const { bytes } = writeSparse(model, tensors);
  const config = {
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    hidden_size: HIDDEN,
    intermediate_size: INNER,
    num_hidden_layers: layers,
    num_attention_heads: HIDDEN / HEAD_DIM,
    num_key_value_heads: KEYS / HEAD_DIM,
    vocab_size: TOKENS,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
  };
  writeFileSync(join(model, 'config.json'), JSON.stringify(config));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(join(TINY, 'base', name), join(model, name));
  const parameters = tensors.reduce((sum, t) => sum + elementCount(t.shape), 0);
  const block = layer(0).reduce((sum, t) => sum + byteLength(t.dtype, t.shape), 0);
  console.log(`${machine()}; ${(parameters / 1e9).toFixed(2)} G parameters, ${(bytes / 1e9).toFixed(1)} GB, ${(block / MB).toFixed(0)} MB a block\n`);
  const data = ['--dataset', join(ROOT, 'README.md'), '--seqlen', seqlen, '--max-tokens', seqlen];
  const r = await pith(['eval', model, ...data, '--max-memory', maxMemory, '-j', threads, '--json', '--quiet']);
  const { ppl, tokens } = JSON.parse(r.stdout) as { ppl: number; tokens: number };
  if (Math.abs(ppl / TOKENS - 1) > 1e-5) throw new Error(`a model of zeros has perplexity ${ppl} instead of ${TOKENS}`);
  const limit = parseSize(maxMemory) + 200 * MB + byteLength('F32', [TOKENS, HIDDEN]);
  // all but the embedding's rows are multiplied
  const flops = 2 * (parameters - TOKENS * HIDDEN) * tokens;
  console.log(
    table(
      ['', 's', 'GFLOP/s, reading included', 'peak RSS, MB', 'limit, MB'],
      [[`eval, ${tokens + 1} tokens`, seconds(r.ms), (flops / r.ms / 1e6).toFixed(0), (r.peakBytes / MB).toFixed(0), (limit / MB).toFixed(0)]],
    ),
  );
  console.log('');
  verdicts([
    [`peak <= ${(limit / MB).toFixed(0)} MB (${maxMemory} + 200 MB + the embedding in f32)`, r.peakBytes <= limit],
    [`peak <= ${maxMemory} + 200 MB, without that tensor`, r.peakBytes <= parseSize(maxMemory) + 200 * MB],
  ]);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
