/** Rows of a stored table by number: only those that are asked for are read, in runs. */
import { PithError } from '../../core/errors.js';
import { decodeF32 } from '../../core/float.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { TableSpec } from '../../models/graph.js';

/** Values of a read. */
const RUN_VALUES = 1 << 20;
/** Unwanted rows between two wanted ones that are read along. */
const GAP = 16;

export class RowTable {
  readonly #place: ReadonlyMap<number, number>;

  constructor(
    readonly columns: number,
    /** Row numbers of `values`, in order. */
    ids: readonly number[],
    private readonly values: Float32Array,
  ) {
    this.#place = new Map(ids.map((id, i) => [id, i]));
  }

  /** (ids.length, columns) */
  pick(ids: Int32Array): Float32Array {
    const out = new Float32Array(ids.length * this.columns);
    ids.forEach((id, i) => {
      const place = this.#place.get(id);
      if (place === undefined) throw new PithError('INTERNAL', { message: `row ${id} of an embedding was not read` });
      out.set(this.values.subarray(place * this.columns, (place + 1) * this.columns), i * this.columns);
    });
    return out;
  }
}

/** TOKEN_RANGE (65) for an id that the table does not have: a tokenizer of another model. */
export async function gatherRows(reader: CheckpointReader, table: TableSpec, wanted: Int32Array): Promise<RowTable> {
  const ids = [...new Set(wanted)].sort((a, b) => a - b);
  const [least, most] = [ids[0] ?? 0, ids.at(-1) ?? 0];
  if (least < 0 || most >= table.rows) {
    throw new PithError('TOKEN_RANGE', { file: reader.source, tensor: table.name, expected: table.rows, got: least < 0 ? least : most });
  }
  const values = new Float32Array(ids.length * table.columns);
  for (let i = 0; i < ids.length;) {
    let j = i + 1;
    while (j < ids.length && ids[j]! - ids[j - 1]! <= GAP && (ids[j]! - ids[i]! + 1) * table.columns <= RUN_VALUES) j++;
    const { dtype, bytes } = await reader.read(table.name, [ids[i]!, ids[j - 1]! + 1]);
    const run = decodeF32(dtype, bytes);
    for (let k = i; k < j; k++) {
      const from = (ids[k]! - ids[i]!) * table.columns;
      values.set(run.subarray(from, from + table.columns), k * table.columns);
    }
    i = j;
  }
  return new RowTable(table.columns, ids, values);
}
