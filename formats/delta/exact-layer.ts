/** The exact layer of a delta: for each tensor that the lossy layer changes, the remainder between its result and the tuned tensor. */
import { PithError } from '../../core/errors.js';
import type { SafetensorsFile } from '../safetensors/file.js';
import { field } from './manifest.js';
import { EXACT_KEY, EXACT_TENSORS_KEY, remainderList, type ExactEntry, type RemainderEntry } from './schema.js';
import { hashPiece, inflated, storedPiece, type Piece, type Span } from './stored.js';

export class ExactLayer {
  readonly #pieces: ReadonlyMap<string, Piece & { readonly span: Span }>;
  readonly #proven = new Set<string>();

  private constructor(
    private readonly file: SafetensorsFile,
    private readonly entry: ExactEntry,
    list: readonly RemainderEntry[],
  ) {
    let at = 0;
    const placed = list.map(({ name, sha256, bytes }) => {
      const span: Span = [at, (at += bytes)];
      return [name, { ...storedPiece(file, EXACT_KEY, sha256, span, name), span }] as const;
    });
    this.#pieces = new Map(placed);
  }

  /** From the file that holds it: DELTA_MALFORMED when its list is damaged or does not fill the layer. */
  static read(file: SafetensorsFile, entry: ExactEntry): ExactLayer {
    const bad = (message: string): never => {
      throw new PithError('DELTA_MALFORMED', { file: file.path, message });
    };
    const text = Buffer.from(inflated(file, EXACT_TENSORS_KEY, entry.sha256, entry.bytes)).toString('utf8');
    const list = field(remainderList, {}, EXACT_TENSORS_KEY, file.path, text);
    const names = new Set<string>();
    for (const { name } of list) {
      if (names.has(name)) bad(`the exact layer names tensor "${name}" twice`);
      names.add(name);
    }
    const { begin, end } = file.entry(EXACT_KEY);
    const named = list.reduce((sum, r) => sum + r.bytes, 0);
    if (named !== end - begin) bad(`the exact layer holds ${end - begin} bytes, its list names ${named}`);
    return new ExactLayer(file, entry, list);
  }

  get tensors(): ReadonlySet<string> {
    return new Set(this.#pieces.keys());
  }

  has(tensor: string): boolean {
    return this.#pieces.has(tensor);
  }

  /** Stored bytes of a tensor's remainder; 0 without one. */
  bytes(tensor: string): number {
    return this.#pieces.get(tensor)?.bytes ?? 0;
  }

  /** Where a tensor's remainder lies in the file. */
  span(tensor: string): Span | undefined {
    const span = this.#pieces.get(tensor)?.span;
    const start = this.file.dataStart + this.file.entry(EXACT_KEY).begin;
    return span === undefined ? undefined : [start + span[0], start + span[1]];
  }

  /** Bytes [begin, begin + target.length) of a tensor's remainder; the whole is hashed before the first is given out: DELTA_TENSOR. */
  readInto(tensor: string, begin: number, target: Uint8Array): void {
    const piece = this.#pieces.get(tensor);
    const bad = (message: string): never => {
      throw new PithError('DELTA_TENSOR', { file: this.file.path, tensor, message });
    };
    if (piece === undefined) return bad('it has no remainder');
    if (!this.#proven.has(tensor)) {
      const got = hashPiece(piece);
      if (got !== piece.sha256) bad(`its remainder: expected sha256 ${piece.sha256}, got ${got}`);
      this.#proven.add(tensor);
    }
    piece.read(begin, target);
  }

  /** All of the layer as it is stored: the remainders, then their list. */
  pieces(): Piece[] {
    return [...this.#pieces.values(), storedPiece(this.file, EXACT_TENSORS_KEY, this.entry.sha256)];
  }
}
