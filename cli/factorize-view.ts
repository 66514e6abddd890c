/** What `pith factorize` prints. */
import { placeOf } from '../models/place.js';
import type { FactorizedLayer, FactorizeReport } from '../pipelines/factorize/report.js';
import { formatBytes, formatMs, formatShare } from './sizes.js';
import { table } from './table.js';

export function factorizeText(r: FactorizeReport, ms: number): string {
  const factored = r.layers.filter((l) => l.rank !== undefined).length;
  const size = `${formatBytes(r.bytes)}, ${formatShare(r.bytes / Math.max(1, r.rawBytes))} of ${formatBytes(r.rawBytes)}`;
  const head = r.plan === undefined ? `${r.out}: ${size} in ${formatMs(ms)}` : `would write ${size}, with at most ${formatBytes(r.plan.peakBytes)} of memory`;
  const lines = [
    head,
    `${factored} of ${r.layers.length} linear layers as factors by ${r.method}; ${formatShare(r.kept)} of their parameters, ${formatShare(r.parameters / Math.max(1, r.rawParameters))} of the model's`,
  ];
  if (r.source !== undefined) lines.push(`source  ${r.source}`);
  if (r.plan === undefined) lines.push(modulesTable(r.layers));
  const damped = r.layers.filter((l) => Object.keys(l.facts).length > 0);
  if (damped.length > 0) lines.push(`${damped.length} layers: ${factsOf(damped)}`);
  return lines.join('\n');
}

/** The largest value of every fact, and how many layers have it. */
function factsOf(layers: readonly FactorizedLayer[]): string {
  const names = [...new Set(layers.flatMap((l) => Object.keys(l.facts)))];
  return names
    .map((name) => {
      const values = layers.flatMap((l) => l.facts[name] ?? []);
      const numbers = values.filter((v) => typeof v === 'number');
      return numbers.length === 0 ? `${name} ${String(values[0])}` : `${name} up to ${Math.max(...numbers).toExponential(0)}`;
    })
    .join(', ');
}

/** One row a module, over all layers of the model. */
function modulesTable(layers: readonly FactorizedLayer[]): string {
  const groups = new Map<string, FactorizedLayer[]>();
  for (const l of layers) {
    const key = placeOf(`${l.name}.weight`).module;
    groups.set(key, [...(groups.get(key) ?? []), l]);
  }
  const output = layers.some((l) => l.outputError !== undefined);
  const mean = (of: readonly FactorizedLayer[], value: (l: FactorizedLayer) => number | undefined): string =>
    (of.reduce((sum, l) => sum + (value(l) ?? 0), 0) / of.length).toFixed(4);
  const rows = [...groups].map(([module, of]) => [
    module,
    of.length,
    `${of[0]!.m}x${of[0]!.n}`,
    ranksOf(of),
    formatShare(of.reduce((sum, l) => sum + l.kept * l.m * l.n, 0) / of.reduce((sum, l) => sum + l.m * l.n, 0)),
    mean(of, (l) => l.error),
    mean(of, (l) => l.weightError),
    ...(output ? [mean(of, (l) => l.outputError)] : []),
  ]);
  return table(['module', 'layers', 'shape', 'rank', 'kept', 'error', 'of weight', ...(output ? ['of output'] : [])], rows);
}

function ranksOf(of: readonly FactorizedLayer[]): string {
  const ranks = of.flatMap((l) => l.rank ?? []);
  if (ranks.length === 0) return 'whole';
  const [low, high] = [Math.min(...ranks), Math.max(...ranks)];
  return `${low === high ? low : `${low}-${high}`}${ranks.length < of.length ? ` (${of.length - ranks.length} whole)` : ''}`;
}
