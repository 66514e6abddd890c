/** What the commands that write deltas say of the file they made. */
import type { EncodeReport } from '../pipelines/delta-encode.js';
import { formatBytes, formatMs, formatShare } from './sizes.js';
import { table } from './table.js';

export function deltaSummary(r: EncodeReport, ms: number): string {
  if (r.plan !== undefined) {
    return `would write about ${formatBytes(r.plan.bytes)} from ${formatBytes(r.rawBytes)} in about ${formatMs(r.plan.ms)}, peak memory about ${formatBytes(r.plan.peakBytes)}`;
  }
  const same = r.tensors.filter((t) => t.method === 'identical').length;
  return [
    `${r.out}: ${formatBytes(r.bytes)}, ${formatShare(r.ratio)} of ${formatBytes(r.rawBytes)} in ${formatMs(ms)}`,
    `${r.tensors.length} tensors (${same} identical to the base), ${r.sideFiles.length} side files`,
    `base   ${r.baseHash ?? ''}`,
    `tuned  ${r.tunedHash ?? ''}`,
  ].join('\n');
}

/** The groups whose errors cost most. */
const SHOWN_GROUPS = 6;

export function sensitivityTable(groups: NonNullable<EncodeReport['sensitivity']>): string {
  const rows = groups.slice(0, SHOWN_GROUPS).map((g) => [g.group, String(g.tensors), g.kld.toExponential(2), g.weight.toFixed(2)]);
  return `measured on the data (KLD of one group alone, what a squared error in it counts for):\n${table(['group', 'tensors', 'KLD', 'weight'], rows)}`;
}
