/** Rotary parameters of a config in either spelling, for each of its layer types. */
import * as z from 'zod';
import { ROPE_TYPES, type RopeParameters } from '../../kernels/nn/rope.js';
import { configError, count, dictionary, flag, number, positive, readConfig, size, type ConfigSource } from './read.js';

export type LayerKind = 'full' | 'sliding';

/** Keys outside of the dicts. `rope_parameters` is transformers 5's name, `rope_scaling` with `rope_theta` the older one. */
export const ropeKeys = {
  rope_parameters: dictionary.nullish(),
  rope_scaling: dictionary.nullish(),
  rope_theta: positive.nullish(),
  rope_local_base_freq: positive.nullish(),
  partial_rotary_factor: positive.nullish(),
  original_max_position_embeddings: size.nullish(),
};
type RopeKeys = z.infer<z.ZodObject<typeof ropeKeys>>;

export interface RopeContext {
  readonly headDim: number;
  readonly maxPositions: number;
  /** Where the file names none. */
  readonly theta: Readonly<Record<LayerKind, number>>;
  /** `su` and `yarn` are early names of longrope. */
  readonly phi3: boolean;
  /** Sliding layers have a rotation of their own that scalings leave alone, unless the file gives one by layer type. */
  readonly localRope: boolean;
  /** Where `original_max_position_embeddings` is absent. */
  readonly originalMaxPositions: number;
}

const factors = z.array(positive, 'a list of positive numbers');
const ropeSchema = z.looseObject({
  rope_type: z.string('a string').nullish(),
  type: z.string('a string').nullish(),
  rope_theta: positive.nullish(),
  partial_rotary_factor: positive.nullish(),
  factor: positive.nullish(),
  original_max_position_embeddings: size.nullish(),
  attention_factor: number.nonnegative('a number from 0 on').nullish(),
  beta_fast: number.nonnegative('a number from 0 on').nullish(),
  beta_slow: number.nonnegative('a number from 0 on').nullish(),
  mscale: number.nullish(),
  mscale_all_dim: number.nullish(),
  truncate: flag.nullish(),
  low_freq_factor: positive.nullish(),
  high_freq_factor: positive.nullish(),
  short_factor: factors.nullish(),
  long_factor: factors.nullish(),
  max_position_embeddings: count.nullish(),
});
type RopeDict = z.infer<typeof ropeSchema>;

/** The rotation of every layer type. */
export function ropeParameters(source: ConfigSource, keys: RopeKeys, context: RopeContext): Readonly<Record<LayerKind, RopeParameters>> {
  const nested = keys.rope_parameters !== null && keys.rope_parameters !== undefined && Object.keys(keys.rope_parameters).some((k) => k.endsWith('_attention'));
  if (nested) {
    const of = (kind: LayerKind): RopeParameters => {
      const dict = keys.rope_parameters![`${kind}_attention`] ?? {};
      return resolve(
        source,
        `rope_parameters.${kind}_attention`,
        dict,
        kind === 'sliding' ? (keys.rope_local_base_freq ?? undefined) : undefined,
        kind,
        keys,
        context,
      );
    };
    return { full: of('full'), sliding: of('sliding') };
  }
  const { key, dict } = oneDict(source, keys);
  const full = resolve(source, key, dict, keys.rope_theta ?? undefined, 'full', keys, context);
  if (!context.localRope) return { full, sliding: full };
  return { full, sliding: resolve(source, 'rope_parameters', {}, keys.rope_local_base_freq ?? undefined, 'sliding', keys, context) };
}

/** The dict under its new or old name; where both are there they must not contradict. */
function oneDict(source: ConfigSource, keys: RopeKeys): { key: string; dict: Readonly<Record<string, unknown>> } {
  const [now, old] = [keys.rope_parameters ?? {}, keys.rope_scaling ?? {}];
  const both = (name: string, a: unknown, b: unknown): void => {
    if (a === undefined || a === null || b === undefined || b === null || JSON.stringify(a) === JSON.stringify(b)) return;
    throw configError(source, `rope_parameters.${name}`, `${JSON.stringify(b)} as under its older name`, a);
  };
  both('rope_type', now['rope_type'] ?? now['type'], old['rope_type'] ?? old['type']);
  for (const name of Object.keys(old)) if (name !== 'type' && name !== 'rope_type') both(name, now[name], old[name]);
  both('rope_theta', now['rope_theta'], keys.rope_theta);
  return { key: Object.keys(now).length === 0 ? 'rope_scaling' : 'rope_parameters', dict: { ...old, ...now } };
}

