/** Decodes objects of a store: along the chain of bases, each one's content checked against its name. */
import { createInflate } from 'node:zlib';
import { PithError } from '../core/errors.js';
import { byteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { panels, through } from '../formats/delta/side-files.js';
import type { StoreFolder } from '../formats/store/folder.js';
import { checkBase, damaged, ObjectFile } from '../formats/store/object.js';
import { contentPrefix } from '../formats/store/schema.js';
import type { PartSource, TensorSink } from '../methods/kinds.js';
import { Codecs, DECODE_SETTINGS, type TaskControl } from './codecs.js';
import { EXTRA_ROWS } from './pieces.js';
import { Scratch } from './scratch.js';
import { HashingSink, rowsOf, shifted } from './sources.js';

export const RESIDUAL = 'residual';
export const DEFLATED = 'deflate';

/** Far beyond what an add makes: a chain that bites its own tail ends here. */
const MAX_CHAIN = 64;

export class StoreObjects {
  readonly #codecs = new Codecs();

  constructor(readonly folder: StoreFolder) {}

  open(hash: string): ObjectFile {
    return ObjectFile.open(this.folder.object(hash));
  }

  /** The whole content, proven before it is given out. The caller disposes of it. */
  async load(hash: string, control: TaskControl, level = 0): Promise<Scratch> {
    let scratch: Scratch | undefined;
    try {
      await this.decode(hash, (info) => (scratch = new Scratch(info)), control, level);
      return scratch!;
    } catch (error) {
      scratch?.[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Hands the content on while it is decoded; only when this returns it is proven.
   * OBJECT_DAMAGED or OBJECT_MISSING (65) name the first bad object of the chain.
   */
  async decode(hash: string, open: (info: TensorInfo) => TensorSink | undefined, control: TaskControl, level = 0): Promise<TensorInfo> {
    using object = this.open(hash);
    const { head, path } = object;
    if (level > MAX_CHAIN) throw new PithError('OBJECT_DAMAGED', { file: path, message: `its chain of bases is longer than ${MAX_CHAIN}` });
    const info: TensorInfo = { name: hash, dtype: head.dtype, shape: head.shape };
    // before anything is made at its size: the sketch and the parts must be as they were written
    object.checkAll();
    using base = head.base === null ? undefined : await this.load(head.base.object, { ...control, report: () => undefined }, level + 1);
    if (head.base !== null) {
      using file = this.open(head.base.object);
      checkBase(path, head, file.head);
    }
    const next = open(info);
    const hashing = new HashingSink(undefined, contentPrefix(info));
    const sink: TensorSink = {
      write: async (position, bytes) => {
        await hashing.write(position, bytes);
        await next?.write(position, bytes);
      },
    };
    try {
      if (head.coding === 'deflate') await inflate(object, info, sink);
      else await this.#lossless(object, info, base, sink, control);
    } catch (error) {
      if (error instanceof PithError && error.code === 'RESIDUAL_MALFORMED') throw damaged(path, error);
      throw error;
    }
    const got = hashing.digest();
    const expected = byteLength(info.dtype, info.shape);
    if (hashing.bytes !== expected) throw new PithError('OBJECT_DAMAGED', { file: path, message: `expected ${expected} bytes, got ${hashing.bytes}` });
    if (got !== hash) throw new PithError('OBJECT_DAMAGED', { file: path, message: `its content has sha256 ${got}` });
    return info;
  }

  async #lossless(object: ObjectFile, info: TensorInfo, base: Scratch | undefined, sink: TensorSink, control: TaskControl): Promise<void> {
    const lossless = await this.#codecs.codec({ name: 'lossless', params: {} });
    const ctx = this.#codecs.ctx(DECODE_SETTINGS, info.name, control);
    const rows = object.head.base?.rows;
    if (base === undefined || rows === undefined) {
      await lossless.decode(ctx, base, partsOf(object, ''), info, sink);
      return;
    }
    const common: TensorInfo = { ...info, shape: [rows, ...info.shape.slice(1)] };
    await lossless.decode(ctx, rowsOf(base, 0, rows), partsOf(object, ''), common, sink);
    if (rows === info.shape[0]) return;
    const rest: TensorInfo = { ...info, shape: [info.shape[0]! - rows, ...info.shape.slice(1)] };
    await lossless.decode(ctx, undefined, partsOf(object, EXTRA_ROWS), rest, shifted(sink, byteLength(info.dtype, common.shape)));
  }
}

function partsOf(object: ObjectFile, prefix: string): PartSource {
  return {
    info: (part) => object.partInfo(prefix + part),
    read: async (part, begin, end) => object.read(prefix + part, begin, end),
    readInto: async (part, begin, target) => object.readInto(prefix + part, begin, target),
  };
}

async function inflate(object: ObjectFile, info: TensorInfo, sink: TensorSink): Promise<void> {
  const limit = byteLength(info.dtype, info.shape);
  const stored = object.partInfo(DEFLATED).shape[0]!;
  let at = 0;
  try {
    for await (const piece of through(
      createInflate(),
      panels(stored, (position, target) => object.readInto(DEFLATED, position, target)),
    )) {
      if (at + piece.length > limit) throw new PithError('OBJECT_DAMAGED', { file: object.path, message: `it holds more than ${limit} bytes` });
      await sink.write(at, piece);
      at += piece.length;
    }
  } catch (error) {
    if (error instanceof PithError) throw error;
    throw new PithError('OBJECT_DAMAGED', { file: object.path, message: 'it cannot be inflated' });
  }
}
