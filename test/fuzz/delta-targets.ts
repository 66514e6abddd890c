/** Delta files, damaged and hostile: decoded alone, applied to their base while it is read, restored by the whole commands. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
import type { Rng } from '../../core/rng.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { DeltaFile } from '../../formats/delta/file.js';
import { readerSideFiles } from '../../formats/open-checkpoint.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { decodeJobs, openDelta, type OpenedDelta } from '../../pipelines/delta-open.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaJoin } from '../../pipelines/delta-split.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import type { CheckpointRef } from '../../workers/messages/refs.js';
import { openAny } from '../../workers/open.js';
import { WorkerState } from '../../workers/state.js';
import { decode } from '../../workers/tasks/decode.js';
import { ROOT } from '../support/files.js';
import { mutateSafetensors } from './mutate.js';
import { resealed, resealedLayer } from './reseal.js';
import { attempt, broken, CONTROL, drain, FIXTURES, pick, readAll, RUN, type Target } from './target.js';

/** Of all container versions. */
const DELTAS = [
  'delta-v1/dtypes',
  'delta-v1/shapes',
  'delta-v1/sharded',
  'delta-v1/alone',
  'delta-v1/ere-int8',
  'delta-v2/shapes',
  'delta-v2/ecsq',
  'delta-v2/lowrank-ecsq',
  'delta-v2/bitdelta',
  'delta-v2/int-5',
  'delta-v2/sparse-bf16',
  'delta-v2/sparse-exact',
  'delta-v2/delta-come',
  'delta-v2/pruned',
  'delta-v3/ecsq',
  'delta-v3/auto',
];

/** The coder and the base's readers are shared by all cases, as in a worker; the delta file is opened anew. */
class CaseState extends WorkerState {
  constructor(
    private readonly shared: WorkerState,
    private readonly file: DeltaFile,
  ) {
    super();
  }
  override reader(ref: CheckpointRef): ReturnType<WorkerState['reader']> {
    return this.shared.reader(ref);
  }
  override codec(ref: Parameters<WorkerState['codec']>[0]): ReturnType<WorkerState['codec']> {
    return this.shared.codec(ref);
  }
  override delta(): Promise<DeltaFile> {
    return Promise.resolve(this.file);
  }
}

const baseOf = (name: string): string | undefined => (/\/(alone|pruned)$/.test(name) ? undefined : join(FIXTURES, name, 'base'));

/** What restore does but the files: structure, base, headers, side files, every tensor. Answers whether all hashes hold. */
async function decodeAll(shared: WorkerState, path: string, base: string | undefined): Promise<boolean> {
  const opened = await openDelta(path, base, { signal: RUN.signal });
  try {
    opened.delta.tunedFiles();
    await opened.delta.unpackSideFiles();
    return await decodeTensors(new CaseState(shared, opened.delta), opened);
  } finally {
    opened[Symbol.dispose]();
    await opened.base?.[Symbol.asyncDispose]();
  }
}

