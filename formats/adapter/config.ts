/** `adapter_config.json` of a PEFT LoRA adapter: read strictly where a wrong value would change the weights, written as peft 0.21 writes it. */
import { PithError } from '../../core/errors.js';
import { parseJson } from '../json.js';
import { matchesWithin } from './pattern.js';

export interface LoraConfig {
  readonly r: number;
  readonly alpha: number;
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  readonly useRslora: boolean;
  readonly useDora: boolean;
  /** Layers store their weight as (in, out): GPT-2's Conv1D. */
  readonly fanInFanOut: boolean;
  readonly loraBias: boolean;
  readonly bias: 'none' | 'all' | 'lora_only';
  readonly initLoraWeights: unknown;
  /** A list of names, a regular expression, or null. */
  readonly targetModules: readonly string[] | string | null;
  readonly modulesToSave: readonly string[];
  readonly baseModel: string | undefined;
  /** The whole document as it was read. */
  readonly raw: Readonly<Record<string, unknown>>;
}

/** Features of peft whose weights are more than B A beside a base tensor; a value other than these "off" ones is refused. */
const UNSUPPORTED = [
  'layer_replication',
  'target_parameters',
  'trainable_token_indices',
  'alora_invocation_tokens',
  'arrow_config',
  'use_qalora',
  'use_bdlora',
  'megatron_config',
  'velora_config',
  'monteclora_config',
  'kasa_config',
] as const;

/** Characters of a wrong value in a message. */
const MOST_SHOWN = 200;

/** Starts that move weight out of the base: without the changed base the adapter alone means something else. */
const MOVES_BASE = /^(pissa|olora|corda|loftq|lora_ga)/;

/** NOT_AN_ADAPTER, ADAPTER_CONFIG or ADAPTER_UNSUPPORTED (65). */
export function parseConfig(text: string, file: string): LoraConfig {
  const raw = parseObject(text, file);
  if (raw['peft_type'] !== 'LORA') {
    const what = raw['peft_type'] === undefined ? 'it has no "peft_type"' : `peft_type ${JSON.stringify(raw['peft_type'])} is not LORA`;
    throw new PithError('NOT_AN_ADAPTER', { file, message: what });
  }
  for (const key of UNSUPPORTED) {
    if (!isOff(raw[key])) throw new PithError('ADAPTER_UNSUPPORTED', { file, message: `"${key}" is not supported` });
  }
  const field = fields(raw, file);
  const bias = raw['bias'] ?? 'none';
  if (bias !== 'none' && bias !== 'all' && bias !== 'lora_only') throw field.wrong('bias', '"none", "all" or "lora_only"');
  return {
    r: field.rank('r', raw['r'] ?? 8),
    alpha: field.positive('lora_alpha', raw['lora_alpha'] ?? 8),
    rankPattern: field.pattern('rank_pattern', field.rank),
    alphaPattern: field.pattern('alpha_pattern', field.positive),
    useRslora: field.flag('use_rslora'),
    useDora: field.flag('use_dora'),
    fanInFanOut: field.flag('fan_in_fan_out'),
    loraBias: field.flag('lora_bias'),
    bias,
    initLoraWeights: raw['init_lora_weights'] ?? true,
    targetModules: field.names('target_modules', true),
    modulesToSave: (field.names('modules_to_save', false) ?? []) as readonly string[],
    baseModel: typeof raw['base_model_name_or_path'] === 'string' ? raw['base_model_name_or_path'] : undefined,
    raw,
  };
}

/** ADAPTER_UNSUPPORTED when the factors are only right beside a base that the adapter's start has changed. */
export function refuseMovedBase(c: LoraConfig, file: string): void {
  if (typeof c.initLoraWeights !== 'string' || !MOVES_BASE.test(c.initLoraWeights)) return;
  const message = `init_lora_weights "${c.initLoraWeights}" moves weight out of the base; save it with path_initial_model_for_weight_conversion first`;
  throw new PithError('ADAPTER_UNSUPPORTED', { file, message });
}

function parseObject(text: string, file: string): Record<string, unknown> {
  const value = parseJson(text, (message) => new PithError('NOT_AN_ADAPTER', { file, message }));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new PithError('NOT_AN_ADAPTER', { file, message: 'expected an object' });
  return value as Record<string, unknown>;
}

const isOff = (v: unknown): boolean =>
  v === undefined || v === null || v === false || (typeof v === 'object' && Object.keys(v).length === 0) || (Array.isArray(v) && v.length === 0);