function resolve(
  source: ConfigSource,
  key: string,
  raw: unknown,
  outerTheta: number | undefined,
  kind: LayerKind,
  keys: RopeKeys,
  context: RopeContext,
): RopeParameters {
  const inner: ConfigSource = { file: source.file, at: `${source.at}${key}.`, document: raw as Record<string, unknown> };
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw configError(source, key, 'an object', raw);
  const dict = readConfig(inner, ropeSchema);
  const base = {
    theta: dict.rope_theta ?? outerTheta ?? context.theta[kind],
    rotaryDim: rotaryDim(source, inner, dict.partial_rotary_factor ?? keys.partial_rotary_factor ?? 1, context),
  };
  return { ...base, ...scaling(inner, dict, base, keys, context) };
}

/** int(headDim * factor), even; a factor below 1 only where transformers' class has one. */
function rotaryDim(source: ConfigSource, inner: ConfigSource, factor: number, { headDim, phi3 }: RopeContext): number {
  const dim = Math.trunc(headDim * factor);
  if (!phi3 && factor !== 1) throw configError(inner, 'partial_rotary_factor', '1 for this model_type (transformers ignores it there)', factor);
  if (factor === 1 && dim % 2 !== 0) throw configError(source, 'head_dim', 'an even number of channels, which turn in pairs', headDim);
  if (factor > 1 || dim < 2 || dim % 2 !== 0) {
    throw configError(inner, 'partial_rotary_factor', `a share of head_dim ${headDim} that leaves an even number of channels`, factor);
  }
  return dim;
}

type Scaling = RopeParameters extends infer P ? (P extends RopeParameters ? Omit<P, 'theta' | 'rotaryDim'> : never) : never;

/** The part of the parameters that depends on the type. */
function scaling(inner: ConfigSource, dict: RopeDict, base: { theta: number; rotaryDim: number }, keys: RopeKeys, context: RopeContext): Scaling {
  const named = dict.rope_type ?? dict.type ?? 'default';
  const type = context.phi3 && (named === 'su' || named === 'yarn') ? 'longrope' : named;
  const original = originalLength(inner, dict, keys, context);
  const given = (key: 'factor' | 'low_freq_factor' | 'high_freq_factor'): number => {
    const value = dict[key];
    if (value === undefined || value === null) throw configError(inner, key, `a positive number for rope_type "${type}"`);
    return value;
  };
  const attentionFactor = dict.attention_factor ?? undefined;
  const chosen = attentionFactor === undefined ? {} : { attentionFactor };
  switch (type) {
    case 'default':
      return { type };
    case 'linear':
      return { type, factor: given('factor') };
    case 'dynamic':
      if (base.rotaryDim <= 2) throw configError(inner, 'rope_type', 'a head of more than 2 rotated channels for dynamic scaling', base.rotaryDim);
      return { type, factor: given('factor'), maxPositions: context.maxPositions };
    case 'llama3': {
      const [low, high] = [given('low_freq_factor'), given('high_freq_factor')];
      if (high <= low) throw configError(inner, 'high_freq_factor', `more than low_freq_factor ${low}`);
      return { type, factor: given('factor'), lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original };
    }
    case 'yarn': {
      if (base.theta <= 1) throw configError(inner, 'rope_theta', 'more than 1 for yarn', base.theta);
      const mscale = { ...(dict.mscale == null ? {} : { mscale: dict.mscale }), ...(dict.mscale_all_dim == null ? {} : { mscaleAllDim: dict.mscale_all_dim }) };
      const ends = { betaFast: dict.beta_fast || 32, betaSlow: dict.beta_slow || 1, truncate: dict.truncate ?? true };
      return { type, factor: dict.factor ?? context.maxPositions / original, originalMaxPositions: original, ...ends, ...chosen, ...mscale };
    }
    case 'longrope': {
      const [shortFactor, longFactor] = [extension(inner, dict, 'short_factor', base), extension(inner, dict, 'long_factor', base)];
      return { type, factor: dict.factor ?? context.maxPositions / original, originalMaxPositions: original, shortFactor, longFactor, ...chosen };
    }
    default:
      throw configError(inner, 'rope_type', `one of ${ROPE_TYPES.join(', ')}`, named);
  }
}

/** The length before scaling: beside the dict (phi3) or in it. */
function originalLength(inner: ConfigSource, dict: RopeDict, keys: RopeKeys, context: RopeContext): number {
  const [outside, inside] = [keys.original_max_position_embeddings ?? undefined, dict.original_max_position_embeddings ?? undefined];
  if (outside !== undefined && inside !== undefined && outside !== inside) {
    throw configError(inner, 'original_max_position_embeddings', `${outside} as in the config's own key`);
  }
  return outside ?? inside ?? context.originalMaxPositions;
}

function extension(inner: ConfigSource, dict: RopeDict, key: 'short_factor' | 'long_factor', { rotaryDim: rot }: { rotaryDim: number }): readonly number[] {
  const list = dict[key];
  if (list?.length === rot / 2) return list;
  throw configError(inner, key, `${rot / 2} positive numbers, one for each pair of rotated channels`, list == null ? undefined : `${list.length} numbers`);
}
