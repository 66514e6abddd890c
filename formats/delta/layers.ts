/** A delta of two layers taken apart and put together: the lossy layer's bytes keep their places, only the header is written anew. */
import { createHash } from 'node:crypto';
import { PithError } from '../../core/errors.js';
import { panelBuffer } from '../../core/panel-buffer.js';
import type { TensorInfo } from '../../core/tensor.js';
import { pithVersion } from '../../core/version.js';
import * as io from '../io.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { headerLength, parseHeader, type Header, type TensorEntry as StoredEntry } from '../safetensors/header.js';
import { buildHeader } from '../safetensors/layout.js';
import { PlannedFile } from '../safetensors/planned-file.js';
import { deflated } from './blob.js';
import { ExactLayer } from './exact-layer.js';
import { DeltaFile } from './file.js';
import { checkFormat, checkSeal, exactFileMetadata, field, lossyMetadata, seal, withExact } from './manifest.js';
import { EXACT_FORMAT, EXACT_KEY, EXACT_TENSORS_KEY, exactEntry, JOINED_HEADER_KEY, joinedEntry, type ExactEntry, type RemainderEntry } from './schema.js';
import { inflated, type Piece } from './stored.js';

/**
 * What the lossy layer's header leaves free: room for the exact layer's two tensors and its metadata, with every number at its
 * longest (16 digits). So the lossy layer begins at the same byte with and without the exact one.
 */
export const EXACT_ROOM = 448;

const EXACT_KEYS: ReadonlySet<string> = new Set([EXACT_KEY, EXACT_TENSORS_KEY]);
const u8 = (name: string, bytes: number): TensorInfo => ({ name, dtype: 'U8', shape: [bytes] });

/** One after another from `at` on, each proven while it is copied: DELTA_MALFORMED. Yields the bytes of every step. */
export function* copyPieces(pieces: Iterable<Piece>, from: string, to: PlannedFile, at: number): Generator<number, number, void> {
  let position = at;
  for (const piece of pieces) {
    const hash = createHash('sha256');
    for (let done = 0; done < piece.bytes;) {
      // taken anew in every step: others may use it between two
      const panel = panelBuffer(piece.bytes - done);
      piece.read(done, panel);
      hash.update(panel);
      to.write(position + done, panel);
      done += panel.length;
      yield panel.length;
    }
    const got = hash.digest('hex');
    if (got !== piece.sha256) throw new PithError('DELTA_MALFORMED', { file: from, message: `"${piece.name}": expected sha256 ${piece.sha256}, got ${got}` });
    position += piece.bytes;
  }
  return position;
}

/** Writes a whole file: header, then pieces. The file is on disk when this returns. */
function* writeWhole(
  out: string,
  header: Uint8Array,
  bytes: number,
  copy: (to: PlannedFile) => Generator<number, unknown, void>,
): Generator<number, number, void> {
  const file = PlannedFile.create(out, bytes);
  let whole = false;
  try {
    file.write(0, header);
    yield* copy(file);
    whole = true;
  } finally {
    // also when the consumer stops
    if (!whole) file.abort();
  }
  file.finalize();
  return bytes;
}

/** The file without its exact layer: an ordinary lossy delta. Yields the bytes of every step, returns the file's. */
export function cutLossy(delta: DeltaFile, out: string): Generator<number, number, void> {
  const header = lossyHeader(delta);
  return writeWhole(out, header, delta.lossyBytes, (to) => copyPieces(delta.lossyPieces(), delta.path, to, header.length));
}

function lossyHeader({ file }: DeltaFile): Uint8Array {
  const infos = [...file.entries.values()].map((e) => e.info).filter((t) => !EXACT_KEYS.has(t.name));
  const { header } = buildHeader(infos, withExact(file.metadata ?? new Map(), undefined), file.path, { headerBytes: file.dataStart });
  seal(header);
  return header;
}

