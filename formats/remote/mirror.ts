/** The parts of a remote file that were needed, in a local file of its size: everything else in it is a hole. */
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';
import { coalesced, totalBytes, without, type Interval } from './intervals.js';
import { RemoteFile, type RemoteOptions } from './ranges.js';

/** Asked for unseen: the header of a small file whole, of a large one little more than its length. */
export const FIRST_BYTES = 32 << 10;
/** Bytes that nobody needs between two ranges are taken along up to here: a request costs more. */
const GAP_BYTES = 64 << 10;

export class Mirror implements Disposable {
  #held: Interval[] = [];
  #remote: RemoteFile | undefined;
  #isOpen = true;

  private constructor(
    readonly path: string,
    private readonly fd: number,
  ) {}

  /** `path`: where it goes; nothing must be there. The first bytes are in it when this returns. */
  static async open(url: string, path: string, options: RemoteOptions = {}): Promise<Mirror> {
    const mirror = new Mirror(path, io.openWrite(path, 'wx+'));
    try {
      mirror.#remote = await RemoteFile.open(url, FIRST_BYTES, mirror.#keep, options);
      io.truncate(mirror.fd, mirror.remote.bytes, path);
      return mirror;
    } catch (error) {
      mirror[Symbol.dispose]();
      throw error;
    }
  }

  get remote(): RemoteFile {
    return this.#remote!;
  }

  readonly #keep = (position: number, bytes: Uint8Array): void => {
    // what still comes after the end must not go to a file that has the number of this one now
    if (!this.#isOpen) throw new PithError('CANCELLED');
    io.writeFully(this.fd, bytes, position, this.path);
    this.#held = coalesced([...this.#held, [position, position + bytes.length]]);
  };

  /** Bytes of these ranges that are still to be fetched. */
  missingBytes(ranges: readonly Interval[]): number {
    return totalBytes(without(ranges, this.#held));
  }

  /** Brings the ranges here. */
  async ensure(ranges: readonly Interval[]): Promise<void> {
    for (const [begin, end] of coalesced(without(ranges, this.#held), GAP_BYTES)) {
      if (this.missingBytes([[begin, end]]) > 0) await this.remote.read(begin, end, this.#keep);
    }
  }

  /** Reads what is here. */
  readInto(position: number, target: Uint8Array): void {
    io.readFully(this.fd, target, position, this.path);
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#remote?.close();
    io.close(this.fd);
    io.remove(this.path);
  }
}
