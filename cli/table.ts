/** Plain aligned tables; numbers to the right. */
import { printable } from '../core/errors.js';

export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [head, ...rows].map((row) => row.map((c) => printable(String(c))));
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  const right = head.map((_, i) => rows.length > 0 && rows.every((row) => /^[-\d.,]+( ?(%|B|kB|MB|GB|ms|s))?$|^$|^-$/.test(String(row[i]))));
  const line = (row: readonly string[]): string =>
    row
      .map((c, i) => (right[i] ? c.padStart(widths[i]!) : c.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(cells[0]!), widths.map((w) => '-'.repeat(w)).join('  '), ...cells.slice(1).map(line)].join('\n');
}
