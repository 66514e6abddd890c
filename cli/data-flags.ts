/** Flags of commands that read text data. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import { parseDatasetSpec, type DatasetSpec } from '../formats/dataset/dataset.js';
import { parseRowTemplate, type RowTemplate } from '../formats/dataset/template.js';

export const dataFlags = {
  rows: Flags.string({ description: 'only these rows of the data, counted from 0, END left out; FILE[BEGIN:END] says the same', helpValue: 'BEGIN:END' }),
  template: Flags.string({ description: "a row's text, as 'Question: {question}\\nAnswer: {answer}\\n'", helpValue: 'TEXT' }),
};

/** USAGE (64) when both the file's name and --rows give a range. */
export function datasetSpec(file: string, rows: string | undefined): DatasetSpec {
  const spec = parseDatasetSpec(file);
  if (rows === undefined) return spec;
  if (spec.rows !== undefined) throw new PithError('USAGE', { message: `--rows ${rows}: "${file}" has a range already` });
  return parseDatasetSpec(`${file}[${rows}]`);
}

export const rowTemplate = (text: string | undefined): { template?: RowTemplate } => (text === undefined ? {} : { template: parseRowTemplate(text) });
