/** The registry: name -> file. A new method adds its file and one line here. */
import type { Kind, Method } from './define.js';
import type { WeightAdapter } from './adapter-kind.js';
import type { DeltaCodec, Factorizer, Pruner, Quantizer } from './kinds.js';
import type { Recipe } from './recipe-kind.js';
import { PithError } from '../core/errors.js';

interface Impls {
  delta: DeltaCodec;
  prune: Pruner;
  factor: Factorizer;
  quant: Quantizer;
  adapter: WeightAdapter;
  recipe: Recipe;
}
type Loader<K extends Kind> = () => Promise<{ default: Method<K, Impls[K]> }>;

const METHODS: { readonly [K in Kind]: Readonly<Record<string, Loader<K>>> } = {
  delta: {
    lossless: () => import('./delta/lossless.js'),
    ere: () => import('./delta/ere.js'),
    ecsq: () => import('./delta/ecsq.js'),
    'lowrank-ecsq': () => import('./delta/lowrank-ecsq.js'),
    bitdelta: () => import('./delta/bitdelta.js'),
    int: () => import('./delta/int.js'),
    sparse: () => import('./delta/sparse.js'),
    'delta-come': () => import('./delta/delta-come.js'),
    pruned: () => import('./delta/pruned.js'),
  },
  prune: {
    magnitude: () => import('./prune/magnitude.js'),
    wanda: () => import('./prune/wanda.js'),
    sparsegpt: () => import('./prune/sparsegpt.js'),
    admm: () => import('./prune/admm.js'),
    alps: () => import('./prune/alps.js'),
    'movement-proxy': () => import('./prune/movement-proxy.js'),
    random: () => import('./prune/random.js'),
  },
  factor: {
    svd: () => import('./factor/svd.js'),
    fwsvd: () => import('./factor/fwsvd.js'),
    asvd: () => import('./factor/asvd.js'),
    'svd-llm': () => import('./factor/svd-llm.js'),
    gfwsvd: () => import('./factor/gfwsvd.js'),
  },
  quant: {
    rtn: () => import('./quant/rtn.js'),
    nf4: () => import('./quant/nf4.js'),
    fp8: () => import('./quant/fp8.js'),
    hqq: () => import('./quant/hqq.js'),
    gptq: () => import('./quant/gptq.js'),
    awq: () => import('./quant/awq.js'),
    owq: () => import('./quant/owq.js'),
    adpq: () => import('./quant/adpq.js'),
    pqi: () => import('./quant/pqi.js'),
  },
  adapter: {
    lora: () => import('./adapter/lora.js'),
    rslora: () => import('./adapter/rslora.js'),
    'lora-plus': () => import('./adapter/lora-plus.js'),
    dora: () => import('./adapter/dora.js'),
    ia3: () => import('./adapter/ia3.js'),
    bitfit: () => import('./adapter/bitfit.js'),
    full: () => import('./adapter/full.js'),
  },
  recipe: { sft: () => import('./recipe/sft.js') },
};

export const KINDS = Object.keys(METHODS) as readonly Kind[];

export function methodNames(kind: Kind): readonly string[] {
  return Object.keys(METHODS[kind]);
}

/** Every method's own statement, in registry order. Loads all files: for listings, not for work. */
export async function listMethods(kind?: Kind): Promise<Method<Kind, unknown>[]> {
  const kinds = kind === undefined ? KINDS : [kind];
  const loaders = kinds.flatMap((k) => Object.values<Loader<Kind>>(METHODS[k]));
  return Promise.all(loaders.map(async (load) => (await load()).default));
}

/** UNKNOWN_METHOD (exit 64) names the nearest known one. */
export async function loadMethod<K extends Kind>(kind: K, name: string): Promise<Method<K, Impls[K]>> {
  const table = METHODS[kind];
  const load = Object.hasOwn(table, name) ? table[name] : undefined;
  if (load === undefined) {
    const near = nearest(name, Object.keys(table));
    throw new PithError('UNKNOWN_METHOD', { kind, method: name, hint: near === undefined ? '' : `; did you mean "${near}"?` });
  }
  return (await load()).default;
}

/** The candidate within a third of the length in edit distance, if any. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const scored = candidates.map((c) => ({ c, d: editDistance(name, c) })).sort((a, b) => a.d - b.d);
  const best = scored[0];
  return best !== undefined && best.d <= Math.max(2, Math.ceil(name.length / 3)) ? best.c : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}
