/** What is fuzzed: each target makes one hostile input from a random stream, runs the code that reads it, and answers what came out. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
import type { Pipeline } from '../../core/events.js';
import type { Rng } from '../../core/rng.js';
import type { DType } from '../../core/dtype.js';
import type { DeltaFile } from '../../formats/delta/file.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { ResidualCodec } from '../../kernels/residual/codec.js';
import { decodeJobs, openDelta, type OpenedDelta } from '../../pipelines/delta-open.js';
import { deltaInfo } from '../../pipelines/delta-info.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import type { CheckpointRef } from '../../workers/messages.js';
import { WorkerState } from '../../workers/state.js';
import { decode } from '../../workers/tasks/decode.js';
import { ROOT } from '../support/files.js';
import { mutateBytes, mutateJson, mutateSafetensors } from './mutate.js';
import { resealed } from './reseal.js';

export interface Target {
  readonly name: string;
  /** Relative frequency. */
  readonly weight: number;
  /** Answers the size of the hostile file; throws what the code under test throws, or a plain Error when a property fails. */
  readonly run: (rng: Rng) => Promise<{ readonly fileBytes: number; readonly error?: unknown }>;
}

const FIXTURES = join(ROOT, 'test', 'fixtures');
const FROZEN = join(FIXTURES, 'delta-v1');
const GOLDEN = join(ROOT, 'test', 'golden', 'safetensors');
/** Of both container versions. */
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
];
const SEGMENTS = join(ROOT, 'test', 'fixtures', 'residual-v1');
const RUN = { threads: 1, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const CONTROL = { report: () => undefined, checkpointCancel: () => undefined };

const pick = <T>(rng: Rng, from: readonly T[]): T => from[rng.integer(from.length)]!;
const broken = (what: string): never => {
  throw new Error(`property: ${what}`);
};

async function attempt(fileBytes: number, call: () => Promise<unknown>): Promise<{ fileBytes: number; error?: unknown }> {
  try {
    await call();
    return { fileBytes };
  } catch (error) {
    return { fileBytes, error };
  }
}

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

/** Opens and reads every tensor, whole and by rows. */
async function readAll(path: string): Promise<void> {
  await using reader = await openCheckpoint(path);
  for (const info of reader.infos.values()) {
    const view = await reader.read(info.name);
    const rows = info.shape[0];
    if (rows !== undefined && rows > 0) {
      const part = await reader.read(info.name, [0, 1]);
      if (Buffer.compare(part.bytes, view.bytes.subarray(0, part.bytes.length)) !== 0) broken('a row read differs from the whole');
    }
  }
}

function safetensorsTarget(work: string): Target {
  const seeds = readdirSync(GOLDEN)
    .filter((f) => f.endsWith('.safetensors'))
    .map((f) => readFileSync(join(GOLDEN, f)));
  seeds.push(readFileSync(join(FROZEN, 'shapes', 'base', 'model.safetensors')));
  return {
    name: 'safetensors',
    weight: 40,
    run: (rng) => {
      const file = join(work, 'f.safetensors');
      const bytes = mutateSafetensors(rng, pick(rng, seeds));
      writeFileSync(file, bytes);
      return attempt(bytes.length, () => readAll(file));
    },
  };
}

function indexTarget(work: string): Target {
  const from = join(FROZEN, 'sharded', 'base');
  const folder = join(work, 'sharded');
  mkdirSync(folder, { recursive: true });
  let total = 0;
  for (const f of readdirSync(from)) {
    const bytes = readFileSync(join(from, f));
    total += bytes.length;
    writeFileSync(join(folder, f), bytes);
  }
  const index = readFileSync(join(from, 'model.safetensors.index.json'), 'utf8');
  return {
    name: 'index',
    weight: 20,
    run: (rng) => {
      const text = rng.integer(5) === 0 ? Buffer.from(mutateBytes(rng, Buffer.from(index))) : Buffer.from(mutateJson(rng, index));
      writeFileSync(join(folder, 'model.safetensors.index.json'), text);
      return attempt(total + text.length, () => readAll(folder));
    },
  };
}

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

const baseOf = (name: string): string | undefined => (name.endsWith('/alone') ? undefined : join(FIXTURES, name, 'base'));

/** What restore does but the files: structure, base, headers, side files, every tensor. Answers whether all hashes hold. */
async function decodeAll(shared: WorkerState, path: string, base: string | undefined): Promise<boolean> {
  const opened = await openDelta(path, base);
  try {
    opened.delta.rawHeaders();
    await opened.delta.unpackSideFiles();
    return await decodeTensors(new CaseState(shared, opened.delta), opened);
  } finally {
    opened.delta.close();
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
      right &&= r.sha256 === (t.restored ?? t.sha256);
    } catch (error) {
      // the other tensors are tried all the same: one fault must not hide another
      if (!(error instanceof PithError) || error.exitCode === 70) throw error;
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
  return right;
}

function deltaTargets(work: string): Target[] {
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
        deltaInfo(file);
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
        deltaInfo(file);
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
  return [damaged, hostile, intact];
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

interface SegmentCase {
  readonly name: string;
  readonly dtype: DType;
  readonly words: number;
  readonly hasBase: boolean;
}

function segmentTarget(): Target {
  const cases = JSON.parse(readFileSync(join(SEGMENTS, 'cases.json'), 'utf8')) as SegmentCase[];
  const part = (name: string, kind: string): Buffer => readFileSync(join(SEGMENTS, `${name}.${kind}`));
  const codec = ResidualCodec.create();
  return {
    name: 'coder segment',
    weight: 60,
    run: async (rng) => {
      const c = pick(rng, cases);
      const segment = mutateBytes(rng, part(c.name, 'segment'));
      const dtype = rng.integer(8) === 0 ? pick(rng, cases).dtype : c.dtype;
      const words = rng.integer(8) === 0 ? rng.integer(4096) : c.words;
      return attempt(segment.length + words * 8, async () => {
        const coder = await codec;
        const views = coder.reserve(words * 4);
        if (c.hasBase) views.base.set(part(c.name, 'base').subarray(0, views.base.length));
        coder.decodeSegment(segment, dtype, words, c.hasBase);
      });
    },
  };
}

export function targets(work: string): Target[] {
  mkdirSync(work, { recursive: true });
  return [safetensorsTarget(work), indexTarget(work), ...deltaTargets(work), pipelineTarget(work), segmentTarget()];
}
