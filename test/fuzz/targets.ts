/** What is fuzzed: each target makes one hostile input from a random stream, runs the code that reads it, and answers what came out. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DType } from '../../core/dtype.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { ResidualCodec } from '../../kernels/residual/codec.js';
import { ROOT } from '../support/files.js';
import { adapterTargets } from './adapter-targets.js';
import { deltaTargets } from './delta-targets.js';
import { ggufTargets } from './gguf-targets.js';
import { mutateBytes, mutateJson, mutateSafetensors } from './mutate.js';
import { storeTargets } from './store-targets.js';
import { attempt, FIXTURES, pick, readAll, type Target } from './target.js';

const FROZEN = join(FIXTURES, 'delta-v1');
const GOLDEN = join(ROOT, 'test', 'golden', 'safetensors');
const SEGMENTS = join(FIXTURES, 'residual-v1');

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
      return attempt(bytes.length, () => readAll(() => openCheckpoint(file)));
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
      return attempt(total + text.length, () => readAll(() => openCheckpoint(folder)));
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

export async function targets(work: string): Promise<Target[]> {
  mkdirSync(work, { recursive: true });
  return [
    safetensorsTarget(work),
    indexTarget(work),
    ...ggufTargets(work),
    segmentTarget(),
    ...deltaTargets(work),
    ...adapterTargets(work),
    ...(await storeTargets(work)),
  ];
}
