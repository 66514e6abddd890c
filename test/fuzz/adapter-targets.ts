/** Adapters: their config and weights damaged, or hostile ones made from parts; opened, linted, applied to a base while it is read, merged and resized. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DTYPES, type DType } from '../../core/dtype.js';
import { Rng } from '../../core/rng.js';
import { elementCount } from '../../core/shape.js';
import type { TensorView } from '../../core/tensor.js';
import { adapterFuse } from '../../pipelines/adapter-fuse.js';
import { adapterLint, LINT_TARGETS } from '../../pipelines/adapter-lint.js';
import { adapterResize } from '../../pipelines/adapter-resize.js';
import { openAny } from '../../workers/open.js';
import { PREFIX, random, writeBase } from '../support/adapters.js';
import { hashTree, safetensorsBytes } from '../support/files.js';
import { mutateBytes, mutateJson, mutateSafetensors } from './mutate.js';
import { attempt, broken, drain, pick, readAll, RUN, type Target } from './target.js';

interface Parts {
  tensors: TensorView[];
  config: Record<string, unknown>;
}

const BASE: readonly (readonly [name: string, ...shape: number[]])[] = [
  ['m.q.weight', 8, 6],
  ['m.k.weight', 8, 6],
  ['m.c_attn.weight', 6, 9],
  ['m.embed_tokens.weight', 11, 6],
  ['m.conv.weight', 5, 2, 3],
  ['m.b.weight', 4, 6],
  ['m.b.bias', 4],
  ['m.norm.weight', 6],
  ['m.none.weight', 0, 6],
  ['m.nothing.weight', 0, 0],
];

/** One adapter of every form that there is. */
function seeds(): Parts[] {
  const rng = new Rng(3);
  const t = (key: string, ...shape: number[]): TensorView => random(rng, `${PREFIX}m.${key}`, ...shape);
  const pair = (path: string, r: number, out: number, input: number): TensorView[] => [
    t(`${path}.lora_A.weight`, r, input),
    t(`${path}.lora_B.weight`, out, r),
  ];
  const config = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q', 'k'], modules_to_save: null, rank_pattern: {}, alpha_pattern: {} };
  const embedding = [t('embed_tokens.lora_embedding_A', 4, 11), t('embed_tokens.lora_embedding_B', 6, 4)];
  return [
    {
      tensors: [...pair('q', 4, 8, 6), ...pair('k', 2, 8, 6), t('norm.weight', 6)],
      config: { ...config, rank_pattern: { '^m\\.k$': 2 }, alpha_pattern: { k: 3 }, modules_to_save: ['norm'] },
    },
    {
      tensors: [...pair('q', 4, 8, 6), ...pair('c_attn', 4, 9, 6), t('q.lora_magnitude_vector', 8), t('c_attn.lora_magnitude_vector', 9)],
      config: { ...config, use_dora: true, use_rslora: true, fan_in_fan_out: true },
    },
    {
      tensors: [...embedding, t('conv.lora_A.weight', 4, 2, 3), t('conv.lora_B.weight', 5, 4, 1), t('lm_head.weight', 11, 6), t('embed_tokens.weight', 11, 6)],
      config: { ...config, modules_to_save: ['lm_head', 'embed_tokens'], target_modules: 'all-linear' },
    },
    { tensors: [...pair('b', 4, 4, 6), t('b.lora_B.bias', 4), t('b.base_layer.bias', 4)], config: { ...config, lora_bias: true, bias: 'all' } },
    { tensors: pair('nothing', 4, 0, 0), config: { ...config, target_modules: '.*nothing' } },
    // no bytes, and a rank that no matrix has
    { tensors: pair('nothing', 2 ** 31, 0, 0), config: { ...config, r: 2 ** 31, target_modules: '.*nothing' } },
    { tensors: pair('nothing', 2 ** 14, 0, 0), config: { ...config, r: 2 ** 14 } },
  ];
}

const SUFFIXES =
  '.lora_A.weight .lora_B.weight .lora_A.default.weight .lora_embedding_A .lora_embedding_B .lora_magnitude_vector .lora_B.bias .weight .bias .base_layer.weight .modules_to_save.default.weight .lora_C'.split(
    ' ',
  );
