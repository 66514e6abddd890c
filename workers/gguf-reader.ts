/**
 * A GGUF model as a checkpoint: transformers' names and values, decoded block by block while they are read; quantized tensors are F32,
 * stored floats and integers keep their type. An architecture that is not known is read by the file's own names.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { GGUF_FILE_TYPES } from '../core/ggml.js';
import { PithError } from '../core/errors.js';
import { elementCount } from '../core/shape.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import type { CheckpointFile, CheckpointReader, StoredForm } from '../formats/checkpoint.js';
import { copyFile } from '../formats/delta/side-files.js';
import { GgufSet, type PlacedEntry } from '../formats/gguf/split.js';
import * as io from '../formats/io.js';
import { checkpointFolder } from '../formats/open-checkpoint.js';
import { rowSlice } from '../formats/row-slice.js';
import { asOneFile } from '../formats/safetensors/one-file.js';
import { decodeBlocks } from '../kernels/quant/ggml.js';
import { configText, generationConfigOf, modelConfigOf } from '../models/gguf/config.js';
import { isKnownArchitecture, mapTensors } from '../models/gguf/names.js';
import { tokenizerConfigOf, tokenizerOf, tokenizerProblem } from '../models/gguf/tokenizer.js';
import { GgufTensor } from './gguf-tensors.js';

/** Files of a folder that are better than what its GGUF says. */
const OWN_FILES = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'chat_template.jinja'];

export class GgufReader implements CheckpointReader {
  readonly infos: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
  readonly #tensors: ReadonlyMap<string, GgufTensor>;
  #file: CheckpointFile | undefined;
  #stored: StoredForm | undefined;
  /** The last tensor that was made whole. */
  #last: { readonly name: string; readonly bytes: Uint8Array } | undefined;
  #folder: string | undefined;

