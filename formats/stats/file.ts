/** An open statistics file: what calibration saw at the input of every linear layer, by module. */
import type * as z from 'zod';
import { PithError } from '../../core/errors.js';
import { decodeF32 } from '../../core/float.js';
import { sameShape } from '../../core/shape.js';
import { SafetensorsFile } from '../safetensors/file.js';
import {
  INPUT_STATISTICS,
  STATISTIC_FLAGS,
  statName,
  STATISTICS,
  statsFields,
  STATS_VERSION,
  type ModuleSides,
  type Statistic,
  statInfo,
  type StatsManifest,
} from './schema.js';

type Values = Exclude<Statistic, 'tokens'>;

export class StatsFile implements Disposable {
  private constructor(
    readonly file: SafetensorsFile,
    readonly manifest: StatsManifest,
    /** Every module that has a statistic, under its own name or another's. */
    readonly modules: ReadonlySet<string>,
  ) {}

  /** NOT_STATS, STATS_VERSION, STATS_MALFORMED (65), or what is wrong with the safetensors file. Reads the header and nothing else. */
  static open(path: string): StatsFile {
    const file = SafetensorsFile.open(path);
    try {
      const manifest = readManifest(Object.fromEntries(file.metadata ?? []), path);
      return new StatsFile(file, manifest, modulesOf(file, manifest));
    } catch (error) {
      file.close();
      throw error;
    }
  }

  get path(): string {
    return this.file.path;
  }

  /** STATS_MODEL (65) when the statistics are of another checkpoint. */
  requireModel(contentHash: string): void {
    const { model } = this.manifest;
    if (model.contentHash === contentHash) return;
    throw new PithError('STATS_MODEL', { file: this.path, model: model.name, expected: contentHash, got: model.contentHash });
  }

  /** The tensor that holds a statistic of a module. */
  #tensor(module: string, statistic: Statistic): string {
    const { alias } = this.manifest;
    const owner = (INPUT_STATISTICS as readonly Statistic[]).includes(statistic) && Object.hasOwn(alias, module) ? alias[module]! : module;
    return statName(owner, statistic);
  }

  has(module: string, statistic: Statistic): boolean {
    return this.file.entries.has(this.#tensor(module, statistic));
  }

  /** STATS_MISSING (65) names the first of them that is not there; SHAPE_MISMATCH one that is of a module with other sides. */
  require(module: string, statistics: readonly Statistic[], sides: ModuleSides): void {
    for (const s of statistics) {
      const info = this.#entry(module, s).info;
      const wanted = statInfo(module, s, sides);
      if (info.dtype === wanted.dtype && sameShape(info.shape, wanted.shape)) continue;
      const show = (t: { dtype: string; shape: readonly number[] }): string => `${t.dtype} [${t.shape.join(', ')}]`;
      throw new PithError('SHAPE_MISMATCH', { file: this.path, tensor: info.name, expected: show(wanted), got: show(info) });
    }
  }

  #entry(module: string, statistic: Statistic): ReturnType<SafetensorsFile['entry']> {
    const entry = this.file.entries.get(this.#tensor(module, statistic));
    if (entry === undefined) throw new PithError('STATS_MISSING', { file: this.path, statistic, module, flag: STATISTIC_FLAGS[statistic] });
    return entry;
  }

  /** Values of a statistic, or rows [start, end) of a matrix; STATS_MISSING (65). */
  read(module: string, statistic: Values, rows?: readonly [start: number, end: number]): Float32Array {
    const { name } = this.#entry(module, statistic).info;
    const { dtype, bytes } = this.file.read(name, rows);
    return decodeF32(dtype, bytes);
  }

  /** Tokens that the module's input statistics were taken over. */
  tokens(module: string): number {
    const { bytes } = this.file.read(this.#entry(module, 'tokens').info.name);
    return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true));
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}

function modulesOf(file: SafetensorsFile, manifest: StatsManifest): Set<string> {
  const modules = new Set<string>();
  for (const [name, { info }] of file.entries) {
    const statistic = STATISTICS.find((s) => name.endsWith(`.${s}`));
    const dtype = statistic === 'tokens' ? 'I64' : 'F32';
    if (statistic === undefined) throw new PithError('STATS_MALFORMED', { file: file.path, message: `tensor "${name}" is no statistic` });
    if (info.dtype !== dtype) throw new PithError('STATS_MALFORMED', { file: file.path, message: `tensor "${name}": expected ${dtype}, got ${info.dtype}` });
    modules.add(name.slice(0, -statistic.length - 1));
  }
  for (const [module, owner] of Object.entries(manifest.alias)) {
    if (!modules.has(owner)) throw new PithError('STATS_MALFORMED', { file: file.path, message: `alias of "${module}": nothing is stored of "${owner}"` });
    modules.add(module);
  }
  return modules;
}

function readManifest(metadata: Readonly<Record<string, string>>, file: string): StatsManifest {
  const format = metadata['pith.format'] ?? 'none';
  if (format !== 'statistics') throw new PithError('NOT_STATS', { file, message: `expected metadata pith.format "statistics", got "${format}"` });
  const version = Number(metadata['pith.version']);
  if (!Number.isInteger(version) || version < 1) throw new PithError('STATS_MALFORMED', { file, message: 'metadata "pith.version" is not a number' });
  if (version > STATS_VERSION) throw new PithError('STATS_VERSION', { file, expected: STATS_VERSION, got: version });
  const field = <K extends keyof typeof statsFields>(key: K): z.infer<(typeof statsFields)[K]> => {
    const parsed = statsFields[key].safeParse(parseJson(metadata[key], key, file));
    if (parsed.success) return parsed.data as z.infer<(typeof statsFields)[K]>;
    const issue = parsed.error.issues[0];
    throw new PithError('STATS_MALFORMED', { file, message: `metadata "${key}" at ${issue?.path.join('.') ?? '?'}: ${issue?.message ?? '?'}` });
  };
  return {
    version,
    generator: metadata['generator'] ?? '',
    model: field('model'),
    dataset: field('dataset'),
    nsamples: field('nsamples'),
    seqlen: field('seqlen'),
    seed: field('seed'),
    tokens: field('tokens'),
    tokensHash: field('tokensHash'),
    alias: field('alias'),
  };
}

function parseJson(text: string | undefined, key: string, file: string): unknown {
  if (text === undefined) throw new PithError('STATS_MALFORMED', { file, message: `metadata "${key}" is missing` });
  try {
    return JSON.parse(text);
  } catch {
    throw new PithError('STATS_MALFORMED', { file, message: `metadata "${key}" is not JSON` });
  }
}
