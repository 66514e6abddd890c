/** The data of a run: rows as windows of tokens, some of them kept for validation; and which windows each step takes. */
import { PithError } from '../../core/errors.js';
import { Rng } from '../../core/rng.js';
import { readRows, type DatasetSpec } from '../../formats/dataset/dataset.js';
import type { RowTemplate } from '../../formats/dataset/template.js';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { packRows, stackWindows, type PackedWindow } from '../../models/windows/packing.js';
import { encodeTrainingRow, type TrainingRow } from '../../models/windows/training.js';
import type { TrainBatch } from '../../workers/messages/train.js';

export interface FinetuneData {
  readonly spec: DatasetSpec;
  readonly template?: RowTemplate;
  readonly seqlen: number;
  readonly packing: boolean;
  /** Prompts are learnt too. */
  readonly trainOnInputs: boolean;
  /** Share of the rows that is kept for validation, or their number from 1 on. */
  readonly validation: number;
  /** Windows of a pass, and passes of a step. */
  readonly batchSize: number;
  readonly accumulation: number;
  readonly seed: number;
}

export interface Windows {
  readonly train: readonly PackedWindow[];
  readonly validation: readonly PackedWindow[];
  /** Rows behind the windows' numbers, of each of the two. */
  readonly rows: { readonly train: readonly TrainingRow[]; readonly validation: readonly TrainingRow[] };
  readonly cut: number;
  readonly dropped: number;
  readonly padId: number;
}

/** DATASET_EMPTY (66), DATASET_ROW, DATASET_JSON, CHAT_TEMPLATE (65). */
export function finetuneWindows(d: FinetuneData, tokenizer: Tokenizer): Windows {
  const rows: TrainingRow[] = [];
  for (const row of readRows(d.spec, d.template === undefined ? {} : { template: d.template })) {
    const encoded = encodeTrainingRow(row, tokenizer, { trainOn: d.trainOnInputs ? 'all' : 'completion' });
    checkWeights(encoded);
    rows.push(...(row.body.kind === 'text' ? pieces(encoded, d.seqlen) : [encoded]));
  }
  const kept = Math.min(rows.length - 1, d.validation >= 1 ? Math.floor(d.validation) : Math.ceil(d.validation * rows.length));
  const order = shuffled(rows.length, new Rng(d.seed).fork('validation'));
  const apart = new Set(order.slice(0, Math.max(0, kept)));
  const train = rows.filter((_, i) => !apart.has(i));
  const validation = rows.filter((_, i) => apart.has(i));
  const padId = tokenizer.special.eos ?? 0;
  const options = { seqlen: d.seqlen, padId, source: d.spec.file } as const;
  const packed = packRows(train, { ...options, mode: d.packing ? 'pack' : 'single' });
  const held = validation.length === 0 ? [] : packRows(validation, { ...options, mode: 'single' }).windows;
  return { train: packed.windows, validation: held, rows: { train, validation }, cut: packed.cut, dropped: packed.dropped, padId };
}

/** A long text is learnt in pieces; a prompt and its completion stay together. */
function pieces(row: TrainingRow, seqlen: number): TrainingRow[] {
  const out: TrainingRow[] = [];
  for (let at = 0; at === 0 || at < row.ids.length; at += seqlen) {
    out.push({ ids: row.ids.subarray(at, at + seqlen), train: row.train.subarray(at, at + seqlen), row: row.row });
  }
  return out;
}

function checkWeights({ train, row }: TrainingRow): void {
  const { weight, token_weights: tokens } = row.fields;
  const fail = (message: string): PithError => new PithError('DATASET_ROW', { file: row.file, place: row.place, message });
  const isWeight = (v: unknown): boolean => typeof v === 'number' && Number.isFinite(v) && v >= 0;
  if (weight !== undefined && !isWeight(weight)) throw fail('"weight" is no number from 0 on');
  if (tokens === undefined) return;
  const learnt = train.reduce((a, b) => a + b, 0);
  if (!Array.isArray(tokens) || !tokens.every(isWeight)) throw fail('"token_weights" is no list of numbers from 0 on');
  if (tokens.length !== learnt) throw fail(`"token_weights" has ${tokens.length} numbers for ${learnt} tokens that are learnt`);
}

/** A permutation of 0 .. n - 1 (Fisher and Yates). */
export function shuffled(n: number, rng: Rng): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = rng.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Windows of a step, from 1 on: all windows in a new order every epoch, one epoch after the other. */
export function stepWindows(step: number, count: number, perStep: number, seed: number): number[] {
  const out: number[] = [];
  let [epoch, order] = [-1, [] as number[]];
  for (let at = (step - 1) * perStep; at < step * perStep; at++) {
    const own = Math.floor(at / count);
    if (own !== epoch) order = shuffled(count, new Rng(seed).fork(`epoch ${own}`));
    epoch = own;
    out.push(order[at % count]!);
  }
  return out;
}

/** Windows as one batch. */
export function toBatch(windows: readonly PackedWindow[], rows: readonly TrainingRow[], padId: number): TrainBatch {
  const { shape, inputs, targets, segments, positions } = stackWindows(windows, padId);
  const weights = Float32Array.from(targets, (t) => (t >= 0 ? 1 : 0));
  for (const [w, window] of windows.entries()) {
    for (const [segment, index] of window.rows.entries()) weighRow(rows[index]!, window, segment, weights.subarray(w * shape[1], (w + 1) * shape[1]));
  }
  return { rows: shape[0], columns: shape[1], inputs, targets, segments, positions, weights };
}

function weighRow({ row, train }: TrainingRow, { segments, positions, targets }: PackedWindow, segment: number, out: Float32Array): void {
  const { weight, token_weights: tokens } = row.fields as { weight?: number; token_weights?: readonly number[] };
  if (weight === undefined && tokens === undefined) return;
  // place of every learnt token among those of the row
  let place = 0;
  const nth = Array.from(train, (t) => (t === 1 ? place++ : 0));
  for (let i = 0; i < targets.length; i++) {
    if (segments[i] !== segment || targets[i]! < 0) continue;
    out[i] = (weight ?? 1) * (tokens?.[nth[positions[i]! + 1]!] ?? 1);
  }
}
