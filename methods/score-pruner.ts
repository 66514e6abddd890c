/** Pruners that rank weights by a score and leave the kept ones as they are: all but the score is shared. */
import { applyMask, MAGNITUDE, Selector, sortable, WHOLE } from '../kernels/sparse/select.js';
import { tailOf } from '../kernels/sparse/sparsity.js';
import { wordsOf } from '../kernels/sparse/top-k.js';
import type { Ctx } from './define.js';
import type { LayerStat, LayerStats, LayerWeight, Pruned, Pruner, Sparsity } from './kinds.js';
import { requireFinite, requireTarget } from './layer-input.js';

/** Fills `out` with the scores of one row; larger is kept. */
export type RowScores = (row: number, out: Float32Array) => void;

export interface Score {
  readonly name: string;
  readonly needs: readonly LayerStat[];
  readonly group: 'layer' | 'row';
  readonly base?: true;
  /** Scores of both signs; otherwise all are at least +0. */
  readonly signed?: true;
  rows(c: Ctx, layer: LayerWeight, stats: LayerStats): RowScores;
}

/** Rows between two looks at whether the user has cancelled. */
const ROWS = 256;

export class ScorePruner implements Pruner {
  readonly needs: readonly LayerStat[];
  readonly updates = false;
  readonly group: 'layer' | 'row';
  readonly base?: true;

  constructor(private readonly score: Score) {
    this.needs = score.needs;
    this.group = score.group;
    if (score.base) this.base = true;
  }

  /** The mask, and the scores where the whole layer is compared. */
  memoryBytes(m: number, n: number): number {
    return 5 * m * n + 8 * n + (1 << 16);
  }

  scores(c: Ctx, layer: LayerWeight, stats: LayerStats): Float32Array {
    const { m, n } = layer;
    const out = new Float32Array(m * n);
    const fill = this.score.rows(c, layer, stats);
    for (let i = 0; i < m; i++) {
      if (i % ROWS === 0) c.checkpointCancel();
      fill(i, out.subarray(i * n, (i + 1) * n));
    }
    return out;
  }

  async prune(c: Ctx, layer: LayerWeight, stats: LayerStats, target: Sparsity): Promise<Pruned> {
    requireTarget(this.score.name, target);
    requireFinite(layer, 'weight', layer.w);
    const { m, n, w } = layer;
    const mask = new Uint8Array(m * n);
    const selector = new Selector(this.score.signed ? WHOLE : MAGNITUDE);
    const words = (x: Float32Array): Uint32Array => (this.score.signed ? sortable(x) : wordsOf(x));
    if (target.group === 'layer') selector.select(words(this.scores(c, layer, stats)), m, n, target, mask);
    else {
      const row = new Float32Array(n);
      const fill = this.score.rows(c, layer, stats);
      for (let i = 0; i < m; i++) {
        if (i % ROWS === 0) c.checkpointCancel();
        fill(i, row);
        selector.selectRow(words(row), 0, n, target, mask, i * n);
      }
    }
    applyMask(w, mask);
    const tail = tailOf(target, n);
    return { w, mask, facts: tail === 0 ? {} : { denseTail: tail } };
  }
}
