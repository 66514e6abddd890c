/**
 * Checkpoints with two linear layers in place of one: `docs/formats/factorized.md` is the normative text. Names are those of ASVD's releases
 * (hahnyuan/ASVD4LLM, huggingface_repos): y = ALinear(BLinear(x)), the bias at ALinear.
 */
import * as z from 'zod';
import { PithError } from '../core/errors.js';
import { isFloat } from '../core/float.js';
import type { TensorInfo } from '../core/tensor.js';

export const FACTORIZED_VERSION = 1;
/** Key of the section in config.json, and of the same JSON in the files' metadata. */
export const SECTION_KEY = 'pith_factorized';
export const METADATA_KEY = 'pith.factorized';
/** Key of config.json that ASVD's model code reads the ranks from. */
export const RANKS_KEY = 'truncation_ranks';

const sectionSchema = z.object({
  version: z.int().positive(),
  method: z.string(),
  params: z.record(z.string(), z.unknown()).default({}),
  /** Content hash of the checkpoint that was factorized. */
  source: z.string().optional(),
  /** By module. */
  ranks: z.record(z.string(), z.int().positive()),
  /** Modules whose dense weight is stored as (in, out). */
  transposed: z.array(z.string()).default([]),
});
export type FactorizedSection = z.infer<typeof sectionSchema>;

/** Names of the stored tensors of a module. */
export const factorNames = (module: string): { readonly a: string; readonly b: string; readonly bias: string } => ({
  a: `${module}.ALinear.weight`,
  b: `${module}.BLinear.weight`,
  bias: `${module}.ALinear.bias`,
});

export interface FactoredWeight {
  /** As it is read: name, shape and type of the dense weight. */
  readonly info: TensorInfo;
  readonly module: string;
  readonly rank: number;
  /** ALinear (out, rank) and BLinear (rank, in). */
  readonly a: TensorInfo;
  readonly b: TensorInfo;
  /** The dense weight is (in, out): B^T A^T. */
  readonly transposed: boolean;
}

const A_NAME = /^(.+)\.ALinear\.weight$/;

export function isFactorized(infos: ReadonlyMap<string, TensorInfo>): boolean {
  for (const name of infos.keys()) if (A_NAME.test(name)) return true;
  return false;
}

/** What the metadata of a file says; ASVD's releases say nothing there. FACTORIZED_MALFORMED (65). */
export function readSection(metadata: Readonly<Record<string, string>>, file: string): FactorizedSection | undefined {
  const text = metadata[METADATA_KEY];
  if (text === undefined) return undefined;
  const bad = (message: string): PithError => new PithError('FACTORIZED_MALFORMED', { file, message: `metadata "${METADATA_KEY}": ${message}` });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw bad('it is not JSON');
  }
  const parsed = sectionSchema.safeParse(value);
  if (!parsed.success) throw bad(`${parsed.error.issues[0]?.path.join('.') ?? ''}: ${parsed.error.issues[0]?.message ?? ''}`);
  if (parsed.data.version > FACTORIZED_VERSION) throw bad(`a later version: expected at most ${FACTORIZED_VERSION}, got ${parsed.data.version}`);
  return parsed.data;
}

export interface DenseView {
  readonly weights: ReadonlyMap<string, FactoredWeight>;
  /** Dense name -> stored name, of biases. */
  readonly renamed: ReadonlyMap<string, string>;
  /** All tensors as a dense model has them, in the order in which they are stored. */
  readonly infos: ReadonlyMap<string, TensorInfo>;
}

/** FACTORIZED_MALFORMED (65) names the first module whose tensors do not fit. */
export function denseView(stored: ReadonlyMap<string, TensorInfo>, section: FactorizedSection | undefined, file: string): DenseView {
  const weights = new Map<string, FactoredWeight>();
  const renamed = new Map<string, string>();
  const infos = new Map<string, TensorInfo>();
  const put = (info: TensorInfo): void => {
    if (infos.has(info.name)) throw new PithError('FACTORIZED_MALFORMED', { file, message: `"${info.name}" is there twice, whole and as factors` });
    infos.set(info.name, info);
  };
  const transposed = new Set(section?.transposed);
  for (const info of stored.values()) {
    const [, module, part] = /^(.+)\.([AB]Linear\.(?:weight|bias))$/.exec(info.name) ?? [];
    if (module === undefined) put(info);
    else if (part === 'ALinear.weight') {
      const weight = factoredWeight(module, info, stored, transposed.has(module), file);
      weights.set(weight.info.name, weight);
      put(weight.info);
    } else if (part === 'ALinear.bias') {
      renamed.set(`${module}.bias`, info.name);
      put({ ...info, name: `${module}.bias` });
    } else if (part !== 'BLinear.weight' || !stored.has(factorNames(module).a)) {
      throw new PithError('FACTORIZED_MALFORMED', { file, message: `"${info.name}" belongs to no factored layer` });
    }
  }
  checkRanks(weights, section, file);
  return { weights, renamed, infos };
}

function factoredWeight(module: string, a: TensorInfo, stored: ReadonlyMap<string, TensorInfo>, transposed: boolean, file: string): FactoredWeight {
  const b = stored.get(factorNames(module).b);
  const bad = (message: string): PithError => new PithError('FACTORIZED_MALFORMED', { file, message });
  if (b === undefined) throw bad(`"${a.name}" has no "${factorNames(module).b}"`);
  const show = (t: TensorInfo): string => `${t.dtype} [${t.shape.join(', ')}]`;
  if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[1] !== b.shape[0]) throw bad(`"${a.name}" ${show(a)} times "${b.name}" ${show(b)} is no product`);
  if (!isFloat(a.dtype) || a.dtype !== b.dtype) throw bad(`"${a.name}" ${show(a)} and "${b.name}" ${show(b)}: expected floats of one type`);
  const [out, rank] = a.shape as [number, number];
  const input = b.shape[1]!;
  return { info: { name: `${module}.weight`, dtype: a.dtype, shape: transposed ? [input, out] : [out, input] }, module, rank, a, b, transposed };
}

function checkRanks(weights: ReadonlyMap<string, FactoredWeight>, section: FactorizedSection | undefined, file: string): void {
  for (const [module, rank] of Object.entries(section?.ranks ?? {})) {
    const got = weights.get(`${module}.weight`)?.rank;
    if (got === rank) continue;
    throw new PithError('FACTORIZED_MALFORMED', { file, message: `"${module}" has rank ${rank} by its metadata, ${got ?? 'no factors'} in the file` });
  }
}