const PATHS = ['m.q', 'm.k', 'm.b', 'm.embed_tokens', 'lm_head', 'm.norm', 'm.nothing', 'm.none', 'other', '', '__proto__', 'a'.repeat(60)];
const SIZES = [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 4096];
/** Beside a 0 they take no bytes. */
const HUGE = [2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53 - 1];
const TYPES: readonly DType[] = ['F32', 'BF16', 'F16', 'F64', 'F8_E4M3', 'I8', 'U8', 'BOOL', 'F8_E8M0'];
/** Types of fields that the parser must tell apart, expressions that never end or are none, and depths that a recursion does not survive. */
const VALUES: readonly unknown[] = [
  0,
  1,
  2,
  4,
  8,
  -1,
  1.5,
  2 ** 31,
  2 ** 53,
  1e308,
  1e-308,
  null,
  true,
  false,
  '',
  '4',
  'q',
  '(',
  [],
  ['q'],
  [1],
  ['', '.', 'm'],
  {},
];
const PATTERNS = ['q', '^m\\.q$', '(a+)+$', '(.*.*)*x', '(', '(?P<n>q)', '[', '\\', 'm.none', 'nothing', '.*'];
const FIELDS =
  'r lora_alpha rank_pattern alpha_pattern target_modules modules_to_save bias use_dora use_rslora fan_in_fan_out lora_bias init_lora_weights peft_type layer_replication base_model_name_or_path'.split(
    ' ',
  );
const MOST_BYTES = 1 << 18;

/** The config's text; a mark stands for brackets deeper than a recursion over them survives. */
const configText = (p: Parts): string => JSON.stringify(p.config).replace(/"@nested (\d+)"/g, (_, n) => '['.repeat(Number(n)) + ']'.repeat(Number(n)));

function configValue(rng: Rng, field: string): unknown {
  if (field.endsWith('_pattern') && rng.integer(4) > 0) return { [pick(rng, PATTERNS)]: pick(rng, VALUES), [pick(rng, PATTERNS)]: 2 + 2 * rng.integer(2) };
  if (field === 'target_modules' && rng.integer(2) === 0) return pick(rng, PATTERNS);
  if (field === 'init_lora_weights') return pick(rng, [true, 'pissa_niter_4', 'gaussian', 'eva', 3]);
  if (field === 'bias') return pick(rng, ['all', 'lora_only', 'none', 'some', 1]);
  return rng.integer(20) === 0 ? `@nested ${pick(rng, [100, 200, 50_000])}` : pick(rng, VALUES);
}

/** The tensor with another shape, its bytes to it. */
function reshaped(rng: Rng, t: TensorView, dtype: DType, shape: number[]): TensorView {
  const bits = elementCount(shape) * DTYPES[dtype].bits;
  if (!Number.isSafeInteger(bits) || bits % 8 !== 0 || bits / 8 > MOST_BYTES) return t;
  const bytes = new Uint8Array(bits / 8);
  for (let i = 0; i < bytes.length; i++) bytes[i] = t.bytes[i % Math.max(1, t.bytes.length)] ?? 0;
  // infinities and NaN
  if (bytes.length >= 4 && rng.integer(4) === 0) bytes.fill(0xff, 0, 4);
  return { ...t, dtype, shape, bytes };
}

function editTensor(rng: Rng, t: TensorView): TensorView {
  const shape = [...t.shape];
  const at = rng.integer(Math.max(1, shape.length));
  switch (rng.integer(7)) {
    case 0:
      return { ...t, name: PREFIX + pick(rng, PATHS) + pick(rng, SUFFIXES) };
    case 1:
      return { ...t, name: t.name.replace(/(\.lora_.*|\.weight|\.bias)$/, pick(rng, SUFFIXES)) };
    case 2:
      return reshaped(rng, t, pick(rng, TYPES), shape);
    case 3:
      return reshaped(rng, t, t.dtype, rng.integer(2) === 0 ? [...shape, pick(rng, SIZES)] : shape.slice(1));
    case 4: {
      const huge = shape.map((d) => (rng.integer(2) === 0 ? pick(rng, HUGE) : d));
      huge[at] = 0;
      return reshaped(rng, t, t.dtype, huge);
    }
    default:
      shape[at] = pick(rng, SIZES);
      return reshaped(rng, t, t.dtype, shape);
  }
}