/** The exact layer alone, with the header of the whole file. Yields and returns as `cutLossy`. */
export function cutExact(delta: DeltaFile, out: string): Generator<number, number, void> {
  const layer = layerOf(delta);
  const raw = deflated(delta.file.rawHeader);
  const joined = { sha256: raw.sha256, headerBytes: delta.file.dataStart, fileBytes: delta.file.bytes };
  // the layer's tensors in their own order, so that their bytes can be appended as they lie
  const own = [...delta.file.entries.values()].map((e) => e.info).filter((t) => EXACT_KEYS.has(t.name));
  const infos = [...own, u8(JOINED_HEADER_KEY, raw.bytes.length)];
  const { header, offsets, fileBytes } = buildHeader(infos, exactFileMetadata(`pith ${pithVersion()}`, joined), out);
  seal(header);
  return writeWhole(out, header, fileBytes, function* (to) {
    yield* copyPieces(inOrder(layer, own), delta.path, to, header.length);
    to.write(header.length + offsets.get(JOINED_HEADER_KEY)!.begin, raw.bytes);
  });
}

/** NO_EXACT_LAYER in a file of one layer. */
function layerOf(delta: DeltaFile): ExactLayer {
  const layer = delta.exact;
  if (layer === undefined) throw new PithError('NO_EXACT_LAYER', { file: delta.path });
  return layer;
}

/** The layer's pieces as the file has its two tensors: remainders and list, or the other way. */
function inOrder(layer: ExactLayer, infos: readonly TensorInfo[]): Piece[] {
  const pieces = layer.pieces();
  const list = pieces.pop()!;
  return infos[0]?.name === EXACT_TENSORS_KEY ? [list, ...pieces] : [...pieces, list];
}

/** A file that holds an exact layer alone. */
export class ExactFile implements Disposable {
  private constructor(
    readonly file: SafetensorsFile,
    /** The first bytes of the whole file, and what they say. */
    readonly rawHeader: Uint8Array,
    readonly header: Header,
    readonly fileBytes: number,
  ) {}

