/** Encodes in rounds until the file meets its target: predict, choose, encode, measure, correct the predictions, choose again. */
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import type { EncodeResult } from '../workers/messages.js';
import type { Allocator, Choice } from './delta-budget.js';

/** A size is met from this share of the target on. */
const LEAST_SHARE = 0.99;
/** From this round on any size below the target will do. */
const PATIENCE = 5;
const MOST_ROUNDS = 12;

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
  let fixed = run.bytes === undefined ? 0 : await run.fixedBytes();
  let margin = 0;
  for (let round = 0; ; round++) {
    const choices = choose(run, fixed, margin, ownChoices);
    yield* run.encode(new Map([...choices, ...ownChoices]));
    const squares = shared.map((name) => errorOf(run, name));
    for (const [i, name] of shared.entries()) allocator.learn(name, choices.get(name)!, partBytes(run.result(name)), squares[i]!);
    if (run.bytes === undefined) {
      const limit = errorLimit(run);
      if (squares.reduce((sum, e) => sum + e, 0) <= limit * (1 + 1e-9)) return;
      if (round >= MOST_ROUNDS)
        throw new PithError('TARGET_TOO_SMALL', { expected: run.maxError!, got: 'more', message: `the error is not reached in ${round} rounds` });
      margin += 0.01 * limit;
      continue;
    }
    const bytes = await run.fileBytes();
    if (bytes <= run.bytes && (bytes >= LEAST_SHARE * run.bytes || round >= PATIENCE || saturated(run, choices))) return;
    if (round >= MOST_ROUNDS)
      throw new PithError('TARGET_TOO_SMALL', { expected: run.bytes, got: bytes, message: `the size is not reached in ${round} rounds` });
    fixed = bytes - [...shared, ...own].reduce((sum, name) => sum + partBytes(run.result(name)), 0);
    // after a few rounds the corrections may go in circles: aim lower
    if (round > 1 && bytes > run.bytes) margin += 0.002 * run.bytes;
  }
}

function errorOf(run: TargetRun, name: string): number {
  const r = run.result(name);
  return r.squares?.[0] ?? 0;
}

const errorLimit = (run: TargetRun): number => (run.maxError ?? 0) ** 2 * run.shared.reduce((sum, name) => sum + run.allocator.deltaSq(name), 0);

function choose(run: TargetRun, fixed: number, margin: number, own: ReadonlyMap<string, Choice>): Map<string, Choice> {
  if (run.bytes === undefined) return run.allocator.withinError(run.shared, errorLimit(run) - margin);
  const spent = run.ownBytes === undefined || own.size === 0 ? 0 : run.ownBytes;
  const first = { what: 'tensors that are stored exactly and the header', bytes: fixed + spent };
  return run.allocator.withinBytes(run.shared, run.bytes - fixed - spent - margin, first);
}

/** Every tensor is at the end of its curve: more bytes buy nothing. */
function saturated(run: TargetRun, choices: ReadonlyMap<string, Choice>): boolean {
  const most = run.allocator.withinError(run.shared, 0);
  return [...choices].every(([name, c]) => most.get(name)?.method === c.method && most.get(name)?.point === c.point);
}
