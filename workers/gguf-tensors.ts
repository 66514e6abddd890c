/** One tensor of a GGUF as the model has it: its blocks decoded, its rows and values put back as they were before the converter. */
import { DTYPES, type DType } from '../core/dtype.js';
import { PithError } from '../core/errors.js';
import { panelBuffer } from '../core/panel-buffer.js';
import { byteLength, elementCount, rowCount, rowLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { PlacedEntry } from '../formats/gguf/split.js';
import { canDecode, decodeBlocks } from '../kernels/quant/ggml.js';
import type { MappedTensor, Transform } from '../models/gguf/names.js';

/** Bytes of blocks that are read at a time. */
const PANEL_BYTES = 1 << 20;

export class GgufTensor {
  readonly info: TensorInfo;
  readonly transform: Transform;
  /** Bytes of an element as it is read. */
  readonly #width: number;

  constructor(
    readonly entry: PlacedEntry,
    mapped: MappedTensor,
  ) {
    const dtype: DType = mapped.transform.kind === 'minus-one' ? 'F32' : (entry.type.dtype ?? 'F32');
    const shape = mapped.transform.kind === 'transpose' ? [...entry.shape].reverse() : entry.shape;
    this.info = { name: mapped.name, dtype, shape };
    this.transform = mapped.transform;
    this.#width = DTYPES[dtype].bits / 8;
  }

  get decodable(): boolean {
    return canDecode(this.entry.type.name);
  }

  /** Bytes [begin, begin + target.length) of the stored rows, one after another as they lie in the file, in the type they are read in. */
  readStored(begin: number, target: Uint8Array): void {
    const { entry } = this;
    if (entry.type.dtype === this.info.dtype) {
      entry.file.readInto(entry, begin, target);
      return;
    }
    const { blockElements, blockBytes } = entry.type;
    const unit = blockElements * 4;
    const panelBlocks = Math.max(1, Math.floor(PANEL_BYTES / blockBytes));
    const end = begin + target.length;
    for (let at = begin; at < end;) {
      const first = Math.floor(at / unit);
      // a block that is wanted in part stands alone, so that the rest goes straight into the target
      const whole = at % unit === 0 && end - at >= unit ? Math.min(panelBlocks, Math.floor((end - at) / unit)) : 1;
      const raw = panelBuffer(whole * blockBytes, 'gguf-blocks');
      entry.file.readInto(entry, first * blockBytes, raw);
      const until = Math.min(end, (first + whole) * unit);
      this.#decode(raw, target.subarray(at - begin, until - begin), at - first * unit);
      at = until;
    }
  }

  /** Whole blocks -> their bytes from `skip` on, as many as the target takes. */
  #decode(raw: Uint8Array, target: Uint8Array, skip: number): void {
    const { name, blockElements, blockBytes } = this.entry.type;
    const count = (raw.length / blockBytes) * blockElements;
    const direct = skip === 0 && target.length === count * 4 && target.byteOffset % 4 === 0;
    const values = direct ? new Float32Array(target.buffer, target.byteOffset, count) : new Float32Array(count);
    decodeBlocks(name, raw, values);
    if (!direct) target.set(new Uint8Array(values.buffer, skip, target.length));
  }

  /** Bytes [begin, begin + target.length) of the tensor as the model has it; `heads` and no transform only. */
  readRows(begin: number, target: Uint8Array): void {
    this.#require();
    if (this.transform.kind !== 'heads' || target.length === 0) {
      this.readStored(begin, target);
      return;
    }
    const { shape } = this.info;
    const rowBytes = rowLength(shape) * this.#width;
    const half = rowCount(shape) / this.transform.heads / 2;
    const end = begin + target.length;
    for (let at = begin; at < end;) {
      const row = Math.floor(at / rowBytes);
      const [head, inHead] = [Math.floor(row / (2 * half)), row % (2 * half)];
      // row (head, a, i) of the model is row (head, i, a) of the file
      const stored = head * 2 * half + 2 * (inHead % half) + Math.floor(inHead / half);
      const until = Math.min(end, (row + 1) * rowBytes);
      this.readStored(stored * rowBytes + (at - row * rowBytes), target.subarray(at - begin, until - begin));
      at = until;
    }
  }

  /** The whole tensor, for transforms that meet all of it. */
  whole(): Uint8Array {
    this.#require();
    const out = new Uint8Array(byteLength(this.info.dtype, this.info.shape));
    if (this.transform.kind === 'minus-one') this.#minusOne(out);
    else if (this.transform.kind === 'transpose') this.#transpose(out);
    else this.readRows(0, out);
    return out;
  }

  // w = (w + 1) - 1, in f32
  #minusOne(out: Uint8Array): void {
    const { entry } = this;
    const raw = new Uint8Array(entry.bytes);
    entry.file.readInto(entry, 0, raw);
    const values = new Float32Array(out.buffer, out.byteOffset, elementCount(entry.shape));
    decodeBlocks(entry.type.name, raw, values);
    for (let i = 0; i < values.length; i++) values[i] = values[i]! - 1;
  }

  /** Stored (out, in) -> (in, out), row panel by row panel. */
  #transpose(out: Uint8Array<ArrayBuffer>): void {
    const [rows, columns] = this.entry.shape as [number, number];
    const width = this.#width;
    const step = Math.max(1, Math.floor(PANEL_BYTES / Math.max(1, columns * width)));
    for (let start = 0; start < rows && columns > 0; start += step) {
      const count = Math.min(step, rows - start);
      const panel = new Uint8Array(count * columns * width);
      this.readStored(start * columns * width, panel);
      scatter(panel, out, { rows, columns, start, count, width });
    }
  }

  #require(): void {
    if (this.decodable) return;
    const { file, type } = this.entry;
    throw new PithError('DTYPE_UNSUPPORTED', { file: file.path, tensor: this.entry.name, got: type.name, message: 'its blocks cannot be decoded' });
  }
}

interface Panel {
  readonly rows: number;
  readonly columns: number;
  readonly start: number;
  readonly count: number;
  readonly width: number;
}

/** Rows [start, start + count) of a (rows, columns) matrix into the columns of its transpose. */
function scatter(panel: Uint8Array<ArrayBuffer>, out: Uint8Array<ArrayBuffer>, { rows, columns, start, count, width }: Panel): void {
  // words of 4 bytes, or of 2 or 1: elements of 8 bytes are two words
  const words = Math.max(1, width / 4);
  const Words = width === 1 ? Uint8Array : width === 2 ? Uint16Array : Uint32Array;
  const [from, to] = [new Words(panel.buffer, panel.byteOffset, (count * columns * width) / Words.BYTES_PER_ELEMENT), new Words(out.buffer)];
  for (let c = 0; c < columns; c++) {
    for (let r = 0; r < count; r++) for (let w = 0; w < words; w++) to[(c * rows + start + r) * words + w] = from[(r * columns + c) * words + w]!;
  }
}
