/** Stores: any of their files damaged, or hostile ones with the hashes that cover them made right again; listed, swept, and every model decoded. */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PithError } from '../../core/errors.js';
import type { Rng } from '../../core/rng.js';
import type { TensorInfo } from '../../core/tensor.js';
import { seal } from '../../formats/delta/manifest.js';
import { StoreFolder } from '../../formats/store/folder.js';
import { requireContent } from '../../formats/store/object.js';
import type { TensorSink } from '../../methods/kinds.js';
import { placeObjects, rawHeaders } from '../../pipelines/store-get.js';
import { StoreIndex } from '../../pipelines/store-index.js';
import { storeGc, storeList } from '../../pipelines/store-list.js';
import { StoreObjects } from '../../workers/store-objects.js';
import { mutateBytes, mutateJson, mutateSafetensors, splitFile } from './mutate.js';
import { attempt, broken, CONTROL, FIXTURES, pick, type Target } from './target.js';

const MODELS = ['first', 'second', 'third'];
const GC = { olderThanMs: 0, dryRun: false, signal: new AbortController().signal };
const sha = (...parts: (Uint8Array | string)[]): string => parts.reduce((h, p) => h.update(p), createHash('sha256')).digest('hex');

/** A record of a model with its own hash. */
function resealedRecord(rng: Rng, file: Uint8Array): Uint8Array {
  const body = Buffer.from(file)
    .toString('utf8')
    .replace(/,"sha256":"[0-9a-f]{64}"\}\n$/, '');
  const changed = mutateJson(rng, `${body}}`).replace(/\}$/, '');
  return Buffer.from(`${changed},"sha256":"${sha(changed)}"}\n`);
}

/** An object whose head says something else, or whose parts are others, with hashes and seal that fit. */
function resealedObject(rng: Rng, file: Uint8Array): Uint8Array {
  const { json, data } = splitFile(file);
  const header = JSON.parse(json) as Record<string, { data_offsets?: [number, number] } & Record<string, string>>;
  const metadata = header['__metadata__']!;
  metadata['pith.seal'] = '0'.repeat(64);
  let bytes = data;
  if (rng.integer(2) === 0) metadata['object'] = mutateJson(rng, metadata['object']!);
  else {
    const part = pick(
      rng,
      Object.keys(header).filter((k) => k !== '__metadata__'),
    );
    const [from, to] = header[part]!.data_offsets!;
    const old = data.subarray(from, to);
    const next = Buffer.from(mutateBytes(rng, old)).subarray(0, old.length);
    const filled = Buffer.concat([next, Buffer.alloc(old.length - next.length)]);
    bytes = Buffer.concat([data.subarray(0, from), filled, data.subarray(to)]);
    metadata['object'] = metadata['object']!.replace(sha(old), sha(filled));
  }
  const text = Buffer.from(JSON.stringify(header), 'utf8');
  const head = Buffer.alloc(8 + text.length);
  head.writeBigUInt64LE(BigInt(text.length));
  text.copy(head, 8);
  seal(head);
  return Buffer.concat([head, bytes]);
}

class Store {
  readonly path: string;
  /** Every file as it was. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly bytes: number;

  constructor(work: string) {
    this.path = join(work, 'store');
    cpSync(join(FIXTURES, 'store-v1', 'store'), this.path, { recursive: true });
    mkdirSync(join(this.path, 'tmp'), { recursive: true });
    const all = readdirSync(this.path, { withFileTypes: true, recursive: true }).filter((e) => e.isFile());
    this.files = new Map(all.map((e) => join(e.parentPath, e.name)).sort().map((f) => [f, readFileSync(f)])); // prettier-ignore
    this.bytes = [...this.files.values()].reduce((sum, b) => sum + b.length, 0);
  }

  /** Brings every file back; answers the names of those that were gone. */
  mend(changed: string): string[] {
    const gone = [...this.files.keys()].filter((f) => !existsSync(f));
    for (const f of [...gone, changed]) writeFileSync(f, this.files.get(f)!);
    return gone;
  }
}

/**
 * What a get writes, without the files: names, headers and places as one hash. Objects are decoded where `isAffected`; what is
 * given out has its name for its hash.
 */
