/** Side files inside a delta: streamed both ways, sizes and hashes held to, memory bounded whatever the file states. */
import { expect } from 'chai';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import type { SideFileEntry } from '../../formats/delta/schema.js';
import { hashFile, packFiles, unpackFile } from '../../formats/delta/side-files.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const from =
  (stored: Uint8Array) =>
  (position: number, target: Uint8Array): void =>
    target.set(stored.subarray(position, position + target.length));
const entry = (bytes: Uint8Array, stored: Uint8Array): SideFileEntry => ({
  name: 'a.json',
  bytes: bytes.length,
  sha256: sha(bytes),
  coding: 'deflate',
  stored: stored.length,
});

describe('formats/delta side files', () => {
  it('packed files are zlib streams end to end, and come back', async () => {
    using dir = tempDir();
    const contents = [Buffer.from('{}'), Buffer.alloc(0), randomBytes(3_000_000), Buffer.alloc(2_500_000, 'tokenizer ')];
    const paths = contents.map((bytes, i) => {
      const path = join(dir.path, String(i));
      writeFileSync(path, bytes);
      return path;
    });
    const out = join(dir.path, 'packed');
    const packed = await packFiles(paths, out);
    const stored = readFileSync(out);
    expect(packed.bytes).to.equal(stored.length);
    expect(packed.sha256).to.equal(sha(stored));
    expect(stored.equals(Buffer.concat(contents.map((c) => deflateSync(c, { level: 9 }))))).to.equal(true);
    let at = 0;
    for (const [i, bytes] of contents.entries()) {
      expect(await hashFile(paths[i]!, bytes.length)).to.equal(sha(bytes));
      const piece = stored.subarray(at, (at += packed.sizes[i]!));
      const back = Buffer.alloc(bytes.length);
      await unpackFile(entry(bytes, piece), 'd', from(piece), (position, b) => back.set(b, position));
      expect(back.equals(bytes)).to.equal(true);
    }
  });

  it('stops at the stated size: a stream that inflates to more is refused before it is held', async () => {
    const bomb = deflateSync(Buffer.alloc(256 << 20), { level: 9 });
    const before = process.memoryUsage().arrayBuffers;
    let written = 0;
    const stated = { ...entry(Buffer.alloc(1000), bomb) };
    await expectCode('DELTA_MALFORMED', () => unpackFile(stated, 'd', from(bomb), (_, b) => void (written += b.length)));
    expect(written).to.be.at.most(1000);
    expect(process.memoryUsage().arrayBuffers - before).to.be.lessThan(32 << 20);
  });

  it('a wrong size, hash, or stream', async () => {
    const bytes = Buffer.alloc(5000, 'x');
    const stored = deflateSync(bytes);
    const unpack = (change: Partial<SideFileEntry>, data: Uint8Array = stored) =>
      expectCode('DELTA_MALFORMED', () => unpackFile({ ...entry(bytes, stored), ...change }, 'd', from(data), () => undefined));
    await unpack({ bytes: 4999 });
    await unpack({ bytes: 5001 });
    await unpack({ sha256: sha(Buffer.from('y')) });
    await unpack({ stored: stored.length - 3 });
    await unpack({}, randomBytes(stored.length));
    await unpack({ stored: 0 });
  });
});
