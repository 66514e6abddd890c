/** `512MB`, `2GiB`, `1.5GB` -> bytes, and back. */
import { freemem } from 'node:os';
import { PithError } from '../core/errors.js';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim());
  const unit = UNITS[match?.[2]?.toUpperCase() ?? '?'];
  const bytes = match === null || unit === undefined ? NaN : Math.floor(Number(match[1]) * unit);
  if (!Number.isSafeInteger(bytes) || bytes <= 0) throw new PithError('USAGE', { message: `"${text}" is not a size; write 512MB, 2GiB or 1.5GB` });
  return bytes;
}

/** The smaller of 4 GB and half of the free memory. */
export function defaultMemoryBytes(): number {
  return Math.min(4e9, Math.floor(freemem() / 2));
}

export function formatBytes(bytes: number): string {
  for (const [unit, size] of [
    ['GB', 1e9],
    ['MB', 1e6],
    ['kB', 1e3],
  ] as const) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= 100 * size ? 0 : bytes >= 10 * size ? 1 : 2)} ${unit}`;
  }
  return `${bytes} B`;
}

export const formatShare = (share: number): string => `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`;

export function formatMs(ms: number): string {
  return ms < 1000
    ? `${Math.round(ms)} ms`
    : ms < 60_000
      ? `${(ms / 1000).toFixed(2)} s`
      : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** `90s`, `30m`, `1h`, `7d` -> ms. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim());
  const unit = { ms: 1, s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7 }[match?.[2] ?? ''];
  if (match === null || unit === undefined) throw new PithError('USAGE', { message: `"${text}" is not a duration; write 90s, 30m, 1h or 7d` });
  return Number(match[1]) * unit;
}
