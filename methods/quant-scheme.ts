/**
 * Names of what weights are stored as, as vLLM's llm-compressor and its users write them:
 *   W4A16, W3A16, W2A16, ...: integers in groups of 128, symmetric; W8A16: one scale a row. G64: groups of 64, G0 whole rows; _ASYM, _SYM
 *   FP8: E4M3, one scale a row;   NF4: bitsandbytes' table, blocks of 64
 */
import { PithError } from '../core/errors.js';
import type { LayerWeight, LayerQuantizer, Quantized, QuantScheme, QuantStats } from './kinds.js';
import { requireFinite } from './layer-input.js';

const INTEGER = /^W([2-8])A16(?:G(\d+))?(?:_(A?SYM))?$/;

/** BAD_PARAMS (64) for a name that is none. Upper or lower case. */
export function parseScheme(name: string): QuantScheme {
  const text = name.toUpperCase();
  if (text === 'FP8') return { grid: 'fp8', bits: 8, symmetric: true, groupSize: 0 };
  if (text === 'NF4') return { grid: 'nf4', bits: 4, symmetric: true, groupSize: 64 };
  const [, bits, group, symmetry] = INTEGER.exec(text) ?? [];
  if (bits === undefined) {
    throw new PithError('BAD_PARAMS', { method: 'scheme', message: `"${name}": expected W<2-8>A16[G<group>][_ASYM], FP8 or NF4` });
  }
  return { grid: 'int', bits: Number(bits), symmetric: symmetry !== 'ASYM', groupSize: Number(group ?? (bits === '8' ? 0 : 128)) };
}

/** The shortest name of a scheme. */
export function schemeName({ grid, bits, symmetric, groupSize }: QuantScheme): string {
  if (grid !== 'int') return grid.toUpperCase();
  return `W${bits}A16${groupSize === (bits === 8 ? 0 : 128) ? '' : `G${groupSize}`}${symmetric ? '' : '_ASYM'}`;
}

/**
 * A quantizer of single layers, which sees only schemes that it has a grid for and weights that are finite: BAD_PARAMS, NOT_FINITE (65) before
 * it is called.
 */
export function layerQuantizer(method: string, q: Omit<LayerQuantizer, 'scope'>): LayerQuantizer {
  return {
    ...q,
    scope: 'layer',
    async quantize(c, layer, stats, scheme) {
      if (!q.grids.includes(scheme.grid)) throw new PithError('BAD_PARAMS', { method, message: `${schemeName(scheme)}: it makes ${q.grids.join(', ')}` });
      requireFinite(layer, 'weight', layer.w);
      return q.quantize(c, layer, stats, scheme);
    },
  };
}

/** (m, n), finite. INTERNAL when the caller left it out. */
export function pathGradientOf(layer: LayerWeight, { pathGradient }: QuantStats): Float32Array {
  if (pathGradient?.length !== layer.m * layer.n) throw new PithError('INTERNAL', { message: `layer "${layer.name}": no gradient of its size` });
  requireFinite(layer, 'pathGradient', pathGradient);
  return pathGradient;
}

/** Scales of 16 bits, zero points as wide as codes. */
export function bitsPerWeight(m: number, n: number, { bits, symmetric }: QuantScheme, groups: number, more = 0): number {
  return bits + ((16 + (symmetric ? 0 : bits)) * groups) / n + more / (m * n);
}

/** What the codes alone decode to, before input scales are undone and kept weights put in place. */
export function decodeInt({ codes, scales, zeros, groupIndex, scheme }: Quantized, m: number, n: number): Float32Array {
  const groups = scales.length / m;
  const size = scheme.groupSize > 0 ? scheme.groupSize : n;
  const out = new Float32Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      const g = i * groups + (groupIndex?.[j] ?? Math.floor(j / size));
      out[i * n + j] = (codes[i * n + j]! - zeros![g]!) * scales[g]!;
    }
  }
  return out;
}
