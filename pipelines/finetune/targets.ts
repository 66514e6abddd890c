/** Which linear layers get an adapter: `all-linear`, endings of paths, or an expression over the whole path, as peft selects. */
import { PithError } from '../../core/errors.js';
import { matchesWithin } from '../../formats/adapter/pattern.js';
import { nearest } from '../../methods/index.js';

/** The selected modules in their order. USAGE (64) when a name selects nothing: the nearest is named. */
export function selectTargets(wanted: string | readonly string[], modules: readonly string[], source: string): string[] {
  if (wanted === 'all-linear') return [...modules];
  const chosen = typeof wanted === 'string' ? byExpression(wanted, modules) : byName(wanted, modules, source);
  if (chosen.length > 0) return chosen;
  throw new PithError('USAGE', { message: `${source}: no linear layer matches the target "${wanted.toString()}"; the names are as "${modules[0] ?? ''}"` });
}

function byName(wanted: readonly string[], modules: readonly string[], source: string): string[] {
  const selects = (name: string, module: string): boolean => module === name || module.endsWith(`.${name}`);
  for (const name of wanted) {
    if (modules.some((m) => selects(name, m))) continue;
    const near = nearest(name, [...new Set(modules.map((m) => m.slice(m.lastIndexOf('.') + 1)))]);
    const hint = near === undefined ? '' : `; did you mean "${near}"?`;
    throw new PithError('USAGE', { message: `${source}: no linear layer matches the target "${name}"${hint}; the names are as "${modules[0] ?? ''}"` });
  }
  return modules.filter((m) => wanted.some((name) => selects(name, m)));
}

function byExpression(wanted: string, modules: readonly string[]): string[] {
  const expression = `^(?:${wanted})$`;
  if (matchesWithin(expression, modules[0] ?? '') === undefined) throw new PithError('USAGE', { message: `target "${wanted}": not a regular expression` });
  return modules.filter((m) => matchesWithin(expression, m) === true);
}
