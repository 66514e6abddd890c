/** `pith delta frontier`: what every codec leaves at every size, each point a real delta that is written, measured and thrown away. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import * as io from '../formats/io.js';
import { loadMethod, methodNames } from '../methods/index.js';
import type { CalibrationText } from './calibration-data.js';
import { deltaEncode, type EncodeReport } from './delta-encode.js';
import type { RunOptions } from './run-options.js';

export interface FrontierOptions extends RunOptions {
  readonly base: string;
  readonly tuned: string;
  /** Sizes as shares of the raw bytes. */
  readonly shares: readonly number[];
  /** Names of codecs, or `auto`; undefined: every codec that can follow a budget, `auto` and `lossless`. */
  readonly methods: readonly string[] | undefined;
  /** An empty folder for the deltas. */
  readonly work: string;
  readonly selects: (name: string) => boolean;
  /** `auto` weighs errors by what they do on it. */
  readonly data?: CalibrationText;
}

export interface FrontierPoint {
  /** The share that was asked for; absent for a lossless delta. */
  readonly share?: number;
  readonly bytes: number;
  readonly ratio: number;
  /** ||What - W1||_F / ||W1 - W0||_F over what the codec coded. */
  readonly error: number;
  readonly ms: number;
}

export interface FrontierReport {
  readonly rawBytes: number;
  readonly series: readonly { readonly method: string; readonly points: readonly FrontierPoint[]; readonly missed: readonly number[] }[];
}

export async function* deltaFrontier(o: FrontierOptions): Pipeline<FrontierReport> {
  const names = o.methods ?? (await budgetedMethods());
  const series: FrontierReport['series'][number][] = [];
  let rawBytes = 0;
  for (const method of names) {
    const points: FrontierPoint[] = [];
    const missed: number[] = [];
    for (const share of method === 'lossless' ? [undefined] : o.shares) {
      const started = performance.now();
      const r = yield* encodeOnce(o, method, share);
      if (r === undefined) {
        missed.push(share!);
        continue;
      }
      rawBytes = r.rawBytes;
      points.push({
        ...(share === undefined ? {} : { share }),
        bytes: r.bytes,
        ratio: r.ratio,
        error: r.error ?? 0,
        ms: Math.round(performance.now() - started),
      });
    }
    series.push({ method, points, missed });
  }
  return { rawBytes, series };
}

async function budgetedMethods(): Promise<string[]> {
  const codecs = await Promise.all(methodNames('delta').map(async (name) => ({ name, codec: (await loadMethod('delta', name)).create({}) })));
  return ['auto', ...codecs.filter(({ codec }) => codec.budget !== undefined && !codec.lossless).map(({ name }) => name), 'lossless'];
}

/** undefined: the codec cannot be that small. */
async function* encodeOnce(o: FrontierOptions, method: string, share: number | undefined): AsyncGenerator<ProgressEvent, EncodeReport | undefined, void> {
  const out = join(o.work, 'delta.safetensors');
  const { base, tuned, threads, maxMemoryBytes, seed, device, signal, selects } = o;
  const target = share === undefined ? {} : { target: { ratio: 1 / share } };
  try {
    return yield* deltaEncode({
      threads,
      maxMemoryBytes,
      seed,
      device,
      signal,
      base,
      tuned,
      out,
      method,
      params: {},
      selects,
      ...target,
      ...(method === 'auto' && o.data !== undefined && share !== undefined ? { data: o.data } : {}),
      force: true,
      dryRun: false,
      resume: false,
    });
  } catch (error) {
    if (error instanceof PithError && error.code === 'TARGET_TOO_SMALL') return undefined;
    throw error;
  } finally {
    io.remove(out);
  }
}
