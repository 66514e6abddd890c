/** Rotary scaling of a GGUF -> `rope_scaling` of config.json. */
import { shortest, type GgufMetadata } from './metadata.js';

export type RopeScaling = Readonly<Record<string, unknown>>;

/** Tensors of the file that hold factors, f32 values by GGUF name. */
export type RopeFactors = (name: string) => Float32Array | undefined;

export interface RopeResult {
  readonly scaling?: RopeScaling;
  /** phi3 keeps it beside the scaling. */
  readonly originalLength?: number;
  readonly warning?: string;
}

/** `theta`, `dim`: base and rotated channels of the attention. */
export function ropeScaling(meta: GgufMetadata, architecture: string, theta: number, dim: number, factors: RopeFactors): RopeResult {
  const key = (name: string): string => `${architecture}.rope.scaling.${name}`;
  const original = meta.number(key('original_context_length'));
  const [long, short] = [factors('rope_factors_long.weight'), factors('rope_factors_short.weight')];
  if (long !== undefined && short !== undefined) {
    const scaling = { type: 'longrope', rope_type: 'longrope', long_factor: Array.from(long, shortest), short_factor: Array.from(short, shortest) };
    return { scaling, ...(original === undefined ? {} : { originalLength: original }) };
  }
  const divisors = factors('rope_freqs.weight');
  if (divisors !== undefined) return llama3Scaling(divisors, theta, dim);
  const type = meta.string(key('type'));
  if (type === undefined || type === 'none') return {};
  const factor = meta.number(key('factor')) ?? meta.number(`${architecture}.rope.scale_linear`);
  if ((type !== 'linear' && type !== 'yarn') || factor === undefined) return { warning: `rope scaling "${type}" has no counterpart in config.json` };
  const optional = (name: string, value: number | undefined): Record<string, number> => (value === undefined ? {} : { [name]: shortest(value) });
  const scaling = {
    type,
    rope_type: type,
    factor: shortest(factor),
    ...(type === 'linear'
      ? {}
      : {
          ...(original === undefined ? {} : { original_max_position_embeddings: original }),
          ...optional('beta_fast', meta.number(key('yarn_beta_fast'))),
          ...optional('beta_slow', meta.number(key('yarn_beta_slow'))),
        }),
  };
  return { scaling };
}

interface Llama3 {
  readonly factor: number;
  readonly low: number;
  readonly high: number;
  readonly length: number;
}

/** Divisor of a frequency: 1 for short waves, `factor` for long ones, between them a smooth passage (transformers, `rope_type: "llama3"`). */
function llama3Divisor(wave: number, { factor, low, high, length }: Llama3): number {
  if (wave < length / high) return 1;
  if (wave > length / low) return factor;
  const t = (length / wave - low) / (high - low);
  return 1 / ((1 - t) / factor + t);
}

/** f32 arithmetic of the converter against ours. */
const TOLERANCE = 1e-5;

/**
 * llama3's parameters from the divisors of `rope_freqs.weight`. Between the two bounds 1/divisor is linear in 1/wavelength, which gives
 * high/low and length/low; every published model has low = 1, so that is taken. What is found must give the divisors back.
 */
function llama3Scaling(divisors: Float32Array, theta: number, dim: number): RopeResult {
  const waves = Array.from(divisors, (_, i) => 2 * Math.PI * theta ** ((2 * i) / dim));
  const factor = shortest(divisors.reduce((a, b) => Math.max(a, b), 0));
  if (!(factor > 0) || !Number.isFinite(factor)) return { warning: 'rope_freqs.weight holds no divisors' };
  if (divisors.every((d) => d === 1)) return {};
  const fits = (p: Llama3): boolean => p.high > p.low && waves.every((w, i) => Math.abs(llama3Divisor(w, p) / divisors[i]! - 1) < TOLERANCE);
  const solved = solve(waves, divisors, factor);
  const tries: Llama3[] = [{ factor, low: 1, high: 4, length: 8192 }];
  if (solved !== undefined) tries.push({ ...solved, high: Number(solved.high.toPrecision(4)), length: Math.round(solved.length) }, solved);
  const found = tries.find(fits);
  if (found === undefined) return { warning: 'rope_freqs.weight is not of the llama3 form: its scaling is not in config.json' };
  const scaling = {
    rope_type: 'llama3',
    factor,
    low_freq_factor: found.low,
    high_freq_factor: found.high,
    original_max_position_embeddings: found.length,
  };
  return { scaling };
}

/** The line through the passage's first and last point. */
function solve(waves: readonly number[], divisors: Float32Array, factor: number): Llama3 | undefined {
  const points = waves.flatMap((w, i) => {
    const t = (1 / divisors[i]! - 1 / factor) / (1 - 1 / factor);
    return t > TOLERANCE && t < 1 - TOLERANCE ? [[1 / w, t] as const] : [];
  });
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined || first === last) return undefined;
  const slope = (last[1] - first[1]) / (last[0] - first[0]);
  const offset = first[1] - slope * first[0];
  // t = (length/wave - low)/(high - low) with low = 1
  const high = 1 - 1 / offset;
  return { factor, low: 1, high, length: slope * (high - 1) };
}
