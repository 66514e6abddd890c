/** GGUF files: headers with any value changed, cut or damaged files; their tensors, and the configs and tokenizers that are made of them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { openAny } from '../../workers/open.js';
import { GGUF_GOLDEN, ggufBytes, type TestKey } from '../support/gguf.js';
import { mutateGguf } from './mutate.js';
import { attempt, pick, readAll, type Target } from './target.js';

/** Those of the first of two parts. */
const SPLIT_KEYS: readonly TestKey[] = [
  { key: 'split.no', type: 'u16', value: 0 },
  { key: 'split.count', type: 'u16', value: 2 },
];

async function sideFiles(open: () => Promise<CheckpointReader>): Promise<void> {
  await using reader = await open();
  await reader.sideFolder!();
}

export function ggufTargets(work: string): Target[] {
  const seeds: Uint8Array[] = ['blocks', 'llama', 'gemma2', 'gpt2', 'tokens-bpe', 'tokens-spm', 'tokens-wpm'].map((n) =>
    readFileSync(join(GGUF_GOLDEN, `${n}.gguf`)),
  );
  seeds.push(ggufBytes({ keys: SPLIT_KEYS, tensors: [{ name: 'a', dims: [32, 3], type: 'Q8_0' }] }));
  const target = (name: string, weight: number, use: (open: () => Promise<CheckpointReader>) => Promise<void>): Target => ({
    name,
    weight,
    run: (rng) => {
      const file = join(work, rng.integer(8) === 0 ? 'f-00001-of-00002.gguf' : 'f.gguf');
      const bytes = mutateGguf(rng, pick(rng, seeds));
      writeFileSync(file, bytes);
      return attempt(bytes.length, () => use(() => openAny(file)));
    },
  });
  return [target('gguf', 30, readAll), target('gguf, side files', 10, sideFiles)];
}
