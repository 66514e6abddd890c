/** The text that a model is calibrated on or probed with, as token ids. */
import { basename } from 'node:path';
import { Rng } from '../core/rng.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { readRows, type DatasetSpec } from '../formats/dataset/dataset.js';
import type { RowTemplate } from '../formats/dataset/template.js';
import * as io from '../formats/io.js';
import { hashFile } from '../formats/delta/side-files.js';
import { calibrationWindows } from '../models/windows/calibration.js';
import { joinRows } from '../models/windows/training.js';
import { loadTokenizer } from '../workers/load-tokenizer.js';

export interface CalibrationData {
  readonly sequences: readonly Int32Array[];
  /** Of the file that the text came from. */
  readonly name: string;
  readonly sha256: string;
}

export interface CalibrationText {
  readonly spec: DatasetSpec;
  readonly template?: RowTemplate;
  /** Windows that are drawn, and their tokens. */
  readonly nsamples: number;
  readonly seqlen: number;
  readonly seed: number;
}

/** Windows of the joined rows under the checkpoint's own tokenizer. DATASET_EMPTY (66), DATASET_SHORT, DATASET_JSON, DATASET_ROW (65); TOKENIZER_MISSING (66). */
export async function calibrationData(reader: CheckpointReader, { spec, template, nsamples, seqlen, seed }: CalibrationText): Promise<CalibrationData> {
  const tokenizer = await loadTokenizer(reader);
  const ids = tokenizer.encode(joinRows(readRows(spec, template === undefined ? {} : { template }), tokenizer));
  const sequences = calibrationWindows(ids, { nsamples, seqlen, rng: new Rng(seed), source: spec.file });
  return { sequences, name: basename(spec.file), sha256: await hashFile(spec.file, io.stat(spec.file)?.bytes ?? 0) };
}
