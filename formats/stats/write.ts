/** A statistics file whose tensors tasks write at known places while they calibrate. */
import type { TensorInfo } from '../../core/tensor.js';
import { prepareFiles, type PreparedFiles } from '../safetensors/prepared.js';
import { manifestToMetadata, type StatsManifest } from './schema.js';

/** The header is written at once. A file that is there with the same header keeps its data: a run that was killed goes on. */
export function prepareStats(path: string, manifest: StatsManifest, tensors: readonly TensorInfo[]): PreparedFiles {
  return prepareFiles(path, tensors, { single: true, metadata: manifestToMetadata(manifest), resume: true });
}
