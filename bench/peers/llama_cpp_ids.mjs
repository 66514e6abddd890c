/**
 * Ids of a GGUF's synthesized tokenizer.json against llama.cpp's own, line by line:
 *   PITH_LLAMA_CPP=/path/to/node_modules/node-llama-cpp node bench/peers/llama_cpp_ids.mjs FILE.gguf TEXT... [--also FOLDER]
 * FOLDER: another tokenizer of the same model, transformers' conversion say. Needs node-llama-cpp 3.22 and `npm run build`.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { loadTokenizer, tokenizerOf } from '../../dist/workers/load-tokenizer.js';
import { openAny } from '../../dist/workers/open.js';

const args = process.argv.slice(2);
const also = args.includes('--also') ? args.splice(args.indexOf('--also'), 2)[1] : undefined;
const [file, ...texts] = args;
const reader = await openAny(file);
const tokenizers = [['pith', await loadTokenizer(reader)], ...(also === undefined ? [] : [[also, tokenizerOf(also)]])];
await reader[Symbol.asyncDispose]();
const { getLlama } = await import(pathToFileURL(join(process.env['PITH_LLAMA_CPP'], 'dist', 'index.js')).href);
const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'disabled' });
const model = await llama.loadModel({ modelPath: file, vocabOnly: true });
for (const text of texts) {
  const lines = readFileSync(text, 'utf8').split('\n');
  const differing = tokenizers.map(() => 0);
  for (const line of lines) {
    const want = model.tokenize(line, false).join();
    tokenizers.forEach(([, t], i) => {
      if (t.encode(line, { addSpecial: false, parseSpecial: false }).join() !== want) differing[i]++;
    });
  }
  console.log(`${text}: ${lines.length} lines; ids that are not llama.cpp's: ${tokenizers.map(([name], i) => `${name} ${differing[i]}`).join(', ')}`);
}
await llama.dispose();
