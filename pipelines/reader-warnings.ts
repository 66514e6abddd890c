/** What the readers of a run have to say about their files, as events. */
import { printable } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import type { CheckpointReader } from '../formats/checkpoint.js';

export function* readerWarnings(job: string, ...readers: readonly (CheckpointReader | undefined)[]): Generator<ProgressEvent, void, void> {
  for (const reader of readers) for (const message of reader?.warnings ?? []) yield { type: 'warning', job, code: 'CHECKPOINT', message: printable(message) };
}

/** Before something keeps a checkpoint: a container's tensors are kept as they are read, not as they are stored. */
export function* keptAsRead(job: string, reader: CheckpointReader): Generator<ProgressEvent, void, void> {
  if (reader.stored === undefined) return;
  const form = reader.stored.format === 'gguf' ? 'the GGUF file' : 'its factors';
  const message = `${reader.source}: kept as the safetensors checkpoint that it reads as; what is restored is that, not ${form}`;
  yield { type: 'warning', job, code: 'CONVERTED', message };
}