function fields(raw: Readonly<Record<string, unknown>>, file: string) {
  const fail = (field: string, expected: string, got: unknown): PithError =>
    new PithError('ADAPTER_CONFIG', { file, field, expected, got: got === undefined ? 'nothing' : JSON.stringify(got).slice(0, MOST_SHOWN) });
  const rank = (field: string, v: unknown): number => {
    if (typeof v !== 'number' || !Number.isSafeInteger(v) || v < 1) throw fail(field, 'a rank of at least 1', v);
    return v;
  };
  const positive = (field: string, v: unknown): number => {
    if (typeof v !== 'number' || !Number.isFinite(v) || v <= 0) throw fail(field, 'a number above 0', v);
    return v;
  };
  return {
    wrong: (field: string, expected: string): PithError => fail(field, expected, raw[field]),
    rank,
    positive,
    flag(field: string): boolean {
      const v = raw[field] ?? false;
      if (typeof v !== 'boolean') throw fail(field, 'true or false', v);
      return v;
    },
    pattern(field: string, read: (field: string, v: unknown) => number): Record<string, number> {
      const v = raw[field] ?? {};
      if (typeof v !== 'object' || Array.isArray(v)) throw fail(field, 'an object of numbers', v);
      const out = Object.create(null) as Record<string, number>;
      for (const [key, n] of Object.entries(v)) out[key] = read(`${field}.${key}`, n);
      return out;
    },
    names(field: string, orText: boolean): readonly string[] | string | null {
      const v = raw[field] ?? null;
      if (v === null || (orText && typeof v === 'string')) return v;
      if (!Array.isArray(v) || v.some((n) => typeof n !== 'string')) throw fail(field, 'a list of names', v);
      return v as string[];
    },
  };
}

/** The value of the first key that matches a module path as peft matches it: `(.*\.)?(key)$`. */
export function patternValue(pattern: Readonly<Record<string, number>>, path: string, file: string): number | undefined {
  for (const [key, value] of Object.entries(pattern)) if (matches(key, path, file)) return value;
  return undefined;
}

function matches(key: string, path: string, file: string): boolean {
  // a plain name, with or without escaped dots and anchor: no need for an expression
  const plain = key.replace(/^\^/, '').replaceAll('\\.', '.');
  if (/^[\w.-]+$/.test(plain)) return path === plain || (!key.startsWith('^') && path.endsWith(`.${plain}`));
  const found = matchesWithin(`^(.*\\.)?(${key})$`, path);
  if (found === undefined) {
    throw new PithError('ADAPTER_CONFIG', {
      file,
      field: 'rank_pattern or alpha_pattern',
      expected: 'a regular expression that ends',
      got: key.slice(0, MOST_SHOWN),
    });
  }
  return found;
}

/** s of W' = W + s B A: alpha / r, with rank stabilization alpha / sqrt(r). */
export function scalingOf(c: LoraConfig, path: string, rank: number, file: string): number {
  const alpha = patternValue(c.alphaPattern, path, file) ?? c.alpha;
  return c.useRslora ? alpha / Math.sqrt(rank) : alpha / rank;
}

/** A module path as a key of rank_pattern that matches it alone. */
export const patternKey = (path: string): string => `^${path.replaceAll('.', '\\.')}`;

/** What decides an adapter that pith writes; the scale of every module is `alpha / rank`. */
export interface NewConfig {
  readonly ranks: ReadonlyMap<string, number>;
  /** alpha / rank of every module; 1 where it is left out. */
  readonly scaling?: number;
  readonly targetModules: readonly string[];
  readonly modulesToSave: readonly string[];
  readonly baseModel: string;
  readonly taskType: string | null;
  readonly useDora?: boolean;
  readonly fanInFanOut?: boolean;
  readonly bias?: 'none' | 'all';
  readonly more?: Readonly<Record<string, unknown>>;
}

/** peft's own form: indent 2, keys sorted. Module ranks other than the largest go to rank_pattern, their alphas likewise. */
export function configJson(c: NewConfig): string {
  const r = Math.max(1, ...c.ranks.values());
  const scaling = c.scaling ?? 1;
  const others = [...c.ranks].filter(([, rank]) => rank !== r);
  const document: Record<string, unknown> = {
    ...c.more,
    alpha_pattern: Object.fromEntries(others.map(([path, rank]) => [patternKey(path), rank * scaling])),
    auto_mapping: null,
    base_model_name_or_path: c.baseModel,
    bias: c.bias ?? 'none',
    fan_in_fan_out: c.fanInFanOut ?? false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: r * scaling,
    lora_bias: false,
    lora_dropout: 0,
    modules_to_save: c.modulesToSave.length === 0 ? null : [...c.modulesToSave],
    peft_type: 'LORA',
    peft_version: '0.21.2',
    r,
    rank_pattern: Object.fromEntries(others.map(([path, rank]) => [patternKey(path), rank])),
    revision: null,
    target_modules: [...c.targetModules],
    task_type: c.taskType,
    use_dora: c.useDora ?? false,
    use_rslora: false,
  };
  const sorted = Object.fromEntries(Object.entries(document).sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${JSON.stringify(sorted, null, 2)}\n`;
}
