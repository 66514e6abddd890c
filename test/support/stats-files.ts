/** Small statistics files for tests. */
import { writeFileSync } from 'node:fs';
import { encodeAs } from '../../core/float.js';
import type { TensorView } from '../../core/tensor.js';
import { manifestToMetadata, statInfo, type ModuleSides, type Statistic, type StatsManifest } from '../../formats/stats/schema.js';
import { safetensorsBytes } from './files.js';

export const MANIFEST: StatsManifest = {
  version: 1,
  generator: 'pith 0.0.0',
  model: { name: 'tiny', contentHash: 'ab'.repeat(32) },
  dataset: { name: 'text.txt', sha256: 'cd'.repeat(32) },
  nsamples: 2,
  seqlen: 8,
  seed: 0,
  tokens: 16,
  tokensHash: 'ef'.repeat(32),
  alias: {},
};

export function statView(module: string, statistic: Statistic, sides: ModuleSides, value: (i: number) => number): TensorView {
  const info = statInfo(module, statistic, sides);
  if (info.dtype === 'I64') return { ...info, bytes: new Uint8Array(BigInt64Array.of(BigInt(value(0))).buffer) };
  const count = info.shape.reduce((a, b) => a * b, 1);
  return {
    ...info,
    bytes: encodeAs(
      'F32',
      Float32Array.from({ length: count }, (_, i) => value(i)),
    ),
  };
}

export function writeStats(path: string, views: readonly TensorView[], manifest: StatsManifest = MANIFEST, change: Record<string, string> = {}): void {
  writeFileSync(path, safetensorsBytes(views, { ...manifestToMetadata(manifest), ...change }));
}
