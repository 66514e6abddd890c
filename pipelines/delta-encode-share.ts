/** A size shared over the tensors of an encode: what the target asks of the run, and the delta as it stands lent to probes. */
import { createHash } from 'node:crypto';
import type { ProgressEvent } from '../core/events.js';
import { deltaBytes, writeDelta } from '../formats/delta/write.js';
import * as io from '../formats/io.js';
import type { EncodeResult } from '../workers/messages/delta.js';
import { openAny } from '../workers/open.js';
import { assemble, type Assembly } from './delta-assemble.js';
import { targetBytes, type DeltaTarget } from './delta-budget.js';
import type { TargetRun } from './delta-target.js';
import type { CalibrationData } from './calibration-data.js';
import type { Probes } from './delta-sensitivity.js';
import { requireCausalConfig } from '../models/config/parse.js';
import { modelRef } from './model-ref.js';
import type { PlannedTensor } from './delta-plan.js';
import { assemblyOf } from './delta-encode-file.js';
import { runMissing, encodeJobs } from './delta-encode-jobs.js';
import { type Run, refOf } from './delta-encode-run.js';

export function targetOf(run: Run, target: DeltaTarget, budgeted: readonly PlannedTensor[], totalBytes: number): TargetRun {
  const { o, plan, done, allocator } = run;
  const budget = o.embeddings !== undefined && o.embeddings !== 'lossless' && 'bytes' in o.embeddings ? o.embeddings : undefined;
  const isOwn = (t: PlannedTensor): boolean => budget !== undefined && (t.role === 'embedding' || t.role === 'head');
  const bytes = targetBytes(target, plan.rawBytes);
  const names = (tensors: readonly PlannedTensor[]): string[] => tensors.map((t) => t.name);
  return {
    allocator,
    shared: names(budgeted.filter((t) => !isOwn(t))),
    own: names(budgeted.filter(isOwn)),
    ...(budget === undefined ? {} : { ownBytes: budget.bytes }),
    ...(bytes === undefined ? { maxError: target.maxError ?? 0 } : { bytes }),
    fixedBytes: async () => deltaBytes((await assemble(withPlaceholders(run, new Set(names(budgeted))))).content),
    fileBytes: async () => deltaBytes((await assemble(assemblyOf(run))).content),
    result: (name) => (done.get(name) as { encode: EncodeResult }).encode,
    async *encode(choices) {
      const fits = (name: string): boolean => {
        const value = done.get(name);
        const [was, is] = [value !== undefined && 'encode' in value ? value.choice : undefined, choices.get(name)!];
        return was?.method === is.method && was.point === is.point;
      };
      for (const name of choices.keys()) if (!fits(name)) done.delete(name);
      yield* runMissing(run, encodeJobs(run, budgeted, choices), totalBytes);
    },
  };
}

/** Results that take as much of the header as real ones: hashes do not deflate. */
function withPlaceholders(run: Run, tensors: ReadonlySet<string>): Assembly {
  const a = assemblyOf(run);
  const sha = (name: string, what: string): string => createHash('sha256').update(`${what}:${name}`).digest('hex');
  return {
    ...a,
    method: (t) => (tensors.has(t.name) ? run.plan.methods.length - 1 : a.method(t)),
    result: (name) =>
      !tensors.has(name)
        ? a.result(name)
        : {
            info: { identical: false, facts: { rank: 100 } },
            parts: [{ part: 'levels', dtype: 'U8', shape: [0], bytes: 0, sha256: sha(name, 'part') }],
            tunedSha256: sha(name, 'tuned'),
            restoredSha256: sha(name, 'restored'),
            baseSha256: sha(name, 'base'),
            byMethod: true,
          },
    baseSha256: (name) => (tensors.has(name) ? sha(name, 'base') : a.baseSha256(name)),
  };
}

/** The delta as it stands, written beside the journal for the probes of `act`. */
export async function* probe<T>(
  run: Run,
  tensors: readonly string[],
  data: CalibrationData,
  act: (p: Probes) => AsyncGenerator<ProgressEvent, T, void>,
): AsyncGenerator<ProgressEvent, T, void> {
  const { o, tuned, journal, settings } = run;
  const file = `${journal.spool('probe')}.safetensors`;
  io.remove(file);
  writeDelta(file, (await assemble(assemblyOf(run))).content, { force: true });
  try {
    const argument = `${o.base!}+${file}`;
    await using lossy = await openAny(argument);
    const model = await modelRef(o.tuned, tuned);
    const { numLayers } = requireCausalConfig(model.config, model.configFile);
    const squares = (name: string): number => (run.done.get(name) as { encode: EncodeResult }).encode.squares?.[0] ?? 0;
    const probes = {
      tuned: model,
      tensors,
      layers: numLayers,
      errorSq: squares,
      sequences: data.sequences,
      settings,
      spool: (name: string) => journal.spool(name),
    };
    return yield* act({ ...probes, lossy: refOf(lossy, argument) });
  } finally {
    io.remove(file);
  }
}
