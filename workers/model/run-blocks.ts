/** All blocks of a model over all sequences, with progress in bytes of the checkpoint as its weights are passed through. */
import { byteLength } from '../../core/shape.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { TokenModel } from '../../models/graph.js';
import type { TaskControl } from '../state.js';
import { Batches, embedAll, runBlock, type ForwardRun } from './forward.js';
import { partBytes } from './plan.js';

export interface ReportUnits {
  readonly block: (index: number) => number;
  /** A row of the output layer; 0 without one. */
  readonly headRow: number;
  /** Spreads what no pass meets over what one does. */
  readonly scale: number;
}

/** `head`: the output layer is passed too. */
export function reportUnits(model: TokenModel, reader: CheckpointReader, head: boolean): ReportUnits {
  const bytes = (name: string): number => {
    const { dtype, shape } = reader.infos.get(name)!;
    return byteLength(dtype, shape);
  };
  const block = (i: number): number => partBytes(model.blocks[i]!, reader);
  const headBytes = head && model.head !== undefined ? bytes(model.head.weight) : 0;
  const passed = model.blocks.reduce((sum, _, i) => sum + block(i), headBytes);
  const all = [...reader.infos.keys()].reduce((sum, name) => sum + bytes(name), 0);
  return { block, headRow: headBytes / Math.max(1, model.head?.vocabulary ?? 1), scale: all / passed };
}

export async function runBlocks(run: Omit<ForwardRun, 'report' | 'checkpointCancel'>, { block, scale }: ReportUnits, control: TaskControl): Promise<void> {
  using batches = new Batches();
  const { model, sequences } = run;
  const checkpointCancel = (): void => control.checkpointCancel();
  const step = (bytes: number): ForwardRun => ({
    ...run,
    checkpointCancel,
    report: (tokens) => control.report((scale * bytes * tokens) / sequences.tokens),
  });
  await embedAll(step(0), batches);
  for (let i = 0; i < model.blocks.length; i++) await runBlock(step(block(i)), i, batches);
}
