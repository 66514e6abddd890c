/** Calibrating small models in tests, and how close statistics are to goldens. */
import { join } from 'node:path';
import type { CalibrationData } from '../../pipelines/calibration-data.js';
import { calibrate, type CalibrateReport } from '../../pipelines/calibrate.js';
import type { CalibrateOptions } from '../../pipelines/calibrate-plan.js';
import { drain, RUN } from './adapters.js';
import { TINY } from './files.js';
import { modelFolder, type Golden } from './goldens.js';

export const modelOf = (name: string): string => (name === 'tiny' ? join(TINY, 'base') : modelFolder(name));

export const dataOf = (sequences: readonly (readonly number[] | Int32Array)[]): CalibrationData => ({
  sequences: sequences.map((s) => Int32Array.from(s)),
  name: 'ids',
  sha256: '12'.repeat(32),
});

export const ALL_INPUTS = ['inputSqNorm', 'inputAbsMean', 'inputGram'] as const;
export const ALL_FISHER = ['fisherRow', 'fisherA', 'fisherB'] as const;

export function optionsFor(checkpoint: string, out: string, data: CalibrationData, more: Partial<CalibrateOptions> = {}): CalibrateOptions {
  const plain = { statistics: ALL_INPUTS, fisher: [], selects: () => true, force: false, dryRun: false, resume: true };
  return { ...RUN, ...plain, checkpoint, out, data: () => Promise.resolve(data), ...more };
}

export const runCalibrate = (checkpoint: string, out: string, data: CalibrationData, more: Partial<CalibrateOptions> = {}): Promise<CalibrateReport> =>
  drain(calibrate(optionsFor(checkpoint, out, data, more)));

const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((sum, v) => sum + v * v, 0));

/** ||a - b|| / ||b|| */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  return norm(Array.from(b, (v, i) => a[i]! - v)) / Math.max(norm(b), 1e-30);
}

/** A square matrix against its golden: its norm, and its product with the vector cos(0.7 i + 0.3) by what a random vector of that length gives. */
export function probeError(matrix: Float32Array, golden: Golden<unknown>, name: string): number {
  const [right, size] = [golden.tensor(`${name}Probe`).values, golden.tensor(`${name}Norm`).values[0]!];
  const n = right.length;
  if (matrix.length !== n * n) return Infinity;
  const product = Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += matrix[i * n + j]! * Math.cos(0.7 * j + 0.3);
    return sum;
  });
  const off = norm(product.map((v, i) => v - right[i]!)) / (Math.max(size, 1e-30) * Math.SQRT1_2);
  return Math.max(off, Math.abs(norm(matrix) / Math.max(size, 1e-30) - 1));
}
