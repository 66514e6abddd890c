/**
 * Every system call of pith's file work. Loops until a read or write is whole, names the file in each error, and lets a
 * test make the n-th call of a kind fail: PITH_FAULT="<op>:<n>:<errno|short>", op one of read, write, fsync, rename, open, mkdir, remove.
 * Files are read by position, never mapped: a writer that truncates a mapped file would kill the process.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';
import { PithError } from '../core/errors.js';

export type FaultOp = 'read' | 'write' | 'fsync' | 'rename' | 'open' | 'mkdir' | 'remove';

/** One call never moves more: Node refuses 2 GiB. */
const MAX_CALL_BYTES = 1 << 30;

interface Fault {
  readonly op: string;
  readonly kind: string;
  /** Calls to go, counted over all threads of the process in shared memory. */
  readonly left: Int32Array;
}

const FAULT = 'pith.fault';
let fault = isMainThread ? undefined : (getEnvironmentData(FAULT) as Fault | undefined);
if (isMainThread && process.env['PITH_FAULT'] !== undefined) planFault(process.env['PITH_FAULT']);

/** For tests: the n-th call from now on fails, in this thread or in one that starts later; undefined: none does. Answers whether it has failed yet. */
export function planFault(text: string | undefined): () => boolean {
  const [op = '', n = '', kind = ''] = text?.split(':') ?? [];
  const planned: Fault = { op, kind, left: new Int32Array(new SharedArrayBuffer(4)) };
  planned.left[0] = Number(n);
  fault = op === '' ? undefined : planned;
  setEnvironmentData(FAULT, fault);
  return () => Atomics.load(planned.left, 0) <= 0;
}

/** Throws the planned error, or answers true for a planned short transfer. */
function faulted(op: FaultOp, file: string): boolean {
  if (fault === undefined || (fault.op !== op && fault.op !== 'any')) return false;
  if (Atomics.sub(fault.left, 0, 1) !== 1) return false;
  if (fault.kind === 'short') return true;
  const error = Object.assign(new Error(`${fault.kind}: injected, ${op} '${file}'`), { code: fault.kind, errno: -1, syscall: op, path: file });
  throw PithError.from(error, file);
}

function attempt<T>(file: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw PithError.from(error, file);
  }
}

export function openRead(file: string): number {
  faulted('open', file);
  return attempt(file, () => fs.openSync(file, 'r'));
}

/** `wx`: must not exist; `r+`: must exist; `a`: append. */
export function openWrite(file: string, flags: 'wx' | 'w+' | 'wx+' | 'r+' | 'a'): number {
  faulted('open', file);
  return attempt(file, () => fs.openSync(file, flags, 0o666));
}

export function close(fd: number): void {
  fs.closeSync(fd);
}

/** Fills `target` from `position`; SHORT_READ when the file ends before. */
export function readFully(fd: number, target: Uint8Array, position: number, file: string): void {
  let done = 0;
  while (done < target.length) {
    let want = Math.min(target.length - done, MAX_CALL_BYTES);
    if (faulted('read', file)) want = 0;
    const got = want === 0 ? 0 : attempt(file, () => fs.readSync(fd, target, done, want, position + done));
    if (got === 0) throw new PithError('SHORT_READ', { file, expected: target.length, position, got: done });
    done += got;
  }
}

export function writeFully(fd: number, bytes: Uint8Array, position: number | null, file: string): void {
  let done = 0;
  while (done < bytes.length) {
    let want = Math.min(bytes.length - done, MAX_CALL_BYTES);
    if (faulted('write', file)) want = Math.max(1, want >> 1);
    const at = position === null ? null : position + done;
    const got = attempt(file, () => fs.writeSync(fd, bytes, done, want, at));
    if (got === 0) throw new PithError('IO', { file, operation: 'write', message: 'nothing was written' });
    done += got;
  }
}

export function fsync(fd: number, file: string): void {
  faulted('fsync', file);
  attempt(file, () => fs.fsyncSync(fd));
}

