/** Makes a long run resumable: `<out>.pith-partial/journal.ndjson` names the plan, then what is done; `spool/` holds the data. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import * as io from '../formats/io.js';

/** A process, told apart from a later one with its number. */
export interface Lock {
  readonly pid: number;
  readonly started: string;
}

/** Last line of a journal. */
const PUBLISHING = '{"publishing":true}';

export class Journal<Entry> {
  #open = true;

  private constructor(
    private readonly out: string,
    readonly folder: string,
    private readonly fd: number,
    private readonly file: string,
    /** What earlier runs of the same plan finished. */
    readonly done: ReadonlyMap<string, Entry>,
  ) {}

  /**
   * `plan`: everything that decides the result. Another plan's partial result is refused (JOURNAL_FOREIGN) unless `resume` is false,
   * which starts anew; a live process on the same output is OUTPUT_LOCKED.
   */
  static open<Entry>(out: string, plan: object, options: { readonly resume: boolean }): Journal<Entry> {
    const folder = partialFolder(out);
    lock(folder, out);
    try {
      removeStaleTemps(out);
      return Journal.#load<Entry>(out, plan, options.resume);
    } catch (error) {
      io.remove(join(folder, 'lock'));
      throw error;
    }
  }

  static #load<Entry>(out: string, plan: object, resume: boolean): Journal<Entry> {
    const folder = partialFolder(out);
    const file = join(folder, 'journal.ndjson');
    const head = JSON.stringify({ plan: createHash('sha256').update(JSON.stringify(plan)).digest('hex') });
    const lines = io.stat(file) === undefined ? [] : Buffer.from(io.readFile(file)).toString('utf8').split('\n');
    const same = lines[0] === head;
    if (lines.length > 1 && lines[0] !== '' && !same && resume) throw new PithError('JOURNAL_FOREIGN', { file: folder });
    const done = new Map<string, Entry>();
    if (same && resume) {
      for (const line of lines.slice(1)) {
        const entry = parseEntry(line);
        if (entry !== undefined) done.set(entry.key, entry.value as Entry);
      }
    }
    if (done.size === 0) {
      io.remove(join(folder, 'spool'));
      io.remove(file);
    }
    io.mkdir(join(folder, 'spool'));
    const fd = io.openWrite(file, 'a');
    const journal = new Journal<Entry>(out, folder, fd, file, done);
    try {
      if (done.size === 0) journal.#line(head);
      else if (lines.at(-1) !== '') journal.#line('');
    } catch (error) {
      journal.#closeFile();
      throw error;
    }
    return journal;
  }

  #line(text: string): void {
    io.writeFully(this.fd, Buffer.from(`${text}\n`, 'utf8'), null, this.file);
  }

  append(key: string, value: Entry): void {
    this.#line(JSON.stringify({ key, value }));
  }

  /** All is done but the last rename: from here on a partial folder beside the output is rubbish. */
  publishing(): void {
    this.#line(PUBLISHING);
  }

  spool(name: string): string {
    return join(this.folder, 'spool', name);
  }

  #closeFile(): void {
    if (this.#open) io.close(this.fd);
    this.#open = false;
  }

  /** Leaves the partial result for the next run. */
  close(): void {
    this.#closeFile();
    io.remove(join(this.folder, 'lock'));
  }

  /** The run is complete: nothing of it is left. */
  remove(): void {
    this.#closeFile();
    io.remove(this.folder);
  }

  /** Nothing of the run is of use to another one; an older output that could not be put back stays. */
  discard(): void {
    if (io.stat(this.out) === undefined && io.stat(replacedPath(this.out)) !== undefined) this.close();
    else this.remove();
  }
}

/** undefined for a line that a killed run cut off, and for the mark: nothing was done there. */
function parseEntry(line: string): { key: string; value: unknown } | undefined {
  try {
    const entry = JSON.parse(line) as { key?: string; value: unknown } | null;
    return typeof entry?.key === 'string' ? { key: entry.key, value: entry.value } : undefined;
  } catch {
    return undefined;
  }
}

/** OUTPUT_EXISTS unless `force`. What a run that was killed around its last rename left beside its output goes, an older output comes back. */
export function refuseExisting(out: string, { force }: { readonly force: boolean }): void {
  const folder = partialFolder(out);
  const holder = io.stat(folder) === undefined ? undefined : readLock(join(folder, 'lock'));
  const dead = holder === undefined || !isAlive(holder);
  if (dead && io.stat(out) === undefined && io.stat(replacedPath(out)) !== undefined) io.rename(replacedPath(out), out);
  if (force || io.stat(out) === undefined) return;
  const file = join(folder, 'journal.ndjson');
  if (dead && io.stat(file) !== undefined && Buffer.from(io.readFile(file)).toString('utf8').endsWith(`\n${PUBLISHING}\n`)) io.remove(folder);
  throw new PithError('OUTPUT_EXISTS', { file: out });
}

/** Where an older output waits while the new one takes its name. */
const replacedPath = (out: string): string => join(partialFolder(out), 'replaced');

/** Gives the whole result its name. An older output, with `force`, stays until then, and comes back when that fails. */
export function takeName(from: string, out: string, { force }: { readonly force: boolean }): void {
  const target = resolve(out);
  const old = io.stat(target);
  if (old !== undefined && !force) throw new PithError('OUTPUT_EXISTS', { file: out });
  // a rename replaces a file by a file in one step; anything else would be refused
  const atOnce = old === undefined || (old.isFile && io.stat(from)?.isFile === true);
  const aside = atOnce ? undefined : replacedPath(target);
  if (aside !== undefined) {
    io.remove(aside);
    io.rename(target, aside);
  }
  try {
    io.rename(from, target);
  } catch (error) {
    if (aside !== undefined) io.rename(aside, target);
    throw error;
  }
  io.fsyncDir(dirname(target));
}

export function partialFolder(out: string): string {
  return `${out.replace(/\/+$/, '')}.pith-partial`;
}

/** Start time of a process in clock ticks (Linux), so that a reused pid is not taken for the old process. */
function startedAt(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

export function isAlive({ pid, started }: Lock): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  return started === startedAt(pid);
}

export function thisProcess(): Lock {
  return { pid: process.pid, started: startedAt(process.pid) };
}

function lock(folder: string, out: string): void {
  io.mkdir(folder);
  const file = join(folder, 'lock');
  const own = Buffer.from(JSON.stringify(thisProcess()), 'utf8');
  for (let attempt = 0; ; attempt++) {
    try {
      const fd = io.openWrite(file, 'wx');
      try {
        io.writeFully(fd, own, 0, file);
      } finally {
        io.close(fd);
      }
      return;
    } catch (error) {
      if (!(error instanceof PithError) || error.code !== 'OUTPUT_EXISTS' || attempt > 2) throw error;
      const holder = readLock(file);
      if (holder !== undefined && isAlive(holder)) throw new PithError('OUTPUT_LOCKED', { file: out, pid: holder.pid });
      io.remove(file);
    }
  }
}

/** Whoever holds the lock is alone on `out`: a temp file beside it is what a killed run left. */
function removeStaleTemps(out: string): void {
  const prefix = `${basename(out)}.pith-tmp-`;
  for (const e of io.readdir(dirname(resolve(out)))) if (e.name.startsWith(prefix)) io.remove(join(dirname(resolve(out)), e.name));
}

export function readLock(file: string): Lock | undefined {
  try {
    return JSON.parse(Buffer.from(io.readFile(file)).toString('utf8')) as Lock;
  } catch {
    return undefined;
  }
}
