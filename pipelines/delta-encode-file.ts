/** The end of an encode: one layer or two put together and written, and the report. */
import type { ProgressEvent } from '../core/events.js';
import { EXACT_ROOM, writeTwoLayers } from '../formats/delta/layers.js';
import { writeDelta, type DeltaContent } from '../formats/delta/write.js';
import type { EncodeResult, HashResult } from '../workers/messages/delta.js';
import { assemble, type Assembly } from './delta-assemble.js';
import { codeRemainders, type DoneRemainder } from './delta-remainders.js';
import type { PlannedTensor } from './delta-plan.js';
import { type EncodedTensor, type EncodeReport, JOB, type Run, methodOf, usedMethod, spoolName, mayNeedRemainder } from './delta-encode-run.js';

interface TwoLayers {
  readonly bytes: number;
  readonly lossyBytes: number;
  /** By tensor. */
  readonly exactBytes: ReadonlyMap<string, number>;
}

export function assemblyOf(run: Run): Assembly {
  const { o, plan, base, tuned, journal, done } = run;
  return {
    paths: { base: o.base, tuned: o.tuned },
    ...(o.title === undefined ? {} : { title: o.title }),
    plan,
    base,
    tuned,
    result: (name) => (done.get(name) as { encode: EncodeResult }).encode,
    method: (t) => methodOf(run, t),
    baseSha256: (name) => {
      const value = done.get(name);
      if (value !== undefined && 'encode' in value && value.encode.baseSha256 !== undefined) return value.encode.baseSha256;
      return (done.get(`base:${name}`) as { hash: HashResult }).hash.sha256;
    },
    sideSpool: journal.spool('side-files'),
    spoolFile: (tensor, part) => `${journal.spool(spoolName(tensor))}.${part}`,
    ...(o.progressive === true ? { room: EXACT_ROOM } : {}),
  };
}

export async function* finish(run: Run): AsyncGenerator<ProgressEvent, EncodeReport, void> {
  const { o, plan, settings } = run;
  const assembly = assemblyOf(run);
  const { content, baseHash, tunedHash } = await assemble(assembly);
  const lossyTensors = plan.tensors.filter((t) => assembly.result(t.name).restoredSha256 !== assembly.result(t.name).tunedSha256);
  const two = o.progressive === true && lossyTensors.length > 0 ? yield* writeBoth(run, content, lossyTensors) : undefined;
  if (two === undefined) run.journal.publishing();
  const bytes = two?.bytes ?? writeDelta(o.out, withoutRoom(content), { force: o.force });
  // a tensor that the budget stores exactly has a delta and no error
  const squares = plan.tensors.map((t) => assembly.result(t.name).squares ?? [0, run.allocator.deltaSq(t.name)]);
  const [error, delta] = [squares.reduce((sum, s) => sum + s[0], 0), squares.reduce((sum, s) => sum + s[1], 0)];
  return {
    out: o.out,
    bytes,
    rawBytes: plan.rawBytes,
    ratio: plan.rawBytes === 0 ? 0 : bytes / plan.rawBytes,
    ...(two === undefined ? {} : { layers: { lossy: two.lossyBytes, exact: bytes - two.lossyBytes } }),
    ...(delta > 0 ? { error: Math.sqrt(error / delta) } : {}),
    ...(baseHash === undefined ? {} : { baseHash }),
    tunedHash,
    device: settings.device,
    ...(run.weighed[0] === undefined ? {} : { sensitivity: run.weighed[0] }),
    tensors: plan.tensors.map((t) => encodedTensor(run, t, assembly.result(t.name), two?.exactBytes.get(t.name))),
    sideFiles: content.manifest.tuned.sideFiles.map((f) => ({ name: f.name, coding: f.coding })),
  };
}

/** A file that needs no second layer has no room for one. */
function withoutRoom(content: DeltaContent): DeltaContent {
  const { manifest, parts, headers, sideFiles } = content;
  return { manifest, parts, headers, sideFiles };
}

/** The lossy layer to the spool, the remainders against what it restores to, both to the output. */
async function* writeBoth(run: Run, content: DeltaContent, tensors: readonly PlannedTensor[]): AsyncGenerator<ProgressEvent, TwoLayers, void> {
  const { o, plan, refs, settings, journal, pool, done } = run;
  const delta = journal.spool('lossy.safetensors');
  const lossyBytes = writeDelta(delta, content, { force: true });
  const doneBytes = [...plan.tensors, ...mayNeedRemainder(o, plan)].reduce((sum, t) => sum + t.bytes, 0);
  const remainders = yield* codeRemainders({
    delta,
    tensors: tensors.map((t) => ({ tensor: t, against: (done.get(t.name) as { encode: EncodeResult }).encode.restoredSha256 })),
    refs,
    settings,
    spool: (tensor) => journal.spool(spoolName(tensor)),
    done: (key) => done.get(key) as DoneRemainder | undefined,
    onDone: (key, value) => journal.append(key, value),
    schedule: { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes: doneBytes },
  });
  journal.publishing();
  const bytes = writeTwoLayers(o.out, delta, remainders, { force: o.force });
  return { bytes, lossyBytes, exactBytes: new Map(remainders.map((r) => [r.name, r.bytes])) };
}

function encodedTensor(run: Run, t: PlannedTensor, r: EncodeResult, exactBytes: number | undefined): EncodedTensor {
  return {
    name: t.name,
    method: usedMethod(run, t, r),
    bytes: r.parts.reduce((sum, p) => sum + p.bytes, exactBytes ?? 0),
    rawBytes: t.bytes,
    ...(exactBytes === undefined ? {} : { exactBytes }),
    ...(r.info.error === undefined ? {} : { error: r.info.error }),
    ...(Object.keys(r.info.facts).length === 0 ? {} : { facts: r.info.facts }),
  };
}