  /** Any error of a safetensors file, NOT_A_DELTA, DELTA_VERSION or DELTA_MALFORMED (all exit 65). */
  static open(path: string): ExactFile {
    const file = SafetensorsFile.open(path);
    try {
      const metadata = Object.fromEntries(file.metadata ?? []);
      checkFormat(metadata, EXACT_FORMAT, path);
      checkSeal(file.rawHeader, path);
      const joined = field(joinedEntry, metadata, 'joined', path);
      const rawHeader = inflated(file, JOINED_HEADER_KEY, joined.sha256, joined.headerBytes);
      checkSeal(rawHeader, path);
      const got = headerLength(rawHeader, joined.fileBytes, path) + 8;
      if (got !== joined.headerBytes)
        throw new PithError('DELTA_MALFORMED', { file: path, message: `header of the whole file: expected ${joined.headerBytes} bytes, got ${got}` });
      const header = parseHeader(rawHeader.subarray(8), joined.fileBytes - joined.headerBytes, `${path}: header of the whole file`);
      return new ExactFile(file, rawHeader, header, joined.fileBytes);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** In the order of the whole file; DELTA_MALFORMED when the layer is not the one that its header names. */
  pieces(): Piece[] {
    const metadata = Object.fromEntries(this.header.metadata ?? []);
    const layer = ExactLayer.read(this.file, field(exactEntry, metadata, 'exact', this.file.path));
    const own = [...this.header.entries.values()].filter((e) => EXACT_KEYS.has(e.info.name));
    const pieces = inOrder(layer, own.map((e) => e.info)); // prettier-ignore
    const bytes = pieces.reduce((sum, p) => sum + p.bytes, 0);
    const expected = own.reduce((sum, e) => sum + e.end - e.begin, 0);
    if (bytes !== expected)
      throw new PithError('DELTA_MALFORMED', { file: this.file.path, message: `its layer has ${bytes} bytes, the whole file ${expected}` });
    return pieces;
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}

/** The exact layer behind the lossy one: the file that both were cut from, byte for byte. LAYERS_MISMATCH when they do not belong together. */
export function joinLayers(lossy: DeltaFile, exact: ExactFile, out: string): Generator<number, number, void> {
  checkFit(lossy, exact);
  const { rawHeader, fileBytes } = exact;
  return writeWhole(out, rawHeader, fileBytes, function* (to) {
    const end = yield* copyPieces(lossy.lossyPieces(), lossy.path, to, rawHeader.length);
    yield* copyPieces(exact.pieces(), exact.file.path, to, end);
  });
}

/** The list of tensors, which the metadata name by hash, covers every part: equal headers mean equal files. */
function checkFit(lossy: DeltaFile, exact: ExactFile): void {
  const mismatch = (message: string): never => {
    throw new PithError('LAYERS_MISMATCH', { file: exact.file.path, lossy: lossy.path, message });
  };
  if (lossy.manifest.exact !== undefined) mismatch('that file has an exact layer already');
  if (lossy.file.dataStart !== exact.rawHeader.length) {
    mismatch(`its lossy part has a header of ${exact.rawHeader.length} bytes, that one's has ${lossy.file.dataStart}`);
  }
  const stored = (entries: ReadonlyMap<string, StoredEntry>): string =>
    JSON.stringify([...entries].filter(([key]) => !EXACT_KEYS.has(key)).map(([key, e]) => [key, e.info.dtype, e.info.shape, e.begin, e.end]));
  if (stored(lossy.file.entries) !== stored(exact.header.entries)) mismatch('other tensors are stored there');
  const [a, b] = [lossyMetadata(exact.header.metadata ?? new Map()), lossyMetadata(lossy.file.metadata ?? new Map())];
  for (const key of new Set([...a.keys(), ...b.keys()])) if (a.get(key) !== b.get(key)) mismatch(`metadata "${key}" differs`);
}

/** One tensor's remainder in a file of its own. */
export interface SpooledRemainder extends RemainderEntry {
  readonly file: string;
}

/** A new delta of two layers: a lossy one with EXACT_ROOM in its header, and the remainders behind it. Returns the file's size. */
export function writeTwoLayers(out: string, lossyFile: string, remainders: readonly SpooledRemainder[], options: { readonly force: boolean }): number {
  using lossy = DeltaFile.open(lossyFile);
  const text = Buffer.from(JSON.stringify(remainders.map(({ name, sha256, bytes }) => ({ name, sha256, bytes }))), 'utf8');
  const list = deflated(text);
  const blobBytes = remainders.reduce((sum, r) => sum + r.bytes, 0);
  const exact: ExactEntry = { sha256: list.sha256, bytes: text.length, method: 0 };
  const infos = [...lossy.file.entries.values()].map((e) => e.info);
  const { dataStart, metadata } = lossy.file;
  const both = [...infos, u8(EXACT_KEY, blobBytes), u8(EXACT_TENSORS_KEY, list.bytes.length)];
  const { header, fileBytes } = buildHeader(both, withExact(metadata ?? new Map(), exact), out, { headerBytes: dataStart });
  seal(header);
  const file = PlannedFile.create(out, fileBytes, options);
  try {
    file.write(0, header);
    const exactBegin = drain(copyPieces(lossy.lossyPieces(), lossyFile, file, dataStart));
    const listBegin = drain(copyPieces(remainders.map(spooledPiece), lossyFile, file, exactBegin));
    file.write(listBegin, list.bytes);
  } catch (error) {
    file.abort();
    throw error;
  }
  file.finalize();
  return fileBytes;
}

function spooledPiece(r: SpooledRemainder): Piece {
  const read = (position: number, target: Uint8Array): void => {
    const fd = io.openRead(r.file);
    try {
      io.readFully(fd, target, position, r.file);
    } finally {
      io.close(fd);
    }
  };
  return { name: r.name, bytes: r.bytes, sha256: r.sha256, read };
}

function drain<R>(steps: Generator<unknown, R, void>): R {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
