/** What `pith prune` prints. */
import { placeOf } from '../models/place.js';
import type { PrunedTensor, PruneReport } from '../pipelines/prune/report.js';
import { formatBytes, formatMs, formatShare } from './sizes.js';
import { table } from './table.js';

export const ERRORS_OF = {
  output: 'error of the output, |X (What - W)^T| / |X W^T|',
  diagonal: 'error of the output in its diagonal form (square norms of the inputs alone), not the whole of it',
  weight: 'error of the weight, |What - W| / |W|',
} as const;

export function pruneText(r: PruneReport, ms: number): string {
  const { plan, update, target } = r;
  const method = `${r.method}${update === undefined ? '' : ` + ${update} update`}, ${r.structure}, statistics: ${r.mode}`;
  if (plan !== undefined) {
    const share = target === undefined ? '' : ` with ${formatShare(target)} zeros in ${r.layers} layers`;
    const beside = `with at most ${formatBytes(plan.peakBytes)} of memory and ${formatBytes(plan.spoolBytes)} of disk beside it`;
    return `would write ${formatBytes(plan.bytes)}${share}, ${beside}\n${method}`;
  }
  const lines = [`${r.out}: ${formatBytes(r.bytes)} in ${formatMs(ms)}`, `${r.layers} linear layers, ${formatShare(r.sparsity)} zeros: ${method}`];
  if (r.mask !== undefined) lines.push(`masks   ${r.mask}`);
  if (r.source !== undefined) lines.push(`source  ${r.source}`);
  lines.push(modulesTable(r.tensors));
  const kinds = [...new Set(r.tensors.map((t) => t.errorOf))];
  return [...lines, ...kinds.map((k) => ERRORS_OF[k]), ...factLines(r.tensors)].join('\n');
}

/** One row a module, over all layers of the model. */
function modulesTable(tensors: readonly PrunedTensor[]): string {
  const groups = new Map<string, PrunedTensor[]>();
  for (const t of tensors) {
    const key = placeOf(t.name).module;
    groups.set(key, [...(groups.get(key) ?? []), t]);
  }
  const rows = [...groups].map(([module, of]) => {
    const values = of.reduce((sum, t) => sum + t.m * t.n, 0);
    const sparsity = of.reduce((sum, t) => sum + t.sparsity * t.m * t.n, 0) / Math.max(1, values);
    const errors = of.map((t) => t.error);
    const mean = errors.reduce((a, b) => a + b, 0) / errors.length;
    const ms = of.reduce((sum, t) => sum + t.ms, 0);
    return [module, of.length, `${of[0]!.m}x${of[0]!.n}`, formatShare(sparsity), mean.toFixed(4), Math.max(...errors).toFixed(4), formatMs(ms)];
  });
  return table(['module', 'layers', 'shape', 'zeros', 'error', 'worst', 'time'], rows);
}

/** Of every fact in how many layers, and its largest value. */
function factLines(tensors: readonly PrunedTensor[]): string[] {
  const names = [...new Set(tensors.flatMap((t) => Object.keys(t.facts)))];
  return names.map((name) => {
    const values = tensors.flatMap((t) => t.facts[name] ?? []);
    const numbers = values.filter((v) => typeof v === 'number');
    const value = numbers.length === 0 ? String(values[0]) : `up to ${Number(Math.max(...numbers).toPrecision(4))}`;
    return `${name} ${value} in ${values.length} layers`;
  });
}
