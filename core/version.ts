import { readFileSync } from 'node:fs';

/** Version of this package, from its package.json (two folders up in dist). */
export function pithVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