async function decodeTensors(state: WorkerState, opened: OpenedDelta): Promise<boolean> {
  let right = true;
  let failure: PithError | undefined;
  for (const { task } of decodeJobs(RUN, opened, () => undefined)) {
    try {
      const r = await decode(state, task, CONTROL);
      const t = opened.delta.entry(task.tensor);
      right &&= r.sha256 === opened.delta.expected(t, opened.quality);
    } catch (error) {
      // the other tensors are tried all the same: one fault must not hide another
      if (!(error instanceof PithError) || error.exitCode === 70) throw error;
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
  return right;
}

export function deltaTargets(work: string): Target[] {
  const seeds = new Map(DELTAS.map((n) => [n, readFileSync(join(FIXTURES, n, 'delta.safetensors'))]));
  const shared = new WorkerState();
  const file = join(work, 'd.safetensors');
  const put = (bytes: Uint8Array): number => {
    writeFileSync(file, bytes);
    return bytes.length;
  };
  const damaged: Target = {
    name: 'delta, damaged',
    weight: 15,
    run: async (rng) => {
      const name = pick(rng, DELTAS);
      const good = seeds.get(name)!;
      const bytes = mutateSafetensors(rng, good);
      const size = put(bytes);
      return attempt(size, async () => {
        await deltaInfo(file);
        if (!(await decodeAll(shared, file, baseOf(name)))) broken('a damaged delta decodes to other bytes without an error');
        if (Buffer.compare(bytes, good) !== 0) broken('a damaged delta is taken for whole');
      });
    },
  };
  const hostile: Target = {
    name: 'delta, hostile',
    weight: 30,
    run: async (rng) => {
      const name = pick(rng, DELTAS);
      const size = put(resealed(rng, seeds.get(name)!));
      return attempt(size, async () => {
        await deltaInfo(file);
        await decodeAll(shared, file, baseOf(name));
      });
    },
  };
  const intact: Target = {
    name: 'delta, intact after hostile ones',
    weight: 2,
    run: async (rng) => {
      const name = pick(rng, DELTAS);
      const size = put(seeds.get(name)!);
      return attempt(size, async () => {
        if (!(await decodeAll(shared, file, baseOf(name)))) broken('the coder was spoilt by an earlier input');
      });
    },
  };
  return [damaged, hostile, intact, ...chainedTargets(put, seeds, file), diffTarget(put, file), joinTarget(work), pipelineTarget(work)];
}

/** A delta as a checkpoint, with its base or alone: its headers, its tensors, its other files. */
function chainedTargets(put: (bytes: Uint8Array) => number, seeds: ReadonlyMap<string, Uint8Array>, file: string): Target[] {
  /** Whether it was taken for a delta: alone, a file that has lost its mark is an ordinary one. */
  const read = async (name: string): Promise<boolean> => {
    const open = (): Promise<CheckpointReader> => openAny(baseOf(name) === undefined ? file : `${baseOf(name)!}+${file}`);
    await readAll(open);
    await using again = await open();
    await readerSideFiles(again);
    return again.title !== undefined;
  };
  const target = (kind: string, weight: number, mutate: (rng: Rng, bytes: Uint8Array) => Uint8Array, check: (same: boolean) => void): Target => ({
    name: `delta as a checkpoint, ${kind}`,
    weight,
    run: async (rng) => {
      const name = pick(rng, DELTAS);
      const good = seeds.get(name)!;
      const bytes = mutate(rng, good);
      return attempt(put(bytes), async () => {
        const asDelta = await read(name);
        check(!asDelta || Buffer.compare(bytes, good) === 0);
      });
    },
  });
  return [
    target('damaged', 6, mutateSafetensors, (same) => {
      if (!same) broken('a damaged delta is taken for whole');
    }),
    target('hostile', 12, resealed, () => undefined),
  ];
}

/** BASE+DIFF: a diff as BitDelta's release saves it. It holds no hashes, so that only its structure can be wrong. */
function diffTarget(put: (bytes: Uint8Array) => number, file: string): Target {
  const folder = join(ROOT, 'test', 'golden', 'bitdelta');
  const seeds = ['bf16', 'f32'].map((t) => ({ base: join(folder, `${t}.base.safetensors`), diff: readFileSync(join(folder, `${t}.diff.safetensors`)) }));
  return {
    name: 'BASE+DIFF, damaged',
    weight: 6,
    run: async (rng) => {
      const { base, diff } = pick(rng, seeds);
      return attempt(put(mutateSafetensors(rng, diff)), () => readAll(() => openAny(`${base}+${file}`)));
    },
  };
}

/** An exact layer joined to its lossy one: an error, or the file that both were cut from. */
function joinTarget(work: string): Target {
  const folder = join(FIXTURES, 'delta-v3', 'ecsq');
  const [lossy, whole] = [join(folder, 'lossy.safetensors'), readFileSync(join(folder, 'delta.safetensors'))];
  const good = readFileSync(join(folder, 'exact.safetensors'));
  const [exact, out] = [join(work, 'e.safetensors'), join(work, 'joined.safetensors')];
  return {
    name: 'exact layer, damaged and hostile',
    weight: 10,
    run: async (rng) => {
      const hostile = rng.integer(2) === 0;
      const bytes = hostile ? resealedLayer(rng, good) : mutateSafetensors(rng, good);
      writeFileSync(exact, bytes);
      rmSync(out, { force: true });
      return attempt(bytes.length + whole.length, async () => {
        await drain(deltaJoin({ lossy, exact, out, force: false, signal: RUN.signal }));
        if (!hostile && Buffer.compare(readFileSync(out), whole) !== 0) broken('a damaged layer is taken for whole');
      });
    },
  };
}

/** The whole commands' pipelines, with a thread pool of their own: slow, so rare. */
function pipelineTarget(work: string): Target {
  const seeds = new Map(DELTAS.map((n) => [n, readFileSync(join(FIXTURES, n, 'delta.safetensors'))]));
  const folder = join(work, 'pipeline');
  return {
    name: 'restore and verify, hostile',
    weight: 1,
    run: async (rng) => {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
      const name = pick(rng, DELTAS);
      const bytes = resealed(rng, seeds.get(name)!);
      const delta = join(folder, 'd.safetensors');
      const out = join(folder, 'out');
      writeFileSync(delta, bytes);
      const base = baseOf(name);
      return attempt(bytes.length, async () => {
        if (rng.integer(2) === 0) await drain(deltaVerify({ ...RUN, base, delta, tuned: undefined }));
        else {
          try {
            await drain(deltaRestore({ ...RUN, base, delta, out, force: false, dryRun: false, resume: true }));
          } catch (error) {
            if (readdirSync(folder).includes('out')) broken('a failed restore left its output');
            throw error;
          }
        }
      });
    },
  };
}
