/** Any checkpoint argument -> reader. */
import type { CheckpointReader } from '../formats/checkpoint.js';
import { openCheckpoint } from '../formats/open-checkpoint.js';

export async function openAny(argument: string): Promise<CheckpointReader> {
  return openCheckpoint(argument);
}
