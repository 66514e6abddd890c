/**
 * What every command reads and writes. One file, shards, base + delta, base + adapter: all are readers,
 * so every command takes every form.
 */
import type { TensorInfo, TensorView } from '../core/tensor.js';

/** One safetensors file of a checkpoint, as it lies on disk. */
export interface CheckpointFile {
  /** Path relative to the checkpoint's folder, `/`-separated. */
  readonly name: string;
  readonly path: string;
  /** Size of the whole file in bytes. */
  readonly bytes: number;
  /** The raw first `8 + N` bytes: header length and header, padding included. */
  readonly rawHeader: Uint8Array;
  /** Tensor names in the order of their data. */
  readonly order: readonly string[];
}

export interface CheckpointReader extends AsyncDisposable {
  /** What the user named; errors show it. */
  readonly source: string;
  /** Tensors by name, in the order of files and of their data inside. */
  readonly infos: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Its safetensors files: those behind it, or those that a restore would make of base + delta or of a GGUF; empty for other composed ones. */
  readonly files: readonly CheckpointFile[];
  /** Whole tensor, or rows [start, end) of its first dimension. The bytes are the caller's own. */
  read(name: string, rows?: readonly [start: number, end: number]): Promise<TensorView>;
  /** Of a composed checkpoint: its own name, its files' state, the folder of its other files. A plain one has them in its path. */
  readonly title?: string;
  stamp?(): string;
  sideFolder?(): Promise<string | undefined>;
  /** Of a composed checkpoint without other files of its own: where config.json and the tokenizer lie that it runs with. */
  configFolder?(): Promise<string | undefined>;
  /** Of a container whose tensors are stored in another form than they are read in. */
  readonly stored?: StoredForm;
  /** What whoever opened it should know, in words; nothing is wrong with what is read. */
  readonly warnings?: readonly string[];
  /** Bytes [begin, begin + target.length) of the tensor's data, straight into `target` (a view on wasm memory, say). */
  readInto(name: string, begin: number, target: Uint8Array): Promise<void>;
}

/** What lies in the files of a container, for people: a reader's `infos` say what is read from it. */
export interface StoredForm {
  readonly format: 'gguf' | 'factorized';
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly tensors: number }[];
  /** Architecture, file type, context length and the like. */
  readonly facts: Readonly<Record<string, string | number>>;
  /** By the name that the tensor is read under. */
  readonly tensors: ReadonlyMap<string, { readonly name: string; readonly type: string; readonly bytes: number }>;
}

export interface CheckpointWriter {
  /** Tensors may come in any order. */
  write(view: TensorView): Promise<void>;
  /** Canonical order, fsync, rename: nothing is seen under its final name before this returns. */
  finalize(metadata: Readonly<Record<string, string>>): Promise<{ files: string[]; bytes: number }>;
  abort(): Promise<void>;
}
