import { Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { deltaSummary } from '../../cli/delta-summary.js';
import { runFlags, writeFlags } from '../../cli/flags.js';
import { deltaRebase } from '../../pipelines/delta-chain.js';

export default class DeltaRebase extends PithCommand {
  static override summary = 'Store the tuned checkpoint of a delta against another base';
  static override description = 'The result restores to the same files. It is small when the new base is close to the tuned checkpoint.';
  static override examples = ['<%= config.bin %> delta rebase --base llama-v1 --delta math.safetensors --onto llama-v2 --out math-v2.safetensors'];
  static override flags = {
    base: Flags.string({ required: true, description: 'base of the delta', helpValue: 'CKPT' }),
    delta: Flags.string({ required: true, description: 'delta file', helpValue: 'FILE' }),
    onto: Flags.string({ required: true, description: 'the new base', helpValue: 'CKPT' }),
    out: Flags.string({ required: true, char: 'o', description: 'file to write', helpValue: 'FILE' }),
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(DeltaRebase);
    const started = performance.now();
    const run = this.runOptions(flags);
    const write = { out: flags.out, force: flags.force, dryRun: flags['dry-run'], resume: flags.resume };
    const report = await this.follow(deltaRebase({ ...run, ...write, base: flags.base, delta: flags.delta, onto: flags.onto }));
    this.result(report, () => deltaSummary(report, performance.now() - started), report.device);
  }
}
