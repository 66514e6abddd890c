/** Which methods an encode plans with: lossless, one of its own for the embeddings, the one asked for, or several that compete. */
import { PithError } from '../core/errors.js';
import { loadMethod } from '../methods/index.js';
import type { TensorPlan } from '../methods/kinds.js';
import type { CalibrationText } from './calibration-data.js';
import type { DeltaTarget, EmbeddingBudget } from './delta-budget.js';
import type { PlannedMethod } from './delta-plan.js';

/** How the tensors are to be coded. */
export interface MethodOptions {
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
  /** A size or an error that the method's tensors share, for methods that have a budget. */
  readonly target?: DeltaTarget;
  /** What errors in a tensor do is measured on this text and weighs in the shares of a size. */
  readonly data?: CalibrationText;
  /** Embeddings and output heads: stored exactly, with parameters of their own, or with a budget of their own. */
  readonly embeddings?: 'lossless' | { readonly params: Readonly<Record<string, unknown>> } | EmbeddingBudget;
  /** Which tensors the method is for; the others are coded losslessly. */
  readonly selects: (name: string) => boolean;
}

/** What `auto` chooses from, besides lossless, unless the parameter `codecs` names others; the quickest to estimate first. */
const AUTO_CODECS = ['ecsq', 'lowrank-ecsq'];
const AUTO = 'auto';

/** methods[0] is lossless; then the one for embeddings, where it differs, and the main one or, for `auto`, the ones that compete. */
export async function methodsOf(o: MethodOptions): Promise<PlannedMethod[]> {
  const planned = async (name: string, given: Readonly<Record<string, unknown>>, selects: (t: TensorPlan) => boolean): Promise<PlannedMethod> => {
    const method = await loadMethod('delta', name);
    const params = o.target === undefined ? given : { ...method.budgetParams, ...given };
    return { name, params, codec: method.create(params), selects };
  };
  const { embeddings } = o;
  const own = embeddings !== undefined && !(embeddings !== 'lossless' && 'bytes' in embeddings);
  const isEmbedding = (t: TensorPlan): boolean => t.role === 'embedding' || t.role === 'head';
  const main = (t: TensorPlan): boolean => o.selects(t.name) && !(own && isEmbedding(t));
  if (o.method === AUTO) {
    if (o.target === undefined) throw new PithError('USAGE', { message: '--method auto: say how much with --target-size, --target-ratio or --max-error' });
    const codecs = autoCodecs(o.params);
    const methods = await Promise.all(['lossless', ...codecs].map((name) => planned(name, {}, name === 'lossless' ? () => true : main)));
    for (const m of methods) if (m.codec.budget === undefined) throw new PithError('NO_BUDGET', { method: m.name });
    return methods.map((m, i) => ({ ...m, competes: true, ...(i === 0 ? { selects: main } : {}) }));
  }
  const methods = [await planned('lossless', o.method === 'lossless' ? o.params : {}, () => true)];
  if (o.method !== 'lossless') {
    if (own && embeddings !== 'lossless')
      methods.push(await planned(o.method, { ...o.params, ...embeddings.params }, (t) => o.selects(t.name) && isEmbedding(t)));
    methods.push(await planned(o.method, o.params, main));
  }
  const last = methods.at(-1)!.codec;
  if (o.target !== undefined && (last.budget === undefined || last.lossless)) throw new PithError('NO_BUDGET', { method: o.method });
  return methods;
}

function autoCodecs(params: Readonly<Record<string, unknown>>): readonly string[] {
  const unknown = Object.keys(params).filter((k) => k !== 'codecs');
  if (unknown.length > 0) throw new PithError('BAD_PARAMS', { method: AUTO, message: `unknown parameter "${unknown[0]!}"; it takes codecs=NAME,NAME` });
  const codecs = params['codecs'];
  if (codecs === undefined) return AUTO_CODECS;
  if (typeof codecs !== 'string') throw new PithError('BAD_PARAMS', { method: AUTO, message: 'codecs=NAME,NAME expected' });
  return codecs.split(',').filter((name) => name !== 'lossless' && name !== '');
}
