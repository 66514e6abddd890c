/** Integer grids of a scheme, and the result that they end in. */
import { IntGrid, SCALE_DTYPES, type IntGridOptions, type ScaleDType } from '../kernels/quant/int-grid.js';
import * as z from 'zod';
import type { Quantized, QuantScheme } from './kinds.js';
import { bitsPerWeight } from './quant-scheme.js';

/** Steps of the search for a range: the release's grid of 100 up to a shrinking by 80 %. */
export const MSE_STEPS = 80;

export const scaleParam = z.enum(SCALE_DTYPES).default('F16').describe('how the scales are stored');

export function intGrid(m: number, n: number, scheme: QuantScheme, scales: ScaleDType, more: Partial<IntGridOptions> = {}): IntGrid {
  const { bits, symmetric, groupSize } = scheme;
  return new IntGrid(m, n, { bits, symmetric, groupSize, scales, ...more });
}

type Extras = Partial<Omit<Quantized, 'scheme' | 'codes' | 'scales' | 'zeros' | 'w' | 'facts' | 'bitsPerWeight'>>;

/** w: what the layer computes with. moreBits: of what is stored beside codes, scales and zeros. */
export function intQuantized(grid: IntGrid, scheme: QuantScheme, w: Float32Array, facts: Quantized['facts'], extras: Extras = {}, moreBits = 0): Quantized {
  const { scales, zeros } = grid.parameters();
  const bits = bitsPerWeight(grid.m, grid.n, scheme, grid.groups, moreBits);
  return { scheme, codes: grid.codes, scales, zeros: Float32Array.from(zeros), w, bitsPerWeight: bits, facts, ...extras };
}
