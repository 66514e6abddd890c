/** Writes a checkpoint whose tensors are known by header: one file, or shards with an index. */
import { basename, dirname, join } from 'node:path';
import { PithError } from '../../core/errors.js';
import { byteLength, elementCount, totalByteLength } from '../../core/shape.js';
import type { TensorInfo, TensorView } from '../../core/tensor.js';
import type { CheckpointWriter } from '../checkpoint.js';
import * as io from '../io.js';
import { buildHeader, canonicalOrder, compareUtf8, type Layout } from './layout.js';
import { PlannedFile } from './planned-file.js';

/** huggingface_hub's default, decimal. */
export const DEFAULT_SHARD_BYTES = 5_000_000_000;

export interface WriterOptions {
  readonly force?: boolean;
  readonly shardBytes?: number;
  readonly metadata?: Readonly<Record<string, string>>;
}

interface Shard {
  readonly name: string;
  readonly layout: Layout;
  readonly file: PlannedFile;
}

/** Greedy split in the given order; a tensor above the limit sits alone. */
export function splitShards<T extends TensorInfo>(infos: readonly T[], shardBytes: number): T[][] {
  const shards: T[][] = [];
  let room = 0;
  for (const t of infos) {
    const bytes = byteLength(t.dtype, t.shape);
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = shardBytes;
    }
    shards.at(-1)!.push(t);
    room -= bytes;
  }
  return shards.length === 0 ? [[]] : shards;
}

/** Index JSON as transformers writes it: indent 2, keys sorted, a newline at the end. */
export function indexJson(infos: readonly TensorInfo[], weightMap: ReadonlyMap<string, string>): string {
  const sorted = [...weightMap].sort(([a], [b]) => compareUtf8(a, b));
  const lines = sorted.map(([name, file]) => `    ${JSON.stringify(name)}: ${JSON.stringify(file)}`);
  const parameters = infos.reduce((sum, t) => sum + elementCount(t.shape), 0);
  const bytes = totalByteLength(infos);
  return `{\n  "metadata": {\n    "total_parameters": ${parameters},\n    "total_size": ${bytes}\n  },\n  "weight_map": {\n${lines.join(',\n')}\n  }\n}\n`;
}

export class SafetensorsWriter implements CheckpointWriter {
  readonly #shards: Shard[] = [];
  readonly #shardOf = new Map<string, Shard>();
  readonly #missing = new Set<string>();

  /** `out`: a `.safetensors` file, or a folder for `model.safetensors` or shards. `infos` in the order in which shards are filled. */
  constructor(
    readonly out: string,
    private readonly infos: readonly TensorInfo[],
    private readonly options: WriterOptions = {},
  ) {
    const single = out.endsWith('.safetensors');
    const groups = single ? [infos] : splitShards(infos, options.shardBytes ?? DEFAULT_SHARD_BYTES);
    const folder = single ? dirname(out) : out;
    io.mkdir(folder);
    try {
      groups.forEach((group, i) => {
        const name = single ? basename(out) : groups.length === 1 ? 'model.safetensors' : shardName(i, groups.length);
        this.#add(folder, name, group);
      });
    } catch (error) {
      this.#discard();
      throw error;
    }
  }

  #add(folder: string, name: string, group: readonly TensorInfo[]): void {
    const path = join(folder, name);
    const layout = buildHeader(canonicalOrder(group), { format: 'pt', ...this.options.metadata }, path);
    const force = this.options.force ?? false;
    const shard: Shard = { name, layout, file: PlannedFile.create(path, layout.fileBytes, { force }) };
    this.#shards.push(shard);
    shard.file.write(0, layout.header);
    for (const t of group) {
      this.#shardOf.set(t.name, shard);
      this.#missing.add(t.name);
    }
  }

  /** WRITER_BYTES when the bytes are not what the header says. */
  async write(view: TensorView): Promise<void> {
    const shard = this.#shardOf.get(view.name);
    if (shard === undefined) throw new PithError('INTERNAL', { message: `tensor "${view.name}" was not planned` });
    const { begin, end } = shard.layout.offsets.get(view.name)!;
    if (view.bytes.length !== end - begin) {
      throw new PithError('WRITER_BYTES', { file: shard.file.path, tensor: view.name, expected: end - begin, got: view.bytes.length });
    }
    shard.file.write(shard.layout.header.length + begin, view.bytes);
    this.#missing.delete(view.name);
  }

  async finalize(): Promise<{ files: string[]; bytes: number }> {
    const [missing] = this.#missing;
    if (missing !== undefined) throw new PithError('INTERNAL', { message: `tensor "${missing}" was planned and never written` });
    try {
      for (const s of this.#shards) s.file.sync();
      for (const s of this.#shards) s.file.finalize();
    } catch (error) {
      this.#discard();
      throw error;
    }
    const files = this.#shards.map((s) => s.file.path);
    if (this.#shards.length > 1) {
      const path = join(this.out, 'model.safetensors.index.json');
      const weightMap = new Map([...this.#shardOf].map(([name, s]) => [name, s.name]));
      io.writeFileDurably(path, Buffer.from(indexJson(this.infos, weightMap), 'utf8'));
      files.push(path);
    }
    return { files, bytes: this.#shards.reduce((sum, s) => sum + s.layout.fileBytes, 0) };
  }

  #discard(): void {
    for (const s of this.#shards) s.file.abort();
  }

  async abort(): Promise<void> {
    this.#discard();
  }
}

/** `model-00001-of-00002.safetensors` */
export function shardName(index: number, count: number): string {
  const five = (n: number): string => String(n).padStart(5, '0');
  return `model-${five(index + 1)}-of-${five(count)}.safetensors`;
}
