/** What a pipeline yields while it works; `cli/` renders it, `--json` prints it as NDJSON on stderr. */
export type ProgressEvent =
  | { readonly type: 'job.start'; readonly job: string; readonly totalBytes: number; readonly tasks: number; readonly resumedBytes: number }
  | { readonly type: 'progress'; readonly job: string; readonly doneBytes: number; readonly totalBytes: number; readonly label?: string }
  | { readonly type: 'tensor.done'; readonly job: string; readonly tensor: string; readonly method: string; readonly bytes: number; readonly rawBytes: number }
  | ({ readonly type: 'train.step'; readonly job: string; readonly tokensPerSecond: number } & StepMetrics)
  | { readonly type: 'phase'; readonly job: string; readonly phase: string }
  | { readonly type: 'warning'; readonly job: string; readonly code: string; readonly message: string }
  | { readonly type: 'job.done'; readonly job: string; readonly ms: number };

/** Of a training step, or of a look at the validation rows: nothing in it depends on the machine's speed. */
export interface StepMetrics {
  readonly step: number;
  readonly loss?: number;
  readonly valLoss?: number;
  readonly lr?: number;
  readonly gradNorm?: number;
  readonly tokens?: number;
}

/** The common shape of a verb: progress while it runs, a report at the end. */
export type Pipeline<Report> = AsyncGenerator<ProgressEvent, Report, void>;
