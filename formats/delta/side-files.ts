/** The other files of a checkpoint's folder inside a delta: deflated one after another into one stored tensor, streamed both ways. */
import { createHash } from 'node:crypto';
import { createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib';
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';
import type { SideFileEntry } from './schema.js';

const PANEL_BYTES = 1 << 20;

/** Reads bytes [0, length) of something, in panels. */
export async function* panels(length: number, read: (position: number, target: Uint8Array) => void): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < length; at += PANEL_BYTES) {
    const panel = new Uint8Array(Math.min(PANEL_BYTES, length - at));
    read(at, panel);
    yield panel;
  }
}

/** What a zlib stream makes of `input`. The stream is ended early when the consumer stops. */
export async function* through(stream: Deflate | Inflate, input: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const feed = (async () => {
    for await (const panel of input) {
      if (stream.destroyed) return;
      if (!stream.write(panel)) await new Promise<void>((go) => void stream.once('drain', go).once('close', go));
    }
    stream.end();
  })().catch((error: unknown) => void stream.destroy(error as Error));
  try {
    for await (const out of stream) yield out as Uint8Array;
  } finally {
    stream.destroy();
    await feed;
  }
}

export interface FileBytes {
  readonly bytes: number;
  readonly sha256: string;
}

/** Hands the first `bytes` of a file on, in panels. */
export async function copyFile(path: string, bytes: number, write: (position: number, bytes: Uint8Array) => void): Promise<void> {
  const fd = io.openRead(path);
  try {
    let at = 0;
    for await (const panel of panels(bytes, (position, target) => io.readFully(fd, target, position, path))) {
      write(at, panel);
      at += panel.length;
    }
  } finally {
    io.close(fd);
  }
}

/** SHA-256 of a file, in panels. */
export async function hashFile(path: string, bytes: number): Promise<string> {
  const hash = createHash('sha256');
  await copyFile(path, bytes, (_, panel) => void hash.update(panel));
  return hash.digest('hex');
}

/** Deflates files (level 9: tokenizers are small against the weights) one after another into `out`; `sizes`: stored bytes of each. */
export async function packFiles(paths: readonly string[], out: string): Promise<FileBytes & { readonly sizes: number[] }> {
  const hash = createHash('sha256');
  const sizes: number[] = [];
  let at = 0;
  const to = io.openWrite(out, 'w+');
  try {
    for (const path of paths) {
      const start = at;
      const from = io.openRead(path);
      try {
        const input = panels(io.fstat(from, path).bytes, (position, target) => io.readFully(from, target, position, path));
        for await (const piece of through(createDeflate({ level: 9 }), input)) {
          io.writeFully(to, piece, at, out);
          hash.update(piece);
          at += piece.length;
        }
      } finally {
        io.close(from);
      }
      sizes.push(at - start);
    }
  } finally {
    io.close(to);
  }
  return { bytes: at, sha256: hash.digest('hex'), sizes };
}

/** Inflates one file and hands its bytes on, none beyond the size that `f` states: DELTA_MALFORMED when size, hash or stream are wrong. */
export async function unpackFile(
  f: SideFileEntry,
  delta: string,
  read: (position: number, target: Uint8Array) => void,
  write: (position: number, bytes: Uint8Array) => void,
): Promise<void> {
  const bad = (message: string): PithError => new PithError('DELTA_MALFORMED', { file: delta, message: `side file "${f.name}": ${message}` });
  const hash = createHash('sha256');
  let at = 0;
  try {
    for await (const piece of through(createInflate(), panels(f.stored ?? 0, read))) {
      if (at + piece.length > f.bytes) throw bad(`more than ${f.bytes} bytes`);
      hash.update(piece);
      write(at, piece);
      at += piece.length;
    }
  } catch (error) {
    if (error instanceof PithError) throw error;
    throw bad('cannot be inflated');
  }
  const got = hash.digest('hex');
  if (at !== f.bytes) throw bad(`expected ${f.bytes} bytes, got ${at}`);
  if (got !== f.sha256) throw bad(`expected sha256 ${f.sha256}, got ${got}`);
}
