/** Tensors -> header bytes, the same as Python's `safetensors` 0.8.0 writes. */
import { DTYPES } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import { byteLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { MAX_HEADER_BYTES } from './header.js';

/** Order of the UTF-8 bytes; `<` on JS strings is that of UTF-16 units and differs above U+FFFF. */
export function compareUtf8(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8'));
}

/** dtype rank descending, then name. */
export function canonicalOrder<T extends TensorInfo>(infos: Iterable<T>): T[] {
  return [...infos].sort((a, b) => DTYPES[b.dtype].rank - DTYPES[a.dtype].rank || compareUtf8(a.name, b.name));
}

export interface Layout {
  /** `8 + N` bytes. */
  readonly header: Uint8Array;
  /** Offsets in the data section, in the order of the data. */
  readonly offsets: ReadonlyMap<string, { readonly begin: number; readonly end: number }>;
  readonly fileBytes: number;
}

export interface LayoutOptions {
  /** The header's end falls on a multiple of it; default 8, as the reference pads. */
  readonly padTo?: number;
  /** Length of the header, `8 + N`: WRITER_BYTES when it needs more. */
  readonly headerBytes?: number;
}

/** `infos` in the order of the data (see canonicalOrder). Metadata keys are sorted: the reference's order is random. */
export function buildHeader(
  infos: readonly TensorInfo[],
  metadata: Readonly<Record<string, string>> | undefined,
  file: string,
  options: LayoutOptions = {},
): Layout {
  const fields: string[] = [];
  if (metadata !== undefined) {
    const keys = Object.keys(metadata).sort(compareUtf8);
    fields.push(`"__metadata__":{${keys.map((k) => `${jsonString(k, file)}:${jsonString(metadata[k]!, file)}`).join(',')}}`);
  }
  const offsets = new Map<string, { begin: number; end: number }>();
  let at = 0;
  for (const t of infos) {
    if (t.name === '__metadata__') throw new PithError('WRITER_NAME', { file, tensor: t.name, message: 'the name is reserved' });
    if (offsets.has(t.name)) throw new PithError('WRITER_NAME', { file, tensor: t.name, message: 'it occurs twice' });
    const end = at + byteLength(t.dtype, t.shape);
    if (!Number.isSafeInteger(end)) {
      throw new PithError('TENSOR_MISALIGNED', { file, tensor: t.name, dtype: t.dtype, shape: JSON.stringify(t.shape), got: (end - at) * 8 });
    }
    fields.push(`${jsonString(t.name, file)}:{"dtype":"${t.dtype}","shape":[${t.shape.join(',')}],"data_offsets":[${at},${end}]}`);
    offsets.set(t.name, { begin: at, end });
    at = end;
  }
  const json = Buffer.from(`{${fields.join(',')}}`, 'utf8');
  const padTo = options.padTo ?? 8;
  const total = options.headerBytes ?? Math.ceil((8 + json.length) / padTo) * padTo;
  if (8 + json.length > total) throw new PithError('WRITER_BYTES', { file, tensor: 'header', expected: total, got: 8 + json.length });
  if (total - 8 > MAX_HEADER_BYTES) throw new PithError('HEADER_TOO_LARGE', { file, expected: MAX_HEADER_BYTES, got: total - 8 });
  const header = new Uint8Array(total).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(total - 8), true);
  header.set(json, 8);
  return { header, offsets, fileBytes: total + at };
}

/** As serde_json escapes; a lone surrogate has no UTF-8 form. */
function jsonString(text: string, file: string): string {
  if (!text.isWellFormed()) throw new PithError('WRITER_NAME', { file, tensor: text.toWellFormed(), message: 'a lone surrogate has no UTF-8 form' });
  return JSON.stringify(text);
}