  private constructor(
    readonly source: string,
    private readonly set: GgufSet,
  ) {
    const { first } = set;
    const { tensors, unknown } = mapTensors(first, set.entries.values());
    this.#tensors = new Map(tensors.map((m) => [m.name, new GgufTensor(set.entries.get(m.stored)!, m)]));
    this.infos = new Map([...this.#tensors].map(([name, t]) => [name, t.info]));
    this.metadata = Object.fromEntries([...first.keys()].map((key) => [key, first.show(key)]));
    this.warnings = [...set.files.flatMap((f) => f.header.warnings), ...this.#doubts(unknown)];
  }

  /** The errors of GGUF headers and of split sets; SHAPE_MISMATCH or GGUF_FIELD (65) when metadata and tensors contradict each other. */
  static open(source: string, path: string): GgufReader {
    const set = GgufSet.open(path);
    try {
      return new GgufReader(source, set);
    } catch (error) {
      set[Symbol.dispose]();
      throw error;
    }
  }

  #doubts(unknown: readonly string[]): string[] {
    const { first } = this.set;
    const doubts: string[] = [];
    const architecture = first.string('general.architecture');
    if (architecture === undefined || !isKnownArchitecture(architecture)) {
      doubts.push(`${this.source}: architecture "${architecture ?? 'none'}" is not known: tensors keep the file's names, and there is no config.json`);
    } else if (unknown.length > 0) {
      doubts.push(`${this.source}: ${unknown.length} tensors are not of a ${architecture} model and keep the file's names, the first is "${unknown[0]!}"`);
    }
    const problem = tokenizerProblem(first);
    if (problem !== undefined) doubts.push(`${this.source}: no tokenizer.json: ${problem}`);
    const opaque = [...this.#tensors.values()].filter((t) => !t.decodable);
    if (opaque.length > 0)
      doubts.push(`${this.source}: ${opaque.length} tensors cannot be decoded, the first is "${opaque[0]!.entry.name}" (${opaque[0]!.entry.type.name})`);
    return doubts;
  }

  /** The one file that its tensors would make, so that a delta or a store can hold what is read. */
  get files(): readonly CheckpointFile[] {
    if (this.#file === undefined) {
      this.#file = asOneFile(this.infos.values(), this.set.first.path, this.source);
    }
    return [this.#file];
  }

  get stored(): StoredForm {
    this.#stored ??= {
      format: 'gguf',
      files: this.set.files.map((f) => ({ name: basename(f.path), bytes: f.bytes, tensors: f.tensors.size })),
      facts: this.#facts(),
      tensors: new Map([...this.#tensors].map(([name, { entry }]) => [name, { name: entry.name, type: entry.type.name, bytes: entry.bytes }])),
    };
    return this.#stored;
  }

  #facts(): Record<string, string | number> {
    const { first } = this.set;
    const architecture = first.string('general.architecture');
    const type = first.number('general.file_type');
    const all = {
      architecture,
      name: first.string('general.name'),
      fileType: type === undefined ? undefined : (GGUF_FILE_TYPES.get(type) ?? `type ${type}`),
      contextLength: architecture === undefined ? undefined : first.number(`${architecture}.context_length`),
      quantizationVersion: first.number('general.quantization_version'),
      tokenizer: [first.string('tokenizer.ggml.model'), first.string('tokenizer.ggml.pre')].filter((t) => t !== undefined).join(', ') || undefined,
      version: first.header.version,
    };
    return Object.fromEntries(Object.entries(all).filter((e): e is [string, string | number] => e[1] !== undefined));
  }

  stamp(): string {
    return this.set.files.map((f) => `${basename(f.path)}:${f.stamp()}`).join('|');
  }

  #tensor(name: string): GgufTensor {
    const t = this.#tensors.get(name);
    if (t === undefined) throw new PithError('TENSOR_MISSING', { file: this.source, tensor: name });
    return t;
  }

  async read(name: string, rows?: readonly [start: number, end: number]): Promise<TensorView> {
    const { info } = this.#tensor(name);
    const slice = rowSlice(info, rows, this.source);
    const bytes = new Uint8Array(slice.bytes);
    await this.readInto(name, slice.begin, bytes);
    return { ...info, shape: slice.shape, bytes };
  }

  async readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    const t = this.#tensor(name);
    const { kind } = t.transform;
    if (kind === 'none' || kind === 'heads') {
      t.readRows(begin, target);
      return;
    }
    if (this.#last?.name !== name) this.#last = { name, bytes: t.whole() };
    target.set(this.#last.bytes.subarray(begin, begin + target.length));
  }

  #values(entry: PlacedEntry | undefined): Float32Array | undefined {
    if (entry === undefined) return undefined;
    const raw = new Uint8Array(entry.bytes);
    entry.file.readInto(entry, 0, raw);
    const values = new Float32Array(elementCount(entry.shape));
    decodeBlocks(entry.type.name, raw, values);
    return values;
  }

  /** config.json, generation_config.json and the tokenizer's files, from the metadata; files that lie in the folder itself are preferred. */
  async sideFolder(): Promise<string | undefined> {
    if (this.#folder !== undefined) return this.#folder;
    const meta = this.set.first;
    const { entries } = this.set;
    const { config } = modelConfigOf({ meta, shape: (name) => entries.get(name)?.shape, factors: (name) => this.#values(entries.get(name)) });
    const tokenizer = tokenizerOf(meta);
    const folder = mkdtempSync(join(tmpdir(), 'pith-side-'));
    this.#folder = folder;
    const put = (name: string, text: string): void => {
      const path = join(folder, name);
      const fd = io.openWrite(path, 'w+');
      try {
        io.writeFully(fd, Buffer.from(text, 'utf8'), 0, path);
      } finally {
        io.close(fd);
      }
    };
    const json = (document: object): string => `${JSON.stringify(document, null, 2)}\n`;
    if (config !== undefined) {
      put('config.json', configText(config));
      put('generation_config.json', json(generationConfigOf(meta)));
    }
    if (tokenizer !== undefined) {
      put('tokenizer.json', json(tokenizer));
      put('tokenizer_config.json', json(tokenizerConfigOf(meta)));
    }
    await this.#ownFiles(folder);
    return folder;
  }

  async #ownFiles(folder: string): Promise<void> {
    const own = checkpointFolder(this.source);
    for (const name of own === undefined ? [] : OWN_FILES) {
      const [from, to] = [join(own!, name), join(folder, name)];
      const s = io.stat(from);
      if (s?.isFile !== true) continue;
      const fd = io.openWrite(to, 'w+');
      try {
        await copyFile(from, s.bytes, (position, bytes) => io.writeFully(fd, bytes, position, to));
      } finally {
        io.close(fd);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#last = undefined;
    if (this.#folder !== undefined) io.remove(this.#folder);
    this.set[Symbol.dispose]();
  }
}
