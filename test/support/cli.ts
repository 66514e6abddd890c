/** Runs the real binary. */
import { spawnSync } from 'node:child_process';
import { BIN } from './files.js';

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function pith(args: readonly string[], options: { env?: Record<string, string>; input?: Uint8Array; cwd?: string } = {}): CliResult {
  const r = spawnSync(process.execPath, [BIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, NODE_V8_COVERAGE: '', ...options.env },
    maxBuffer: 1 << 28,
    ...(options.input === undefined ? {} : { input: options.input }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  return { code: r.status, stdout: r.stdout, stderr: r.stderr };
}