/** Starts to bring what was written so far to the disk while more is written; the caller awaits it, for its error. A last fsync stays due. */
export function flushEarly(fd: number, file: string): Promise<void> {
  return new Promise((resolve, reject) => {
    faulted('fsync', file);
    fs.fdatasync(fd, (error) => {
      if (error === null) resolve();
      else reject(PithError.from(error, file));
    });
  });
}

/** Makes a rename in the folder durable. Some systems cannot open folders; there the rename is all there is. */
export function fsyncDir(folder: string): void {
  if (process.platform === 'win32') return;
  const fd = openRead(folder);
  try {
    fsync(fd, folder);
  } finally {
    close(fd);
  }
}

export function rename(from: string, to: string): void {
  faulted('rename', to);
  attempt(to, () => fs.renameSync(from, to));
}

/** Gives a whole file a second name unless the name is taken: false then. File systems without hard links rename, where nobody else writes. */
export function linkNew(from: string, to: string): boolean {
  faulted('rename', to);
  try {
    fs.linkSync(from, to);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw PithError.from(error, to);
    if (stat(to) !== undefined) return false;
    attempt(to, () => fs.renameSync(from, to));
    return true;
  }
}

export function mkdir(folder: string): void {
  faulted('mkdir', folder);
  attempt(folder, () => fs.mkdirSync(folder, { recursive: true }));
}

export function remove(path: string): void {
  faulted('remove', path);
  attempt(path, () => fs.rmSync(path, { recursive: true, force: true }));
}

/** Removes a folder that nothing is in; leaves any other. */
export function removeEmptyFolder(path: string): void {
  faulted('remove', path);
  try {
    fs.rmdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOENT') throw PithError.from(error, path);
  }
}

export function readFile(file: string): Uint8Array<ArrayBuffer> {
  const fd = openRead(file);
  try {
    const bytes = new Uint8Array(attempt(file, () => fs.fstatSync(fd)).size);
    readFully(fd, bytes, 0, file);
    return bytes;
  } finally {
    close(fd);
  }
}

/** Temp file, fsync, rename, fsync of the folder. */
export function writeFileDurably(file: string, bytes: Uint8Array): void {
  const temp = tempPath(file);
  const fd = openWrite(temp, 'wx');
  try {
    writeFully(fd, bytes, 0, temp);
    fsync(fd, temp);
    close(fd);
    rename(temp, file);
  } catch (error) {
    remove(temp);
    throw error;
  }
  fsyncDir(dirname(file));
}

export function truncate(fd: number, bytes: number, file: string): void {
  faulted('write', file);
  attempt(file, () => fs.ftruncateSync(fd, bytes));
}

export interface FileStat {
  readonly bytes: number;
  readonly mtimeMs: number;
  readonly isFile: boolean;
  readonly isDirectory: boolean;
}

/** undefined when there is nothing at the path. */
export function stat(path: string): FileStat | undefined {
  const s = attempt(path, () => fs.statSync(path, { throwIfNoEntry: false }));
  return s === undefined ? undefined : { bytes: s.size, mtimeMs: s.mtimeMs, isFile: s.isFile(), isDirectory: s.isDirectory() };
}

export function fstat(fd: number, file: string): FileStat {
  const s = attempt(file, () => fs.fstatSync(fd));
  return { bytes: s.size, mtimeMs: s.mtimeMs, isFile: s.isFile(), isDirectory: s.isDirectory() };
}

export function readdir(folder: string): fs.Dirent[] {
  return attempt(folder, () => fs.readdirSync(folder, { withFileTypes: true }));
}

/** Free bytes of the file system that holds `folder`. */
export function freeBytes(folder: string): number {
  const s = attempt(folder, () => fs.statfsSync(folder));
  return s.bavail * s.bsize;
}

let counter = 0;
/** A name beside `file` that no other process uses. */
export function tempPath(file: string): string {
  counter++;
  return `${file}.pith-tmp-${process.pid}-${counter}-${Date.now().toString(36)}`;
}
