/**
 * Frequencies of rotary position embeddings and their scalings to longer contexts, on the host.
 * RoPE: Su et al. 2021, arXiv 2104.09864. Linear: Chen et al. 2023, arXiv 2306.15595. Dynamic NTK: bloc97 and emozilla 2023.
 * YaRN: Peng et al. 2023, arXiv 2309.00071. LongRoPE: Ding et al. 2024, arXiv 2402.13753. llama3: Llama 3.1's scaling.
 * Every step is rounded to f32 where transformers rounds it, so the frequencies have the same bits: an angle is position times
 * frequency, so at position 2,000 one bit of a frequency is 1e-4 of an angle, and models were trained on the rounded ones.
 */
interface RopeBase {
  /** Wavelength base. */
  readonly theta: number;
  /** Leading channels of a head that turn; even. */
  readonly rotaryDim: number;
}

/** A rotary embedding with every default resolved. */
export type RopeParameters = RopeBase &
  (
    | { readonly type: 'default' }
    | { readonly type: 'linear'; readonly factor: number }
    | { readonly type: 'dynamic'; readonly factor: number; readonly maxPositions: number }
    | {
        readonly type: 'llama3';
        readonly factor: number;
        readonly lowFreqFactor: number;
        readonly highFreqFactor: number;
        readonly originalMaxPositions: number;
      }
    | {
        readonly type: 'yarn';
        readonly factor: number;
        readonly originalMaxPositions: number;
        readonly betaFast: number;
        readonly betaSlow: number;
        readonly truncate: boolean;
        readonly attentionFactor?: number;
        readonly mscale?: number;
        readonly mscaleAllDim?: number;
      }
    | {
        readonly type: 'longrope';
        readonly factor: number;
        readonly originalMaxPositions: number;
        readonly shortFactor: readonly number[];
        readonly longFactor: readonly number[];
        readonly attentionFactor?: number;
      }
  );
type Of<T extends RopeParameters['type']> = Extract<RopeParameters, { type: T }>;

export const ROPE_TYPES = ['default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope'] as const satisfies readonly RopeParameters['type'][];

/** cos and sin of every position's angles times the attention factor, row-major (positions, rotaryDim / 2). */
export interface HostRopeTables {
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

const f32 = Math.fround;

/** Length that the frequencies of sequences of `tokens` are made for: equal keys have equal tables. */
export function ropeLengthKey(p: RopeParameters, tokens: number): number {
  if (p.type === 'dynamic') return Math.max(tokens, p.maxPositions);
  return p.type === 'longrope' && tokens > p.originalMaxPositions ? 1 : 0;
}

/** Inverse frequencies (rotaryDim / 2), f32, of a sequence whose last position is `tokens` - 1. */
export function inverseFrequencies(p: RopeParameters, tokens: number): Float32Array {
  switch (p.type) {
    case 'default':
      return map(powers(p.theta, p.rotaryDim), (w) => 1 / w);
    case 'linear':
      return map(powers(p.theta, p.rotaryDim), (w) => f32(1 / w) / p.factor);
    case 'dynamic':
      return dynamic(p, tokens);
    case 'llama3':
      return llama3(p);
    case 'yarn':
      return yarn(p);
    case 'longrope': {
      const extension = tokens > p.originalMaxPositions ? p.longFactor : p.shortFactor;
      return map(powers(p.theta, p.rotaryDim), (w, i) => 1 / f32(f32(extension[i]!) * w));
    }
  }
}

/** What cos and sin are multiplied by. */
export function attentionFactor(p: RopeParameters): number {
  if (p.type !== 'yarn' && p.type !== 'longrope') return 1;
  if (p.attentionFactor !== undefined) return p.attentionFactor;
  if (p.type === 'longrope') return p.factor <= 1 ? 1 : Math.sqrt(1 + Math.log(p.factor) / Math.log(p.originalMaxPositions));
  // M(s) = 0.1 s ln(factor) + 1
  const scale = (s: number): number => (p.factor <= 1 ? 1 : 0.1 * s * Math.log(p.factor) + 1);
  const { mscale = 0, mscaleAllDim = 0 } = p;
  return mscale !== 0 && mscaleAllDim !== 0 ? scale(mscale) / scale(mscaleAllDim) : scale(1);
}

/** Tables of `positions`; `tokens`, where the scaling depends on it, is by default the highest position + 1. */
export function ropeTables(p: RopeParameters, positions: ArrayLike<number>, tokens = highest(positions) + 1): HostRopeTables {
  const frequencies = inverseFrequencies(p, tokens);
  const factor = f32(attentionFactor(p));
  const half = frequencies.length;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  for (let t = 0; t < positions.length; t++) {
    for (let i = 0; i < half; i++) {
      const angle = f32(positions[t]! * frequencies[i]!);
      cos[t * half + i] = f32(Math.cos(angle)) * factor;
      sin[t * half + i] = f32(Math.sin(angle)) * factor;
    }
  }
  return { cos, sin };
}

function highest(positions: ArrayLike<number>): number {
  let max = -1;
  for (let i = 0; i < positions.length; i++) max = Math.max(max, positions[i]!);
  return max;
}

/** theta^(2i/rot), the inverse of the plain frequencies. */
function powers(theta: number, rotaryDim: number): Float32Array {
  return Float32Array.from({ length: rotaryDim / 2 }, (_, i) => f32(theta) ** f32((2 * i) / rotaryDim));
}

const map = (values: Float32Array, f: (value: number, i: number) => number): Float32Array => values.map(f);

function dynamic({ theta, rotaryDim, factor, maxPositions }: Of<'dynamic'>, tokens: number): Float32Array {
  const n = Math.max(tokens, maxPositions);
  // theta' = theta (factor n / P - (factor - 1))^(rot / (rot - 2))
  const grown = theta * ((factor * n) / maxPositions - (factor - 1)) ** (rotaryDim / (rotaryDim - 2));
  return map(powers(grown, rotaryDim), (w) => 1 / w);
}

function llama3(p: Of<'llama3'>): Float32Array {
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original } = p;
  return map(powers(p.theta, p.rotaryDim), (w) => {
    const f = f32(1 / w);
    const wavelength = f32((2 * Math.PI) / f);
    if (wavelength < original / high) return f;
    if (wavelength > original / low) return f / factor;
    const s = f32(f32(f32(original / wavelength) - low) / (high - low));
    return f32(f32(f32(1 - s) * f) / factor) + f32(s * f);
  });
}

function yarn(p: Of<'yarn'>): Float32Array {
  const { theta, rotaryDim: rot, factor, originalMaxPositions: original } = p;
  // c(r) = rot ln(O / (2 pi r)) / (2 ln theta): the channel that turns r times over the original length
  const channel = (turns: number): number => (rot * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [from, to] = [channel(p.betaFast), channel(p.betaSlow)];
  const low = Math.max(p.truncate ? Math.floor(from) : from, 0);
  const end = Math.min(p.truncate ? Math.ceil(to) : to, rot - 1);
  const high = end === low ? end + 0.001 : end;
  return map(powers(theta, rot), (w, i) => {
    // 1: fast channels, kept; 0: slow ones, interpolated
    const kept = f32(1 - Math.min(Math.max(f32(f32(i - f32(low)) / f32(high - low)), 0), 1));
    return f32(f32(1 / f32(factor * w)) * f32(1 - kept)) + f32(f32(1 / w) * kept);
  });
}
