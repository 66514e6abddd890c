/** The folder of a store: where what lies, and its small JSON files. */
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import type * as z from 'zod';
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';
import { parseJson, readText, type Refuse } from '../json.js';
import { compareUtf8 } from '../safetensors/layout.js';
import { MODEL_NAME, modelFile, STORE_VERSION, storeFile, type StoredModel } from './schema.js';

export class StoreFolder {
  private constructor(readonly path: string) {}

  /** NOT_FOUND (66), NOT_A_STORE, STORE_VERSION or STORE_MALFORMED (65). */
  static open(path: string): StoreFolder {
    const file = join(path, 'store.json');
    if (io.stat(path) === undefined) throw new PithError('NOT_FOUND', { file: path });
    if (io.stat(file)?.isFile !== true) throw new PithError('NOT_A_STORE', { file: path, message: 'it has no store.json; `pith store init` makes one' });
    const { version } = parse(storeFile, json(readText(file, malformed(file)), file), file);
    if (version > STORE_VERSION) throw new PithError('STORE_VERSION', { file, expected: STORE_VERSION, got: version });
    return new StoreFolder(path);
  }

  /** Makes an empty store; `store.json` comes last. OUTPUT_EXISTS when the folder holds anything. */
  static init(path: string, generator: string): void {
    if (io.stat(path) !== undefined && io.readdir(path).some((e) => !['objects', 'models', 'tmp'].includes(e.name))) {
      throw new PithError('OUTPUT_EXISTS', { file: path });
    }
    for (const name of ['objects', 'models', 'tmp']) io.mkdir(join(path, name));
    const text = `${JSON.stringify({ format: 'pith-store', version: STORE_VERSION, generator })}\n`;
    io.writeFileDurably(join(path, 'store.json'), Buffer.from(text, 'utf8'));
    io.fsyncDir(dirname(join(path, '.')));
  }

  get lock(): string {
    return join(this.path, 'lock');
  }

  get tmp(): string {
    return join(this.path, 'tmp');
  }

  object(hash: string): string {
    return join(this.path, 'objects', hash.slice(0, 2), `${hash}.safetensors`);
  }

  model(name: string): string {
    return join(this.path, 'models', `${name}.json`);
  }

  /** Every object's file, sorted by hash. */
  objects(): { readonly hash: string; readonly path: string; readonly bytes: number; readonly mtimeMs: number }[] {
    const folder = join(this.path, 'objects');
    const out = [];
    for (const dir of io.readdir(folder)) {
      if (!/^[0-9a-f]{2}$/.test(dir.name)) continue;
      for (const e of io.readdir(join(folder, dir.name))) {
        const hash = /^([0-9a-f]{64})\.safetensors$/.exec(e.name)?.[1];
        const path = join(folder, dir.name, e.name);
        const stat = hash === undefined ? undefined : io.stat(path);
        if (hash !== undefined && stat !== undefined) out.push({ hash, path, bytes: stat.bytes, mtimeMs: stat.mtimeMs });
      }
    }
    return out.sort((a, b) => (a.hash < b.hash ? -1 : 1));
  }

  modelNames(): string[] {
    const names = io.readdir(join(this.path, 'models')).map((e) => /^(.+)\.json$/.exec(e.name)?.[1]);
    return names.filter((n) => n !== undefined && MODEL_NAME.test(n)).sort((a, b) => compareUtf8(a!, b!)) as string[];
  }

  /** STORE_MALFORMED when any byte of it differs from what was written. */
  readModel(name: string): StoredModel {
    const file = this.model(name);
    const text = readText(file, malformed(file));
    const value = json(text, file) as { readonly sha256?: unknown };
    const { sha256, ...rest } = value;
    const got = modelText(rest as StoredModel);
    if (typeof sha256 !== 'string' || text !== got) {
      const version = (rest as { version?: unknown }).version;
      if (typeof version === 'number' && version > STORE_VERSION) throw new PithError('STORE_VERSION', { file, expected: STORE_VERSION, got: version });
      throw new PithError('STORE_MALFORMED', { file, message: 'it is not as it was written' });
    }
    return parse(modelFile, rest, file);
  }

  /** Answers false when the name is taken and `force` is not given. */
  writeModel(model: StoredModel, temp: string, { force }: { readonly force: boolean }): boolean {
    const fd = io.openWrite(temp, 'w+');
    try {
      io.writeFully(fd, Buffer.from(modelText(model), 'utf8'), 0, temp);
      io.fsync(fd, temp);
    } finally {
      io.close(fd);
    }
    const file = this.model(model.name);
    if (force) io.rename(temp, file);
    else if (!io.linkNew(temp, file)) return false;
    io.fsyncDir(dirname(file));
    return true;
  }
}

/** One line of JSON; `sha256`, last, is that of the text before `,"sha256"`. */
function modelText(model: StoredModel): string {
  const body = JSON.stringify(model).slice(0, -1);
  return `${body},"sha256":"${createHash('sha256').update(body).digest('hex')}"}\n`;
}

/** Objects that a model names itself. */
export function modelObjects(model: StoredModel): string[] {
  return [...model.files.flatMap((f) => [f.header, ...f.tensors.map((t) => t.object)]), ...model.sideFiles.map((f) => f.object)];
}

const malformed =
  (file: string): Refuse =>
  (message) =>
    new PithError('STORE_MALFORMED', { file, message });

function json(text: string, file: string): object {
  const value = parseJson(text, malformed(file));
  if (typeof value !== 'object' || value === null) throw malformed(file)('it is not a JSON object');
  return value;
}

function parse<T>(schema: z.ZodType<T>, value: unknown, file: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new PithError('STORE_MALFORMED', { file, message: `${issue?.path.join('.') ?? '?'}: ${issue?.message ?? '?'}` });
}
