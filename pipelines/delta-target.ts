/** Encodes in rounds until the file meets its target: predict, choose, encode, measure, correct the predictions, choose again. */
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import type { EncodeResult } from '../workers/messages/delta.js';
import type { Allocator, Choice } from './delta-budget.js';

/** A size (or a squared error) is met from this share of the target on. */
const LEAST_SHARE = 0.99;
/** From this round on any size below the target will do. */
const PATIENCE = 5;
const MOST_ROUNDS = 14;
const AIM_STEP = 0.002;

export interface TargetRun {
  readonly allocator: Allocator;
  /** Tensors that share the target, and those whose own budget is spent once. */
  readonly shared: readonly string[];
  readonly own: readonly string[];
  readonly ownBytes?: number;
  /** Whole file. */
  readonly bytes?: number;
  /** Relative error over the shared tensors. */
  readonly maxError?: number;
  /** Size of the file without the parts of the tensors that have a choice, before any is encoded. */
  fixedBytes(): Promise<number>;
  /** Size of the file as everything is encoded now. */
  fileBytes(): Promise<number>;
  /** Encodes the tensors whose choice is new. */
  encode(choices: ReadonlyMap<string, Choice>): AsyncGenerator<ProgressEvent, void, void>;
  result(tensor: string): EncodeResult;
}

const partBytes = (r: EncodeResult): number => r.parts.reduce((sum, p) => sum + p.bytes, 0);

export async function* reachTarget(run: TargetRun): AsyncGenerator<ProgressEvent, void, void> {
  const { allocator, shared, own } = run;
  const ownChoices = run.ownBytes === undefined ? new Map<string, Choice>() : allocator.withinBytes(own, run.ownBytes, { what: 'no parts', bytes: 0 });
  const fixed = run.bytes === undefined ? 0 : await run.fixedBytes();
  let choices = choose(run, fixed, ownChoices);
  for (let round = 0, late = 0; ; round++) {
    yield* run.encode(new Map([...choices, ...ownChoices]));
    for (const name of shared) allocator.learn(name, choices.get(name)!, partBytes(run.result(name)), run.result(name).squares?.[0]);
    const [got, limit] = run.bytes === undefined ? [errorSq(run), errorLimit(run)] : [await run.fileBytes(), run.bytes];
    const met = got <= limit * (1 + 1e-12);
    if (met && (got >= LEAST_SHARE * limit || round >= PATIENCE || saturated(run, choices))) return;
    if (round >= MOST_ROUNDS) {
      const what = run.bytes === undefined ? 'squared error' : 'size';
      throw new PithError('TARGET_TOO_SMALL', {
        expected: limit,
        got,
        message: `the ${what} is not reached in ${round} rounds, tensors that are stored exactly`,
      });
    }
    // after a few rounds the corrections may go in circles: aim lower
    if (!met && round > 1) late++;
    const aim = limit * (1 - AIM_STEP * late);
    choices = allocator.adjust(choices, run.bytes === undefined ? { errorSq: got - aim } : { bytes: aim - got });
  }
}

const errorSq = (run: TargetRun): number => run.shared.reduce((sum, name) => sum + (run.result(name).squares?.[0] ?? 0), 0);

const errorLimit = (run: TargetRun): number => (run.maxError ?? 0) ** 2 * run.shared.reduce((sum, name) => sum + run.allocator.deltaSq(name), 0);

function choose(run: TargetRun, fixed: number, own: ReadonlyMap<string, Choice>): Map<string, Choice> {
  if (run.bytes === undefined) return run.allocator.withinError(run.shared, errorLimit(run));
  const spent = run.ownBytes === undefined || own.size === 0 ? 0 : run.ownBytes;
  const first = { what: 'tensors that are stored exactly and the header', bytes: fixed + spent };
  return run.allocator.withinBytes(run.shared, run.bytes - fixed - spent, first);
}

/** Every tensor is at the end of its curve: more bytes buy nothing. */
function saturated(run: TargetRun, choices: ReadonlyMap<string, Choice>): boolean {
  const most = run.allocator.withinError(run.shared, 0);
  return [...choices].every(([name, c]) => most.get(name)?.method === c.method && most.get(name)?.point === c.point);
}
