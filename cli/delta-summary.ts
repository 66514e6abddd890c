/** What the commands that write deltas say of the file they made. */
import type { EncodeReport } from '../pipelines/delta-encode.js';
import { formatBytes, formatMs, formatShare } from './sizes.js';
import { table } from './table.js';

export function deltaSummary(r: EncodeReport, ms: number): string {
  if (r.plan !== undefined) {
    return `would write about ${formatBytes(r.plan.bytes)} from ${formatBytes(r.rawBytes)} in about ${formatMs(r.plan.ms)}, peak memory about ${formatBytes(r.plan.peakBytes)}`;
  }
  const same = r.tensors.filter((t) => t.method === 'identical').length;
  const lines = [`${r.out}: ${formatBytes(r.bytes)}, ${formatShare(r.ratio)} of ${formatBytes(r.rawBytes)} in ${formatMs(ms)}`];
  if (r.layers !== undefined) lines.push(layersLine(r.layers, r.rawBytes));
  lines.push(`${r.tensors.length} tensors (${same} identical to the base), ${r.sideFiles.length} side files`);
  if (r.error !== undefined) lines.push(`|restored - tuned| / |tuned - base| = ${r.error.toPrecision(4)}${r.layers === undefined ? '' : ' (lossy layer)'}`);
  if (r.sensitivity !== undefined) lines.push(sensitivityTable(r.sensitivity));
  if (r.baseHash !== undefined) lines.push(`base   ${r.baseHash}`);
  lines.push(`tuned  ${r.tunedHash ?? ''}`);
  return lines.join('\n');
}

/** The two layers of a file and their sizes. */
export function layersLine({ lossy, exact }: { readonly lossy: number; readonly exact: number }, rawBytes: number): string {
  const size = (bytes: number): string => `${formatBytes(bytes)} (${formatShare(rawBytes === 0 ? 0 : bytes / rawBytes)})`;
  return `layers  lossy ${size(lossy)}, exact ${size(exact)}`;
}

/** The groups whose errors cost most. */
const SHOWN_GROUPS = 6;

export function sensitivityTable({ groups, tried, power }: NonNullable<EncodeReport['sensitivity']>): string {
  const how = (t: { readonly power: number }): string => (t.power === 0 ? 'by errors alone' : `by weights^${t.power}`);
  const shares = tried.map((t) => `${t.kld.toPrecision(3)} ${how(t)}${t.power === power ? ' (kept)' : ''}`).join(', ');
  const rows = groups.slice(0, SHOWN_GROUPS).map((g) => [g.group, String(g.tensors), g.kld.toExponential(2), g.weight.toFixed(2)]);
  return `measured on the data (KLD of one group alone, what a squared error in it counts for):\n${table(['group', 'tensors', 'KLD', 'weight'], rows)}\nKLD of the whole, bytes shared ${shares}`;
}
