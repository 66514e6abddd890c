import { Args, Flags } from '@oclif/core';
import { basename } from 'node:path';
import { PithCommand } from '../cli/base-command.js';
import { factorizeFlags, factorizeOptions } from '../cli/factorize-flags.js';
import { factorizeText } from '../cli/factorize-view.js';
import { runFlags, selectFlags, writeFlags } from '../cli/flags.js';
import { selector } from '../cli/select.js';
import { factorize } from '../pipelines/factorize/factorize.js';
import { checkReportFile, writeReportFile } from '../pipelines/report-file.js';

export default class Factorize extends PithCommand {
  static override summary = 'Put two small linear layers in place of each large one';
  static override description =
    'W ~ A B by a truncated SVD, plain or weighted by what calibration knows of the layer: its inputs (asvd, svd-llm) or the gradients of its weight ' +
    '(fwsvd, gfwsvd). The result is read by every command as the dense model that it stands for.';
  static override examples = [
    '<%= config.bin %> factorize llama --method svd-llm --ratio 0.8 --stats llama.stats.safetensors --out llama-80',
    '<%= config.bin %> factorize llama --method asvd --ratio 0.8 --allocation energy --dataset wiki.train.txt --out llama-80',
    '<%= config.bin %> factorize llama --method gfwsvd --ratio 0.9 --stats llama.fisher.safetensors --save dense --out llama-90',
    "<%= config.bin %> factorize llama --method svd --energy 0.9 --include '*mlp*' --report ranks.html --out llama-mlp",
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'model whose linear layers are factorized' }) };
  static override flags = {
    out: Flags.string({ required: true, char: 'o', description: 'folder or .safetensors file of the result', helpValue: 'PATH' }),
    ...factorizeFlags,
    report: Flags.string({ description: 'write figures and tables as one page', helpValue: 'FILE.html' }),
    ...selectFlags,
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Factorize);
    const started = performance.now();
    if (flags.report !== undefined) checkReportFile(flags.report, flags.force);
    const report = await this.follow(
      factorize({
        checkpoint: args.checkpoint,
        out: flags.out,
        ...factorizeOptions(flags),
        selects: selector(flags.include, flags.exclude),
        force: flags.force,
        dryRun: flags['dry-run'],
        resume: flags.resume,
        ...this.runOptions(flags),
      }),
    );
    if (flags.report !== undefined && report.plan === undefined) {
      const { factorizePage } = await import('../cli/report/factorize-page.js');
      writeReportFile(flags.report, await factorizePage(report, basename(args.checkpoint)), flags.force);
    }
    this.result(report, () => factorizeText(report, performance.now() - started), report.device);
  }
}
