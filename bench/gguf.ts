/**
 * GGUF blocks to f32: node dist/bench/gguf.js [FILE.gguf [FOLDER]]
 * Every type on 4 Mi elements, and the whole of FILE as a checkpoint; checked first: the types against the golden of Python's gguf, FILE against
 * FOLDER, the same model in bf16 as transformers dequantized it. With PITH_PEERS, gguf itself beside it.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { encodeAs } from '../core/float.js';
import { byteLength } from '../core/shape.js';
import { GgufFile } from '../formats/gguf/file.js';
import { SafetensorsFile } from '../formats/safetensors/file.js';
import { decodeBlocks } from '../kernels/quant/ggml.js';
import { openAny } from '../workers/open.js';
import { machine, peer, peerPython, ROOT, table, times, verdicts } from './support.js';

const ELEMENTS = 1 << 22;
const GOLDEN = join(ROOT, 'test', 'golden', 'gguf');
const [file, folder] = process.argv.slice(2);

interface Peer {
  readonly types: Readonly<Record<string, { readonly sha256: string; readonly seconds: number }>>;
  readonly fileSeconds: number | null;
}

function best(repeats: number, call: () => void): number {
  let least = Infinity;
  for (let i = 0; i < repeats; i++) {
    const started = performance.now();
    call();
    least = Math.min(least, performance.now() - started);
  }
  return least / 1000;
}

const peerResult = peerPython() === undefined ? undefined : ((await peer('gguf_decode.py', [join(GOLDEN, 'blocks.gguf'), file ?? 'none'])) as unknown as Peer);
const checks: (readonly [string, boolean])[] = [];
const rows: string[][] = [];
const out = new Float32Array(ELEMENTS);
{
  using stored = GgufFile.open(join(GOLDEN, 'blocks.gguf'));
  using wanted = SafetensorsFile.open(join(GOLDEN, 'blocks.f32.safetensors'));
  const wrong: string[] = [];
  for (const entry of stored.tensors.values()) {
    if (entry.type.dtype !== undefined) continue;
    // the first two rows: numbers without NaN
    const raw = new Uint8Array(entry.bytes / 2);
    stored.readInto(entry, 0, raw);
    const want = wanted.read(entry.name, [0, 2]).bytes;
    const many = Buffer.alloc((ELEMENTS / (want.length / 4)) * raw.length, raw);
    decodeBlocks(entry.type.name, many, out);
    const bytes = new Uint8Array(out.buffer);
    const same = peerResult === undefined || createHash('sha256').update(bytes).digest('hex') === peerResult.types[entry.name]!.sha256;
    if (!same || Buffer.compare(bytes.subarray(0, want.length), want) !== 0) wrong.push(entry.name);
    const seconds = best(10, () => decodeBlocks(entry.type.name, many, out));
    const peerSeconds = peerResult?.types[entry.name]!.seconds;
    const rate = (s: number): string => ((ELEMENTS * 4) / s / 1e9).toFixed(2);
    rows.push([entry.name, rate(seconds), ...(peerSeconds === undefined ? [] : [rate(peerSeconds), times(peerSeconds / seconds)])]);
  }
  checks.push([`every type bit for bit as gguf${wrong.length === 0 ? '' : `: not ${wrong.join(', ')}`}`, wrong.length === 0]);
}
console.log(machine());
console.log(table(['type', 'GB/s of f32', ...(peerResult === undefined ? [] : ['gguf', 'ratio'])], rows));

if (file !== undefined) {
  const opening = performance.now();
  await using reader = await openAny(file);
  const openMs = performance.now() - opening;
  const infos = [...reader.infos.values()];
  const largest = Math.max(...infos.map((t) => byteLength(t.dtype, t.shape)));
  const buffer = new Uint8Array(largest);
  let [seconds, bytes] = [Infinity, 0];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    bytes = 0;
    for (const t of infos) {
      const n = byteLength(t.dtype, t.shape);
      await reader.readInto(t.name, 0, buffer.subarray(0, n));
      bytes += n;
    }
    seconds = Math.min(seconds, (performance.now() - started) / 1000);
  }
  const peerSeconds = peerResult?.fileSeconds;
  const compared = typeof peerSeconds === 'number' ? `; gguf ${peerSeconds.toFixed(2)} s, ${times(peerSeconds / seconds)} x` : '';
  console.log(
    `\n${infos.length} tensors of ${reader.stored?.facts['fileType'] ?? '?'}: opened in ${openMs.toFixed(0)} ms, ${(bytes / 1e6).toFixed(0)} MB of f32 in ${seconds.toFixed(3)} s, ${(bytes / seconds / 1e9).toFixed(2)} GB/s${compared}`,
  );
  if (folder !== undefined && existsSync(folder)) {
    await using model = await openAny(folder);
    const differing: string[] = [];
    for (const name of new Set([...model.infos.keys(), ...reader.infos.keys()])) {
      const [a, b] = [reader.infos.has(name), model.infos.has(name)];
      const same =
        a &&
        b &&
        Buffer.compare(encodeAs('BF16', new Float32Array((await reader.read(name)).bytes.buffer as ArrayBuffer)), (await model.read(name)).bytes) === 0;
      if (!same) differing.push(name);
    }
    checks.push([
      `${file}, rounded to bf16, is ${folder}${differing.length === 0 ? '' : `: not ${differing.length} tensors, the first ${differing[0]!}`}`,
      differing.length === 0,
    ]);
  }
}
verdicts(checks);
