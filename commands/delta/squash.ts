import { Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { deltaSummary } from '../../cli/delta-summary.js';
import { runFlags, writeFlags } from '../../cli/flags.js';
import { deltaSquash } from '../../pipelines/delta-chain.js';

export default class DeltaSquash extends PithCommand {
  static override summary = 'Make one delta of a chain of deltas';
  static override description =
    "The result takes the first base to the chain's end, exactly: a restore gives the same files as restoring one delta after another. Nothing in between is written to disk.";
  static override examples = ['<%= config.bin %> delta squash --base llama --delta step1.safetensors --delta step2.safetensors --out both.safetensors'];
  static override flags = {
    base: Flags.string({ required: true, description: 'base of the first delta', helpValue: 'CKPT' }),
    delta: Flags.string({ required: true, multiple: true, description: 'the deltas, first to last', helpValue: 'FILE' }),
    out: Flags.string({ required: true, char: 'o', description: 'file to write', helpValue: 'FILE' }),
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(DeltaSquash);
    const started = performance.now();
    const run = this.runOptions(flags);
    const write = { out: flags.out, force: flags.force, dryRun: flags['dry-run'], resume: flags.resume };
    const report = await this.follow(deltaSquash({ ...run, ...write, base: flags.base, deltas: flags.delta }));
    this.result(report, () => deltaSummary(report, performance.now() - started), report.device);
  }
}
