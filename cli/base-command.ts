/** What all commands share: output, errors, cancelling. */
import { Command, type Interfaces } from '@oclif/core';
import type { Pipeline } from '../core/events.js';
import { pithVersion } from '../core/version.js';
import { PithError, printable } from '../core/errors.js';
import { asPithError, errorDocument, plainExit } from './errors.js';
import { commonFlags } from './flags.js';
import type { RunOptions } from '../pipelines/run-options.js';
import type { ConfigForm } from './config.js';
import { follow } from './render.js';

/** The values of `runFlags`. */
type RunFlags = Pick<RunOptions, 'threads' | 'seed' | 'device'> & { readonly 'max-memory': number };

export type FlagsOf<T extends typeof Command> = Interfaces.InferredFlags<(typeof PithCommand)['baseFlags'] & T['flags']>;

export abstract class PithCommand extends Command {
  static override baseFlags = commonFlags;
  /** How the command reads `--config` where keys are not just its flags. */
  static configForm?: () => Promise<ConfigForm>;

  readonly #started = performance.now();
  readonly #abort = new AbortController();
  #json = process.argv.includes('--json');
  #quiet = process.argv.includes('--quiet');

  /** Aborted by SIGINT and SIGTERM; a second signal ends the process at once. */
  protected get signal(): AbortSignal {
    return this.#abort.signal;
  }

  override async init(): Promise<void> {
    await super.init();
    await this.#readConfig();
    let cancelled = false;
    const cancel = (): void => {
      if (cancelled) process.exit(130);
      cancelled = true;
      this.#abort.abort();
    };
    process.on('SIGINT', cancel);
    process.on('SIGTERM', cancel);
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
    });
  }

  async #readConfig(): Promise<void> {
    if (!this.argv.some((a) => a === '--config' || a.startsWith('--config='))) return;
    const { withConfig } = await import('./config.js');
    const { flags, baseFlags, configForm } = this.ctor as typeof PithCommand;
    this.argv = withConfig(this.argv, { ...baseFlags, ...flags }, await configForm?.());
    this.#json ||= this.argv.includes('--json');
    this.#quiet ||= this.argv.includes('--quiet');
  }

  /** What `runFlags` say, as every pipeline takes it. */
  protected runOptions(flags: RunFlags): RunOptions {
    const { threads, seed, device } = flags;
    return { threads, maxMemoryBytes: flags['max-memory'], seed, device, signal: this.signal };
  }

  /** Runs a pipeline with its progress on stderr. */
  protected follow<Report>(pipeline: Pipeline<Report>): Promise<Report> {
    return follow(pipeline, { json: this.#json, quiet: this.#quiet });
  }

  /** Doubts about an input, on stderr; a JSON result holds them itself. */
  protected warnings(messages: readonly string[]): void {
    if (!this.#json && !this.#quiet) for (const message of messages) this.logToStderr(`warning: ${printable(message)}`);
  }

  /** The result on stdout: one JSON document under `--json`, else the text. */
  protected result(report: object, text: () => string, device = 'cpu'): void {
    if (!this.#json) {
      this.log(text());
      return;
    }
    const { maxRSS } = process.resourceUsage();
    const ms = Math.round(performance.now() - this.#started);
    this.log(JSON.stringify({ schemaVersion: 1, pith: pithVersion(), device, ms, peakRssBytes: maxRSS * 1024, ...report }));
  }

  protected override async catch(error: Error): Promise<never> {
    if (plainExit(error) !== undefined) throw error;
    const e = this.signal.aborted ? new PithError('CANCELLED', {}, { cause: error }) : asPithError(error);
    if (this.#json) this.log(JSON.stringify(errorDocument(e)));
    else this.logToStderr(`error: ${e.message}`);
    if (e.exitCode === 70 && process.env['PITH_DEBUG'] !== undefined) this.logToStderr(String((e.cause as Error | undefined)?.stack ?? e.stack));
    return this.exit(e.exitCode);
  }
}
