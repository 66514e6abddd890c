/** Any checkpoint argument -> reader. */
import { isAdapterFolder } from '../formats/adapter/adapter.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { openCheckpoint } from '../formats/open-checkpoint.js';

/** A path, or `BASE+ADAPTER_DIR`: the base with the adapter applied. A path that exists is taken as it is. */
export async function openAny(argument: string): Promise<CheckpointReader> {
  const at = argument.lastIndexOf('+');
  if (at <= 0 || io.stat(argument) !== undefined) return openCheckpoint(argument);
  const [base, folder] = [argument.slice(0, at), argument.slice(at + 1)];
  if (!isAdapterFolder(folder)) return openCheckpoint(argument);
  const { openAdapted } = await import('./adapted-reader.js');
  return openAdapted(argument, await openAny(base), base, folder);
}
