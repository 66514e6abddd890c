/**
 * What llama.cpp makes of the texts of test/golden/gguf/tokens.json, under every pre-tokenizer id that pith knows; goes into
 * test/golden/gguf/llama-cpp.json. Run by hand, after scripts/golden/gguf.py and `npm run build`, where node-llama-cpp 3.22 is installed:
 *   PITH_LLAMA_CPP=/path/to/node_modules/node-llama-cpp node scripts/golden/gguf-tokens.mjs
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { PRE_TOKENIZER_IDS } from '../../dist/models/gguf/pre-tokenizers.js';

const OUT = fileURLToPath(new URL('../../test/golden/gguf/', import.meta.url));
const library = process.env['PITH_LLAMA_CPP'];
const { getLlama, getModuleVersion } = await import(pathToFileURL(join(library, 'dist', 'index.js')).href);

/** The same file with another `tokenizer.ggml.pre`; it holds no tensors, so that nothing has to move. */
function withPre(file, id) {
  const key = 'tokenizer.ggml.pre';
  const at = file.indexOf(key) + key.length + 4;
  const old = Number(file.readBigUInt64LE(at));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(id)));
  return Buffer.concat([file.subarray(0, at), length, Buffer.from(id), file.subarray(at + 8 + old)]);
}

const { texts } = JSON.parse(readFileSync(join(OUT, 'tokens.json'), 'utf8'));
const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'disabled' });
const folder = mkdtempSync(join(tmpdir(), 'pith-golden-'));

async function idsOf(file, special) {
  const path = join(folder, 'm.gguf');
  writeFileSync(path, file);
  const model = await llama.loadModel({ modelPath: path, vocabOnly: true });
  const ids = texts.map((t) => Array.from(model.tokenize(t, special)));
  await model.dispose();
  return ids;
}

const bpe = readFileSync(join(OUT, 'tokens-bpe.gguf'));
const pre = {};
const unknown = [];
for (const id of PRE_TOKENIZER_IDS) {
  try {
    pre[id] = await idsOf(withPre(bpe, id), true);
  } catch {
    unknown.push(id);
  }
}
const spm = await idsOf(readFileSync(join(OUT, 'tokens-spm.gguf')), true);
const wpm = await idsOf(readFileSync(join(OUT, 'tokens-wpm.gguf')), true);
rmSync(folder, { recursive: true });
const versions = { 'node-llama-cpp': await getModuleVersion(), 'llama.cpp': llama.llamaCppRelease.release };
const document = { script: 'scripts/golden/gguf-tokens.mjs', versions, tolerance: 0, unknown, pre, spm, wpm };
writeFileSync(join(OUT, 'llama-cpp.json'), `${JSON.stringify(document)}\n`);
await llama.dispose();
