/** What `diff` and `inspect` report, without the work: for pages. */
import { placeOf } from '../../models/place.js';
import type { DiffedTensor, DiffReport } from '../../pipelines/diff.js';
import { divergence, perplexity } from '../../pipelines/eval-figures.js';
import type { EvalOutcome } from '../../pipelines/eval.js';
import type { InspectReport } from '../../pipelines/inspect.js';
import type { Spectrum } from '../../pipelines/spectrum.js';

export const EVIL = 'a"b<script>alert(1)</script><img src=x onerror=alert(2)>&\'c';
/** Control characters and a change of direction in it. */
export const STEALTHY = 'x\u0000\u001b[2J\u202etxt';

export function spectrumOf(values: readonly number[]): Spectrum {
  return { norm: Math.hypot(...values), side: values.length, finite: true, complete: true, values, rank90: 1, rank95: 2, rank99: 3, effectiveRank: values.length / 2, noiseRank: 1 }; // prettier-ignore
}

export function changed(name: string, share: number, more: Partial<DiffedTensor> = {}): DiffedTensor {
  const norms = { deltaNorm: share, baseNorm: 10, relativeNorm: share / 10, maxAbs: share / 100 };
  return { name, status: 'changed', dtype: 'BF16', shape: [8, 4], changedShare: share, ...norms, place: placeOf(name), ...more };
}

const curve = (k: number): number[] => Array.from({ length: 8 }, (_, i) => k * 0.7 ** i);
const leading = [
  { index: 0, value: 5, cosine: 0.25 },
  { index: 1, value: 2, cosine: 0.75 },
];
const intruders = { leading, intruders: leading.slice(0, 1), effectiveRank: { base: 6, tuned: 5 } };

/** `layers` layers of two modules and what is outside; with spectra, an intruder in every q_proj. */
export function diffReport(layers: number, more: readonly DiffedTensor[] = []): DiffReport {
  const inside = Array.from({ length: layers }, (_, i) => [
    changed(`model.layers.${i}.q_proj.weight`, 0.1 + i / 100, { spectrum: spectrumOf(curve(i + 1)), intruders }),
    changed(`model.layers.${i}.mlp.weight`, 0.5, { spectrum: spectrumOf(curve(2)), intruders: { ...intruders, intruders: [] } }),
  ]).flat();
  const tensors = [changed('model.embed_tokens.weight', 0.3), ...inside, ...more];
  return {
    base: '/m/base',
    tuned: '/m/tuned',
    tensors,
    summary: { elements: 1000, changedShare: 0.3, relativeNorm: 0.01 },
    intruders: { top: 10, cosine: 0.5 },
  };
}

export function inspectReport(names: readonly string[]): InspectReport {
  const tensors = names.map((name, i) => ({ name, dtype: i % 2 === 0 ? 'BF16' : 'F32', shape: [8, 4], bytes: 64 * (1 + (i % 2)), place: placeOf(name) }));
  const totalBytes = tensors.reduce((sum, t) => sum + t.bytes, 0);
  const sum = (dtype: string): { tensors: number; bytes: number } => {
    const of = tensors.filter((t) => t.dtype === dtype);
    return { tensors: of.length, bytes: of.reduce((b, t) => b + t.bytes, 0) };
  };
  return { source: '/m/base', format: 'safetensors', warnings: [], files: [{ name: 'model.safetensors', bytes: totalBytes, tensors: names.length }], totalBytes, parameters: 32 * names.length, dtypes: { BF16: sum('BF16'), F32: sum('F32') }, metadata: {}, tensors }; // prettier-ignore
}

/** An evaluation of a few tokens with `token` as the worst one; `compared`: against a reference. */
export function evalOutcome(token: string, compared: boolean): EvalOutcome {
  const scores = (shift: number) => ({ nll: Float32Array.of(1 + shift, 2, 3), top: Int32Array.of(1, 2, 3) });
  const result = { ...scores(0), ...(compared ? { reference: scores(0.5), kld: Float32Array.of(0.001, 0.02, 3) } : {}) };
  const kld = divergence(result);
  const bin = (from: number) => ({ from, to: from + 8, tokens: 3, nll: 2, ...(compared ? { referenceNll: 2.2, kld: 0.1 } : {}) });
  const worst = { window: 0, position: 7, context: 'one\ntwo', token, top: EVIL, p: 0.01, ...(compared ? { reference: { top: EVIL, p: 0.5 }, kld: 3 } : {}) };
  return {
    report: {
      checkpoint: '/m/small',
      device: 'cpu',
      dataset: '/d/text.jsonl',
      protocol: 'gptq',
      seqlen: 16,
      windows: 1,
      ...perplexity(result.nll),
      ...(kld === undefined ? {} : { reference: '/m/large', kld }),
      sample: { prompt: token, text: STEALTHY, tokens: 4, temperature: 0.5 },
    },
    details: { byPosition: [bin(0), bin(8)], kld: compared ? [{ from: 0, to: 0.1, tokens: 2 }, { from: 0.1, to: Infinity, tokens: 1 }] : [], worst: [worst] }, // prettier-ignore
  };
}
