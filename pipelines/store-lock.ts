/**
 * Who may change a store: a lock for short steps (planning, naming a model, gc), and for a running add a folder in `tmp/` that names the
 * objects it relies on, so that gc leaves them. Both say which process they belong to; what a dead one left is taken over or removed.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PithError } from '../core/errors.js';
import * as io from '../formats/io.js';
import type { StoreFolder } from '../formats/store/folder.js';
import { isAlive, readLock, thisProcess, type Lock } from './journal.js';

const POLL_MS = 20;
/** A lock that nobody can read: its writer died between making and filling it, on a file system without hard links. */
const UNREADABLE_MS = 10_000;

/** Waits for the lock, runs, gives it back. CANCELLED while waiting. */
export async function locked<T>(store: StoreFolder, signal: AbortSignal, run: () => Promise<T> | T): Promise<T> {
  while (!take(store)) {
    if (signal.aborted) throw new PithError('CANCELLED');
    await sleep(POLL_MS);
  }
  try {
    return await run();
  } finally {
    io.remove(store.lock);
  }
}

function take(store: StoreFolder): boolean {
  io.mkdir(store.tmp);
  const temp = io.tempPath(join(store.tmp, 'lock'));
  const fd = io.openWrite(temp, 'wx');
  try {
    try {
      io.writeFully(fd, Buffer.from(JSON.stringify(thisProcess()), 'utf8'), 0, temp);
    } finally {
      io.close(fd);
    }
    if (io.linkNew(temp, store.lock)) return true;
    removeStale(store, temp);
    return false;
  } finally {
    io.remove(temp);
  }
}

/** The lock of a dead process is moved aside first: of two that see it, one succeeds; a living one's that was moved by mistake is put back. */
function removeStale(store: StoreFolder, temp: string): void {
  const seen = readLock(store.lock);
  const age = Date.now() - (io.stat(store.lock)?.mtimeMs ?? Date.now());
  if (seen === undefined ? age < UNREADABLE_MS : isAlive(seen)) return;
  const aside = `${temp}.stale`;
  try {
    io.rename(store.lock, aside);
  } catch (error) {
    if (error instanceof PithError && error.code === 'NOT_FOUND') return;
    throw error;
  }
  const moved = readLock(aside);
  if (moved !== undefined && isAlive(moved)) io.linkNew(aside, store.lock);
  io.remove(aside);
}

interface Pins extends Lock {
  readonly objects: readonly string[];
}

/** The folder of one running add. */
export class Work implements Disposable {
  private constructor(readonly folder: string) {}

  static create(store: StoreFolder): Work {
    const folder = io.tempPath(join(store.tmp, 'add'));
    io.mkdir(folder);
    const work = new Work(folder);
    try {
      // alive from the start: an empty list, with the process that it belongs to
      work.pin([]);
    } catch (error) {
      work[Symbol.dispose]();
      throw error;
    }
    return work;
  }

  /** Objects that gc must leave while this process lives. */
  pin(objects: readonly string[]): void {
    io.writeFileDurably(join(this.folder, 'pins.json'), Buffer.from(JSON.stringify({ ...thisProcess(), objects } satisfies Pins), 'utf8'));
  }

  [Symbol.dispose](): void {
    io.remove(this.folder);
  }
}

/** What running adds rely on. With the lock held; folders of dead ones are removed unless it is only asked. */
export function livePins(store: StoreFolder, { clean }: { readonly clean: boolean }): { pins: Set<string>; removed: number } {
  const pins = new Set<string>();
  let removed = 0;
  for (const e of io.readdir(store.tmp)) {
    const path = join(store.tmp, e.name);
    const held = e.isDirectory() ? (readLock(join(path, 'pins.json')) as Pins | undefined) : readLock(path);
    if (held !== undefined && isAlive(held)) {
      if ('objects' in held) for (const hash of held.objects as readonly string[]) pins.add(hash);
      continue;
    }
    // one that is being made has no content yet
    if (held === undefined && Date.now() - (io.stat(path)?.mtimeMs ?? 0) < UNREADABLE_MS) continue;
    removed++;
    if (clean) io.remove(path);
  }
  return { pins, removed };
}
