/** Twenty relatives of examples/tiny/base, as a folder of experiments holds them: for the store's tests and its bench. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { SafetensorsFile } from '../../formats/safetensors/file.js';
import { SafetensorsWriter } from '../../formats/safetensors/writer.js';
import { TINY } from './files.js';

type Weights = ReadonlyMap<string, TensorView>;
type Change = (values: Float32Array, t: TensorView, rng: Rng) => Float32Array;

function load(file: string): Weights {
  using f = SafetensorsFile.open(file);
  return new Map([...f.entries.keys()].map((name) => [name, f.read(name)]));
}

const changed = (w: Weights, seed: number, change: Change): Weights =>
  new Map([...w].map(([name, t]) => [name, { ...t, bytes: encodeAs('BF16', change(decodeF32('BF16', t.bytes), t, new Rng(seed).fork(name))) }]));

/** Every value rounded to a grid: `bits`-bit symmetric codes for groups of `group` consecutive values. */
const quantized =
  (bits: number, group: number): Change =>
  (v, t) => {
    if (t.shape.length < 2) return v;
    const out = v.slice();
    const top = 2 ** (bits - 1) - 1;
    for (let g = 0; g < v.length; g += group) {
      const scale = Math.max(1e-12, ...v.subarray(g, g + group).map(Math.abs)) / top;
      for (let i = g; i < g + group; i++) out[i] = Math.round(v[i]! / scale) * scale;
    }
    return out;
  };

/** A light fine-tune: every value moves by a share of itself. */
const moved =
  (by: number): Change =>
  (v, _, rng) =>
    v.map((x) => x * (1 + by * rng.normal()));

/** A step of reinforcement learning: one value in two hundred moves. */
const sparse: Change = (v, _, rng) => v.map((x) => (rng.integer(200) === 0 ? x * 1.02 : x));

/** The embedding with more rows, or fewer; the new ones small and random. */
function resized(w: Weights, rows: number, seed: number): Weights {
  const name = 'model.embed_tokens.weight';
  const t = w.get(name)!;
  const values = Float32Array.from(new Rng(seed).normals(rows * t.shape[1]!), (x) => 0.02 * x);
  values.set(decodeF32('BF16', t.bytes).subarray(0, values.length));
  return new Map([...w, [name, { ...t, shape: [rows, t.shape[1]!], bytes: encodeAs('BF16', values) }]]);
}

/** W + alpha / r * B A, as peft merges an adapter. */
function withLora(w: Weights): Weights {
  const lora = load(join(TINY, 'lora', 'adapter_model.safetensors'));
  const { r, lora_alpha: alpha } = JSON.parse(readFileSync(join(TINY, 'lora', 'adapter_config.json'), 'utf8')) as { r: number; lora_alpha: number };
  return changed(w, 0, (v, t) => {
    const key = `base_model.model.${t.name.replace(/\.weight$/, '')}`;
    const [a, b] = [lora.get(`${key}.lora_A.weight`), lora.get(`${key}.lora_B.weight`)];
    if (a === undefined || b === undefined) return v;
    const [A, B, n] = [decodeF32('F32', a.bytes), decodeF32('F32', b.bytes), t.shape[1]!];
    return v.map((x, i) => {
      let sum = 0;
      for (let k = 0; k < r; k++) sum += B[Math.floor(i / n) * r + k]! * A[k * n + (i % n)]!;
      return x + (alpha / r) * sum;
    });
  });
}

interface Variant {
  readonly weights: Weights;
  /** Whose side files it has. */
  readonly side: 'base' | 'tuned';
  readonly shardBytes?: number;
}

/** In the order in which they are added. */
export function variants(): ReadonlyMap<string, Variant> {
  const base = load(join(TINY, 'base', 'model.safetensors'));
  const tuned = load(join(TINY, 'tuned', 'model.safetensors'));
  const merged = (share: number): Weights =>
    changed(base, 0, (v, t) => {
      const other = decodeF32('BF16', tuned.get(t.name)!.bytes);
      return v.map((x, i) => (1 - share) * x + share * other[i]!);
    });
  const light = [1, 2, 3].reduce<Weights[]>((all, seed) => [...all, changed(all.at(-1) ?? base, seed, moved(1e-3))], []);
  const b = (weights: Weights): Variant => ({ weights, side: 'base' });
  const t = (weights: Weights): Variant => ({ weights, side: 'tuned' });
  return new Map<string, Variant>([
    ['base', b(base)],
    ['tuned', t(tuned)],
    ['base-copy', b(base)],
    ['tuned-copy', t(tuned)],
    ['lora-merged', b(withLora(base))],
    ['merged-25', b(merged(0.25))],
    ['merged-50', b(merged(0.5))],
    ['merged-75', t(merged(0.75))],
    ['base-int8', b(changed(base, 0, quantized(8, 256)))],
    ['tuned-int8', t(changed(tuned, 0, quantized(8, 256)))],
    ['base-int4', b(changed(base, 0, quantized(4, 32)))],
    ['light-1', b(light[0]!)],
    ['light-2', b(light[1]!)],
    ['light-3', b(light[2]!)],
    ['sparse', t(changed(tuned, 4, sparse))],
    ['top-layer', b(new Map([...base].map(([name, v]) => [name, name.includes('layers.3.') ? tuned.get(name)! : v])))],
    ['base-grown', b(resized(base, 2112, 5))],
    ['tuned-grown', t(resized(tuned, 2112, 6))],
    ['base-shrunk', b(resized(base, 2000, 7))],
    ['base-sharded', { ...b(base), shardBytes: 2_000_000 }],
  ]);
}

/** Writes the variants as folders, side files with them; answers their paths by name. */
export async function writeVariants(folder: string, only?: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const paths = new Map<string, string>();
  for (const [name, v] of variants()) {
    if (only?.includes(name) === false) continue;
    const path = join(folder, name);
    mkdirSync(path, { recursive: true });
    const views = [...v.weights.values()];
    const writer = new SafetensorsWriter(path, views, { ...(v.shardBytes === undefined ? {} : { shardBytes: v.shardBytes }) });
    for (const view of views) await writer.write(view);
    await writer.finalize();
    for (const f of ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']) cpSync(join(TINY, v.side, f), join(path, f));
    writeFileSync(join(path, 'README.md'), `# ${name}\n`);
    paths.set(name, path);
  }
  return paths;
}
