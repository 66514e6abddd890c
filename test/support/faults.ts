/** Runs something with one failing system call, at the first place, the second, ... until none is left to fail. */
import { expect } from 'chai';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PithError } from '../../core/errors.js';
import { planFault } from '../../formats/io.js';
import { pith } from './cli.js';
import { hashTree } from './files.js';

export const FAULTS = ['write:ENOSPC', 'fsync:EIO', 'rename:EIO', 'read:EIO', 'read:short', 'open:EACCES', 'mkdir:ENOSPC'];
/** 65 what was read is not whole, 66 not there, 73 no output, 74 I/O. */
const EXIT_CODES = [65, 66, 73, 74];

export interface Faulted {
  /** In this process and the threads that it starts. */
  readonly run: () => Promise<unknown>;
  /** After each run in which the fault fired: with its error, or undefined when it was overcome. Leaves everything as it was before the first run. */
  readonly check: (where: string, error: unknown) => Promise<void> | void;
}

/** How often the fault fired. An error must be typed and say what failed. */
export async function everyFault(fault: string, { run, check }: Faulted): Promise<number> {
  const [op, kind] = fault.split(':') as [string, string];
  for (let n = 1; ; n++) {
    const where = `${op}:${n}:${kind}`;
    const fired = planFault(where);
    let error: unknown;
    try {
      await run();
    } catch (e) {
      error = e;
    } finally {
      planFault(undefined);
    }
    if (error !== undefined) expect(error, `${where}: ${String((error as Error).stack)}`).to.be.instanceOf(PithError);
    if (error instanceof PithError) expect(EXIT_CODES, `${where}: ${error.message}`).to.include(error.exitCode);
    if (!fired()) {
      expect(error, where).to.equal(undefined);
      return n - 1;
    }
    await check(where, error);
  }
}

/** The same with the real program, a process a run: for calls that let go of a lock, which only the end of its process breaks. */
export async function everyFaultOfProgram(
  fault: string,
  args: readonly string[],
  check: (where: string, code: number) => Promise<void> | void,
): Promise<number> {
  const [op, kind] = fault.split(':') as [string, string];
  for (let n = 1; ; n++) {
    const where = `${op}:${n}:${kind}`;
    const r = pith(args, { env: { PITH_FAULT: where } });
    if (r.code === 0) return n - 1;
    expect(EXIT_CODES, `${where}: ${r.stderr}`).to.include(r.code);
    expect(r.stderr).to.match(/^(warning: .*\n)*error: /);
    await check(where, r.code!);
  }
}

export interface Output {
  /** Where the result goes; nothing else is made in its folder. */
  readonly out: string;
  /** `hashTree` of the whole result. */
  readonly right: Readonly<Record<string, string>>;
  /** Again without a fault. */
  readonly again: () => Promise<unknown>;
  /** Puts an older output in place before every run, and answers its tree. */
  readonly older?: () => Readonly<Record<string, string>>;
}

/** Under the final name is the whole result or what was there before; the same call again gives the result and leaves nothing beside it. */
export function outputCheck({ out, right, again, older }: Output): (where: string, error: unknown) => Promise<void> {
  const folder = dirname(out);
  const clear = (): void => rmSync(out, { recursive: true, force: true });
  clear();
  const beside = readdirSync(folder).sort();
  const before = older?.();
  const seen = new Set<string>();
  return async (where, error) => {
    const got = existsSync(out) ? hashTree(out) : undefined;
    if (error === undefined) expect(got, where).to.deep.equal(right);
    const whole = JSON.stringify(sorted(got)) === JSON.stringify(sorted(right));
    if (!whole) expect(got, `${where}: neither the result nor what was there before`).to.deep.equal(before);
    if (whole && older === undefined) clear();
    const left = readdirSync(folder).filter((f) => !out.endsWith(f));
    const state = JSON.stringify(sorted(hashTree(folder)));
    // with nothing left behind, another run is the first one over again; what it left, some faults leave alike
    if ((left.length > beside.length || (whole && older !== undefined)) && !seen.has(state)) {
      seen.add(state);
      await again();
      expect(hashTree(out), `after ${where}`).to.deep.equal(right);
      expect(readdirSync(folder).filter((f) => !out.endsWith(f)).sort(), where).to.deep.equal(beside); // prettier-ignore
    }
    clear();
    for (const f of readdirSync(folder)) if (!beside.includes(f)) rmSync(join(folder, f), { recursive: true });
    older?.();
  };
}

const sorted = (tree: Readonly<Record<string, string>> | undefined): [string, string][] => Object.entries(tree ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