async function contents(store: StoreFolder, objects: StoreObjects, name: string, isAffected: (object: string) => boolean): Promise<string> {
  const model = store.readModel(name);
  const headers = await rawHeaders(store, model);
  const hash = createHash('sha256').update(JSON.stringify(model.files.map((f) => f.name)));
  for (const h of headers) hash.update(h);
  for (const piece of placeObjects(store, model, headers, (n) => n)) {
    hash.update(JSON.stringify([piece.object, piece.targets]));
    if (!isAffected(piece.object)) continue;
    const one = createHash('sha256').update(piece.prefix);
    const sink = { write: async (_: number, bytes: Uint8Array) => void one.update(bytes) };
    const opened = (info: TensorInfo): TensorSink => {
      requireContent(store, piece.object, info, piece.prefix);
      return sink;
    };
    await objects.decode(piece.object, opened, CONTROL);
    if (one.digest('hex') !== piece.object) broken('an object that is not its name was given out');
  }
  return hash.digest('hex');
}

export async function storeTargets(work: string): Promise<Target[]> {
  const made = new Store(work);
  const names = [...made.files.keys()];
  const folder = StoreFolder.open(made.path);
  /** The coder is shared by all cases, as in a worker. */
  const shared = new StoreObjects(folder);
  const index = new StoreIndex(folder);
  /** Object -> what must be whole for it to be decoded; those of the store as it was, so not of objects that a hostile one names. */
  const needs = new Map(folder.objects().map((o) => [o.hash, index.closure([o.hash])]));
  const right = new Map<string, string>();
  for (const m of MODELS) right.set(m, await contents(folder, shared, m, () => true));
  const use = async (file: string, check: (model: string, got: string) => void): Promise<void> => {
    let failure: unknown;
    const step = async (run: () => Promise<unknown>): Promise<void> => {
      try {
        await run();
      } catch (error) {
        // the other steps are tried all the same
        if (!(error instanceof PithError) || error.exitCode === 70) throw error;
        failure ??= error;
      }
    };
    const isObject = file.includes('objects');
    const hash = basename(file, '.safetensors');
    const isAffected = (object: string): boolean => !isObject || needs.get(object)?.has(hash) !== false;
    const models = file.includes('models') ? [basename(file, '.json')] : isObject ? MODELS : MODELS.slice(0, 1);
    await step(async () => storeList(made.path));
    for (const m of models) await step(async () => check(m, await contents(StoreFolder.open(made.path), shared, m, isAffected)));
    await step(async () => new StoreIndex(StoreFolder.open(made.path)).models({ skipDamaged: true }));
    await step(async () => storeGc(made.path, GC));
    if (failure !== undefined) throw failure as Error;
  };
  const target = (kind: string, weight: number, mutate: (rng: Rng, file: string, bytes: Uint8Array) => Uint8Array, isDamage: boolean): Target => ({
    name: `store, ${kind}`,
    weight,
    run: async (rng) => {
      const file = pick(rng, names);
      const bytes = mutate(rng, file, made.files.get(file)!);
      writeFileSync(file, bytes);
      const same = Buffer.compare(bytes, made.files.get(file)!) === 0;
      const result = await attempt(made.bytes + bytes.length, () =>
        use(file, (model, got) => {
          if (isDamage && got !== right.get(model)) broken(`${model} came out of a damaged store in another form`);
        }),
      );
      const gone = made.mend(file);
      if ((isDamage || same) && gone.length > 0) broken(`gc removed ${gone.length} objects of a damaged store: ${gone[0]!}`);
      return result;
    },
  });
  return [
    target('damaged', 3, (rng, file, bytes) => (file.endsWith('.json') ? (rng.integer(2) === 0 ? mutateBytes(rng, bytes) : Buffer.from(mutateJson(rng, Buffer.from(bytes).toString('utf8')))) : mutateSafetensors(rng, bytes)), true), // prettier-ignore
    target('hostile', 3, (rng, file, bytes) => (file.endsWith('store.json') ? Buffer.from(mutateJson(rng, Buffer.from(bytes).toString('utf8'))) : file.endsWith('.json') ? resealedRecord(rng, bytes) : resealedObject(rng, bytes)), false), // prettier-ignore
  ];
}
