/** `--config FILE`: flags from a YAML file; what the command line gives wins. */
import type { Command } from '@oclif/core';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { PithError } from '../core/errors.js';
import { nearest } from '../methods/index.js';

type FlagTable = Readonly<Record<string, Command.Flag.Any>>;

/** A command's own spelling of its config. */
export interface ConfigForm {
  /** Keys that mean something else than the flag of their name -> flags. */
  readonly translate?: (config: Record<string, unknown>, file: string) => Record<string, unknown>;
  readonly keys?: readonly string[];
}

/** argv with the file's flags before it, `--config` itself taken out. NOT_FOUND, or USAGE for a file that is no map of this command's flags. */
export function withConfig(argv: readonly string[], flags: FlagTable, { translate, keys = [] }: ConfigForm = {}): string[] {
  const at = argv.findIndex((a) => a === '--config' || a.startsWith('--config='));
  if (at < 0) return [...argv];
  const inline = argv[at]!.startsWith('--config=');
  const file = inline ? argv[at]!.slice('--config='.length) : argv[at + 1];
  if (file === undefined || file === '') throw new PithError('USAGE', { message: '--config: a file is missing' });
  const rest = [...argv.slice(0, at), ...argv.slice(at + (inline ? 1 : 2))];
  const given = new Set(Object.keys(flags).filter((name) => isGiven(rest, name, flags[name]!)));
  const out: string[] = [];
  const read = readConfig(file);
  for (const [key, value] of Object.entries(translate?.(read, file) ?? read)) {
    const name = key.replaceAll('_', '-');
    const flag = flags[name];
    if (flag === undefined) {
      const near = nearest(key, [...keys, ...Object.keys(flags)]);
      const hint = near === undefined ? '' : `; did you mean "${near}"?`;
      throw new PithError('USAGE', { message: `${file}: unknown key "${key}"${hint}; the keys are ${Object.keys(flags).sort().join(', ')}` });
    }
    // a flag that excludes this one replaces it
    const replaced = given.has(name) || (flag.exclusive ?? []).some((other) => typeof other === 'string' && given.has(other));
    if (!replaced) out.push(...tokens(name, value, flag, file));
  }
  return [...out, ...rest];
}

function isGiven(argv: readonly string[], name: string, flag: Command.Flag.Any): boolean {
  const end = argv.indexOf('--');
  const spellings = [`--${name}`, `--no-${name}`, ...(flag.char === undefined ? [] : [`-${flag.char}`])];
  return (end < 0 ? argv : argv.slice(0, end)).some((a) => spellings.some((s) => a === s || a.startsWith(`${s}=`)));
}

function readConfig(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new PithError('NOT_FOUND', { file }, { cause });
  }
  let value: unknown;
  try {
    value = parse(text);
  } catch (cause) {
    throw new PithError('USAGE', { message: `${file}: ${(cause as Error).message.split('\n')[0]!}` }, { cause });
  }
  if (value === null || value === undefined) return {};
  if (typeof value !== 'object' || Array.isArray(value)) throw new PithError('USAGE', { message: `${file}: expected a map of flags` });
  return value as Record<string, unknown>;
}

/** `set` may be a map; flags that repeat may be lists. */
function tokens(name: string, value: unknown, flag: Command.Flag.Any, file: string): string[] {
  const wrong = (expected: string): PithError => new PithError('USAGE', { message: `${file}: ${name}: expected ${expected}, got ${JSON.stringify(value)}` });
  if (flag.type === 'boolean') {
    if (typeof value !== 'boolean') throw wrong('true or false');
    if (value) return [`--${name}`];
    return flag.allowNo ? [`--no-${name}`] : [];
  }
  if (name === 'set' && typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([k, v]) => ['--set', `${k}=${typeof v === 'string' ? v : JSON.stringify(v)}`]);
  }
  const list = Array.isArray(value) ? (value as unknown[]) : [value];
  if (list.length !== 1 && flag.multiple !== true) throw wrong('one value');
  return list.flatMap((v) => {
    if (typeof v !== 'string' && typeof v !== 'number') throw wrong('a string or a number');
    return [`--${name}=${v}`];
  });
}
