/** Every flag that means the same everywhere, as one table (design: cli.md). */
import { Flags } from '@oclif/core';
import { availableParallelism } from 'node:os';
import { PithError } from '../core/errors.js';
import { DEVICES } from '../core/device.js';
import { defaultMemoryBytes, parseSize } from './sizes.js';

export const commonFlags = {
  json: Flags.boolean({ description: 'print one JSON document on stdout, NDJSON events on stderr', helpGroup: 'OUTPUT' }),
  quiet: Flags.boolean({ description: 'no progress', helpGroup: 'OUTPUT' }),
  config: Flags.string({ description: 'flags from a YAML file; those of the command line win', helpValue: 'FILE', helpGroup: 'OUTPUT' }),
};

export const runFlags = {
  threads: Flags.integer({
    char: 'j',
    min: 1,
    max: 256,
    description: 'worker threads; the bytes do not depend on it',
    default: async () => availableParallelism(),
  }),
  'max-memory': Flags.custom<number>({
    description: 'memory for data in flight, as 512MB or 2GiB (default: the smaller of 4 GB and half of what is free)',
    parse: async (text) => parseSize(text),
    default: async () => defaultMemoryBytes(),
    defaultHelp: async () => '',
    helpValue: 'SIZE',
  })(),
  seed: Flags.integer({ min: 0, default: 0, description: 'seed of everything random' }),
  device: Flags.option({ options: DEVICES, default: 'auto' as const, description: 'where tensors are computed' })(),
};

export const selectFlags = {
  include: Flags.string({ multiple: true, description: 'only tensors whose names match this glob', helpValue: 'GLOB', default: [] }),
  exclude: Flags.string({ multiple: true, description: 'not tensors whose names match this glob', helpValue: 'GLOB', default: [] }),
};

export const viewFlags = {
  spectrum: Flags.boolean({ description: 'singular values and effective rank of every matrix' }),
  report: Flags.string({ description: 'write figures and tables as one page', helpValue: 'FILE.html' }),
  force: Flags.boolean({ description: 'replace an existing report' }),
};

export const writeFlags = {
  force: Flags.boolean({ description: 'replace an existing output' }),
  'dry-run': Flags.boolean({ description: 'check the plan and predict the result; write nothing' }),
  resume: Flags.boolean({ allowNo: true, default: true, description: 'go on from a partial result of the same plan' }),
};

/** A number from 0 to 1; USAGE otherwise. */
export function parseShare(flag: string, text: string): number {
  const v = Number(text);
  if (text.trim() === '' || !(v >= 0 && v <= 1)) throw new PithError('USAGE', { message: `--${flag} ${text}: not from 0 to 1` });
  return v;
}

/** Percentages, `1,2.5`, as shares of 1. USAGE when one is not in (0, 100]. */
export function parseShares(flag: string, text: string): number[] {
  return text.split(',').map((piece) => {
    const v = Number(piece) / 100;
    if (piece.trim() === '' || !(v > 0 && v <= 1)) throw new PithError('USAGE', { message: `--${flag} ${text}: percentages above 0 and up to 100 expected` });
    return v;
  });
}

/** `--set key=value`: numbers, booleans and JSON are read as such. USAGE without a `=`. */
export function parseSettings(settings: readonly string[]): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const s of settings) {
    const at = s.indexOf('=');
    if (at < 1) throw new PithError('USAGE', { message: `--set ${s}: write key=value` });
    out[s.slice(0, at)] = parseValue(s.slice(at + 1));
  }
  return out;
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
