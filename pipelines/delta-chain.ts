/** `pith delta squash` and `rebase`: the end of a chain of deltas, stored against another base. */
import type { Pipeline } from '../core/events.js';
import { PithError } from '../core/errors.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from './delta-encode.js';

type ChainOptions = Omit<EncodeOptions, 'base' | 'tuned' | 'method' | 'params' | 'selects'>;

const LOSSLESS = { method: 'lossless', params: {}, selects: () => true } as const;

/** One delta of the chain's end against its first base. Every tensor on the way is proven; WRONG_BASE when two deltas do not follow each other. */
export function deltaSquash(o: ChainOptions & { readonly base: string; readonly deltas: readonly string[] }): Pipeline<EncodeReport> {
  if (o.deltas.length === 0) throw new PithError('USAGE', { message: 'squash: give the deltas of the chain, first to last, each with --delta' });
  return deltaEncode({ ...o, ...LOSSLESS, tuned: [o.base, ...o.deltas].join('+') });
}

/** The same tuned checkpoint against another base. */
export function deltaRebase(o: ChainOptions & { readonly base: string; readonly delta: string; readonly onto: string }): Pipeline<EncodeReport> {
  return deltaEncode({ ...o, ...LOSSLESS, base: o.onto, tuned: `${o.base}+${o.delta}` });
}
