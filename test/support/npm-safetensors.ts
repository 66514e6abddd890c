/** npm `safetensors`: an independent reader. Its UMD build is loaded with require, it has no types of its own. */
import { createRequire } from 'node:module';

interface NpmSafeTensor {
  readonly metadata: ReadonlyMap<string, { dtype: string; shape: number[] }>;
  getTensor(name: string): Uint8Array;
}

const require = createRequire(import.meta.url);
export const { SafeTensor } = require('safetensors') as { SafeTensor: new (bytes: Uint8Array) => NpmSafeTensor };
