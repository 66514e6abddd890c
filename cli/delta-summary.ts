/** What `delta squash` and `delta rebase` say of the file they made. */
import type { EncodeReport } from '../pipelines/delta-encode.js';
import { formatBytes, formatMs, formatShare } from './sizes.js';

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
