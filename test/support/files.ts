/** Temporary folders and small checkpoints for tests. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TensorView } from '../../core/tensor.js';
import { buildHeader, canonicalOrder } from '../../formats/safetensors/layout.js';

/** The package's root, seen from dist/test/support. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
export const TINY = join(ROOT, 'examples', 'tiny');
export const BIN = join(ROOT, 'bin', 'run.js');

export function tempDir(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'pith-test-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

export function safetensorsBytes(views: readonly TensorView[], metadata?: Record<string, string>): Uint8Array {
  const sorted = canonicalOrder(views);
  const { header } = buildHeader(sorted, metadata, 'test');
  return Buffer.concat([header, ...sorted.map((v) => v.bytes)]);
}

export function writeSafetensors(path: string, views: readonly TensorView[], metadata?: Record<string, string>): void {
  writeFileSync(path, safetensorsBytes(views, metadata));
}

/** relative name -> SHA-256 of every file below a folder (or of the one file). */
export function hashTree(path: string): Record<string, string> {
  const sha = (p: string): string => createHash('sha256').update(readFileSync(p)).digest('hex');
  if (statSync(path).isFile()) return { '': sha(path) };
  const out: Record<string, string> = {};
  for (const e of readdirSync(path, { withFileTypes: true, recursive: true })) {
    const p = join(e.parentPath, e.name);
    if (e.isFile()) out[p.slice(path.length + 1)] = sha(p);
  }
  return out;
}