/** An adapter that is well-formed as a file, whatever it says. */
function hostile(rng: Rng, from: Parts): Parts {
  let tensors = [...from.tensors];
  const config = { ...from.config };
  for (let n = 1 + rng.integer(4); n > 0; n--) {
    const i = rng.integer(Math.max(1, tensors.length));
    const kind = rng.integer(8);
    if (kind < 4 && tensors.length > 0) tensors[i] = editTensor(rng, tensors[i]!);
    else if (kind === 4) tensors.splice(i, 1);
    else if (kind === 5 && tensors.length > 0) tensors.push(editTensor(rng, tensors[i]!));
    else {
      const field = pick(rng, FIELDS);
      config[field] = configValue(rng, field);
    }
  }
  tensors = [...new Map(tensors.map((t) => [t.name, t])).values()];
  return { tensors, config };
}

const weights = (p: Parts): Uint8Array => safetensorsBytes(p.tensors, { format: 'pt' });

export function adapterTargets(work: string): Target[] {
  const root = join(work, 'adapters');
  mkdirSync(root, { recursive: true });
  const rng = new Rng(5);
  const base = writeBase(
    join(root, 'base'),
    BASE.map(([name, ...shape]) => random(rng, name, ...shape)),
    { tie_word_embeddings: true },
  );
  const baseBytes = readFileSync(join(base, 'model.safetensors')).length;
  const folder = join(root, 'adapter');
  mkdirSync(folder);
  const all = seeds();
  const put = (config: Uint8Array | string, file: Uint8Array): number => {
    writeFileSync(join(folder, 'adapter_config.json'), config);
    writeFileSync(join(folder, 'adapter_model.safetensors'), file);
    return baseBytes + config.length + file.length;
  };
  const use = async (r: Rng): Promise<void> => {
    await drain(adapterLint({ ...RUN, adapter: folder, target: pick(r, LINT_TARGETS), ...(r.integer(2) === 0 ? { base } : {}), force: false, dryRun: true }));
    await readAll(() => openAny(`${base}+${folder}`));
  };
  const damaged: Target = {
    name: 'adapter, damaged',
    weight: 12,
    run: (r) => {
      const p = pick(r, all);
      const [config, file] = [configText(p), weights(p)];
      const inConfig = r.integer(2) === 0;
      const text = !inConfig ? config : r.integer(4) === 0 ? mutateBytes(r, Buffer.from(config)) : mutateJson(r, config);
      return attempt(put(text, inConfig ? file : mutateSafetensors(r, file)), () => use(r));
    },
  };
  const made: Target = {
    name: 'BASE+ADAPTER, hostile',
    weight: 16,
    run: (r) => {
      const p = hostile(r, pick(r, all));
      return attempt(put(configText(p), weights(p)), () => use(r));
    },
  };
  return [damaged, made, commandTarget(root, base, folder, put, all)];
}

/** The commands that write, with a thread pool of their own: slow, so rare. */
function commandTarget(root: string, base: string, adapter: string, put: (config: string, file: Uint8Array) => number, all: readonly Parts[]): Target {
  const work = join(root, 'out');
  mkdirSync(work);
  const out = join(work, 'result');
  return {
    name: 'fuse, resize and lint, hostile',
    weight: 1,
    run: (r) => {
      rmSync(out, { recursive: true, force: true });
      const p = hostile(r, pick(r, all));
      const size = put(configText(p), weights(p));
      const o = { ...RUN, adapter, out, force: false, dryRun: false };
      return attempt(size, async () => {
        try {
          const which = r.integer(3);
          if (which === 0) await drain(adapterFuse({ ...o, base }));
          else if (which === 1)
            await drain(adapterResize({ ...o, rule: { maxRank: pick(r, [1, 3, Infinity]), ...(r.integer(2) === 0 ? { energy: 0.5 } : {}) } }));
          else await drain(adapterLint({ ...o, target: pick(r, LINT_TARGETS), maxRank: pick(r, [1, 3, 4]) }));
        } catch (error) {
          if (readdirSync(work).length > 0) broken(`a failed command left ${readdirSync(work).join(', ')}`);
          throw error;
        }
        if (readdirSync(work).includes('result')) hashTree(out);
      });
    },
  };
}
