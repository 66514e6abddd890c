import { Args, Flags } from '@oclif/core';
import { basename } from 'node:path';
import { PithCommand } from '../cli/base-command.js';
import { runFlags, selectFlags, writeFlags } from '../cli/flags.js';
import { pruneFlags, pruneOptions } from '../cli/prune-flags.js';
import { pruneText } from '../cli/prune-view.js';
import { selector } from '../cli/select.js';
import { prune } from '../pipelines/prune/prune.js';
import { checkReportFile, writeReportFile } from '../pipelines/report-file.js';

export default class Prune extends PithCommand {
  static override summary = "Set weights of a model's linear layers to zero";
  static override description =
    'By magnitude, by what calibration knows of the inputs (wanda), or with the kept weights set anew (sparsegpt, admm). The result is a checkpoint as ' +
    'the given one, its zeros explicit. With --dataset blocks are pruned in order, each on what the pruned ones before it give.';
  static override examples = [
    '<%= config.bin %> prune llama --method wanda --sparsity 0.5 --dataset wiki.train.txt --out llama-50',
    '<%= config.bin %> prune llama --method sparsegpt --pattern 2:4 --stats llama.stats.safetensors --out llama-24',
    "<%= config.bin %> prune llama --method magnitude --sparsity 0.3 --include '*mlp*' --save-mask mask.safetensors --out llama-30",
    '<%= config.bin %> prune llama --mask mask.safetensors --update admm --stats llama.stats.safetensors --out llama-admm',
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'model that is pruned' }) };
  static override flags = {
    out: Flags.string({ required: true, char: 'o', description: 'folder or .safetensors file of the result', helpValue: 'PATH' }),
    ...pruneFlags,
    report: Flags.string({ description: 'write figures and tables as one page', helpValue: 'FILE.html' }),
    ...selectFlags,
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Prune);
    const started = performance.now();
    if (flags.report !== undefined) checkReportFile(flags.report, flags.force);
    const report = await this.follow(
      prune({
        checkpoint: args.checkpoint,
        out: flags.out,
        ...pruneOptions(flags),
        selects: selector(flags.include, flags.exclude),
        force: flags.force,
        dryRun: flags['dry-run'],
        resume: flags.resume,
        ...this.runOptions(flags),
      }),
    );
    if (flags.report !== undefined && report.plan === undefined) {
      const { prunePage } = await import('../cli/report/prune-page.js');
      writeReportFile(flags.report, await prunePage(report, basename(args.checkpoint)), flags.force);
    }
    this.result(report, () => pruneText(report, performance.now() - started), report.device);
  }
}
