/**
 * Training rows as windows of one length: each alone, or several packed into one. Packing is first-fit decreasing over the lengths (Krell et al.,
 * "Efficient Sequence Packing without Cross-contamination", arXiv 2107.02027); a token may attend only to tokens of its own segment before it,
 * positions begin again at 0 in each, and nothing is predicted across a boundary. So a packed row's loss is that of the row alone.
 */
import { PithError } from '../../core/errors.js';
import type { TrainingRow } from './training.js';
import { IGNORE, type TokenWindow } from './window.js';

export interface PackedWindow extends TokenWindow {
  /** (n) which row of the window a token belongs to, from 0; -1 for padding. */
  readonly segments: Int32Array;
  /** (n) place of a token in its own row; 0 for padding. */
  readonly positions: Int32Array;
  /** Index of each segment's row in the list that was packed. */
  readonly rows: readonly number[];
}

export interface PackOptions {
  /** Tokens in a window. */
  readonly seqlen: number;
  /** `pack`: rows share windows; `single`: each has its own, as short as it is. */
  readonly mode: 'pack' | 'single';
  /** What becomes of rows longer than a window: their first `seqlen` tokens (`cut`, the default), or nothing. */
  readonly overlong?: 'cut' | 'drop';
  /** Fills packed windows; attended by nothing. */
  readonly padId: number;
  readonly source: string;
}

export interface PackResult {
  readonly windows: readonly PackedWindow[];
  /** Rows that were cut, and rows left out because they were too long or hold no target. */
  readonly cut: number;
  readonly dropped: number;
}

/** DATASET_EMPTY (66) when no row has a token to learn. */
export function packRows(rows: readonly TrainingRow[], options: PackOptions): PackResult {
  const { seqlen, mode, overlong = 'cut', source } = options;
  const kept: { index: number; length: number }[] = [];
  let cut = 0;
  for (const [index, { ids, train }] of rows.entries()) {
    const length = Math.min(ids.length, seqlen);
    const long = ids.length > seqlen;
    // the first token of a row has nothing to be predicted from
    if ((long && overlong === 'drop') || !train.subarray(1, length).includes(1)) continue;
    if (long) cut++;
    kept.push({ index, length });
  }
  if (kept.length === 0) throw new PithError('DATASET_EMPTY', { file: source, message: `no row has a token to learn in its first ${seqlen}` });
  const groups = mode === 'single' ? kept.map((k) => [k]) : firstFitDecreasing(kept, seqlen);
  const windows = groups.map((group) => window(rows, group, mode === 'single' ? group[0]!.length : seqlen, options.padId));
  return { windows, cut, dropped: rows.length - kept.length };
}

interface Item {
  readonly index: number;
  readonly length: number;
}

/** Longest first, equals in order; each into the first group with room. A tree of the groups' room finds it in log time. */
function firstFitDecreasing(items: readonly Item[], room: number): Item[][] {
  const sorted = items.toSorted((a, b) => b.length - a.length || a.index - b.index);
  const leaves = 2 ** Math.ceil(Math.log2(Math.max(1, items.length)));
  // node n has children 2n and 2n + 1; leaf i is group i, empty ones have all their room
  const tree = new Int32Array(2 * leaves).fill(room);
  const groups: Item[][] = [];
  for (const item of sorted) {
    let node = 1;
    while (node < leaves) node = tree[2 * node]! >= item.length ? 2 * node : 2 * node + 1;
    (groups[node - leaves] ??= []).push(item);
    tree[node]! -= item.length;
    for (node >>= 1; node >= 1; node >>= 1) tree[node] = Math.max(tree[2 * node]!, tree[2 * node + 1]!);
  }
  return groups;
}

function window(rows: readonly TrainingRow[], group: readonly Item[], length: number, padId: number): PackedWindow {
  const inputs = new Int32Array(length).fill(padId);
  const targets = new Int32Array(length).fill(IGNORE);
  const segments = new Int32Array(length).fill(-1);
  const positions = new Int32Array(length);
  let at = 0;
  for (const [segment, item] of group.entries()) {
    const { ids, train } = rows[item.index]!;
    for (let i = 0; i < item.length; i++) {
      inputs[at + i] = ids[i]!;
      segments[at + i] = segment;
      positions[at + i] = i;
      if (i + 1 < item.length && train[i + 1] === 1) targets[at + i] = ids[i + 1]!;
    }
    at += item.length;
  }
  return { inputs, targets, segments, positions, rows: group.map((i) => i.index) };
}

/** Windows of any lengths as one batch, row after row: each array is (rows, columns), padded at the end. */
export function stackWindows(
  windows: readonly PackedWindow[],
  padId: number,
): Omit<PackedWindow, 'rows'> & { readonly shape: readonly [rows: number, columns: number] } {
  const columns = Math.max(...windows.map((w) => w.inputs.length));
  const stack = (part: 'inputs' | 'targets' | 'segments' | 'positions', fill: number): Int32Array => {
    const out = new Int32Array(windows.length * columns).fill(fill);
    for (const [i, w] of windows.entries()) out.set(w[part], i * columns);
    return out;
  };
  return {
    shape: [windows.length, columns],
    inputs: stack('inputs', padId),
    targets: stack('targets', IGNORE),
    segments: stack('segments', -1),
    positions: stack('positions', 0),
  };
}
