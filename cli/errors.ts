/** One place where an error becomes text and an exit code. */
import { PithError } from '../core/errors.js';

interface OclifError extends Error {
  readonly oclif?: { readonly exit?: number | false };
}

/** Errors of the parser (unknown flag, missing argument, unknown command) are usage errors; ours keep their code. */
export function asPithError(error: unknown): PithError {
  if (error instanceof PithError) return error;
  if (error instanceof Error && (error as OclifError).oclif !== undefined) {
    return new PithError('USAGE', { message: error.message.split('\n').filter(Boolean).join('; ') });
  }
  return PithError.from(error);
}

/** oclif's own way to end a run (`--help`, a command that has said its error): the exit code, or undefined for a real error. */
export function plainExit(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('code' in error) || error.code !== 'EEXIT') return undefined;
  const exit = (error as OclifError).oclif?.exit;
  return typeof exit === 'number' ? exit : 0;
}

export function errorDocument(error: PithError): object {
  return { schemaVersion: 1, error: { code: error.code, exitCode: error.exitCode, message: error.message, details: error.details } };
}

/** For what goes wrong before a command exists: unknown commands. */
export function failed(error: unknown): never {
  const exit = plainExit(error);
  if (exit !== undefined) process.exit(exit);
  const e = asPithError(error);
  if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify(errorDocument(e))}\n`);
  else process.stderr.write(`error: ${e.message}\n`);
  process.exit(e.exitCode);
}
