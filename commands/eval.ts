import { Args, Flags } from '@oclif/core';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PithCommand } from '../cli/base-command.js';
import { evalFlags, evalOptions } from '../cli/eval-flags.js';
import { describeEval } from '../cli/eval-view.js';
import { runFlags } from '../cli/flags.js';
import { evaluate } from '../pipelines/eval.js';
import { checkReportFile, writeReportFile } from '../pipelines/report-file.js';

export default class Eval extends PithCommand {
  static override summary = "Measure a model: perplexity, divergence from another, multiple choice, a sample of its text; a text encoder's vectors";
  static override description =
    "Weights pass by block by block in their storage type, so the memory does not depend on the model's size. Every figure is printed with the protocol that it was measured by.";
  static override examples = [
    '<%= config.bin %> eval llama --dataset wiki.test.txt --seqlen 2048',
    '<%= config.bin %> eval llama+llama-math.delta.safetensors --dataset wiki.test.txt --reference llama-math --report eval.html',
    '<%= config.bin %> eval pruned --dataset gsm8k.jsonl --rows 1800: --base llama --tuned llama-math',
    '<%= config.bin %> eval minilm-pruned --reference minilm --dataset sentences.txt',
    '<%= config.bin %> eval llama --choices arc-easy.jsonl --sample "The capital of France is"',
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'model to measure' }) };
  static override flags = {
    ...evalFlags,
    report: Flags.string({ description: 'write figures and tables as one page', helpValue: 'FILE.html' }),
    force: Flags.boolean({ description: 'replace an existing report' }),
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Eval);
    const { report: page } = flags;
    if (page !== undefined) checkReportFile(page, flags.force);
    const work = mkdtempSync(join(tmpdir(), 'pith-eval-'));
    try {
      const outcome = await this.follow(evaluate({ ...args, ...evalOptions(flags), ...this.runOptions(flags), work }));
      if (page !== undefined) writeReportFile(page, await (await import('../cli/report/eval-page.js')).evalPage(outcome), flags.force);
      this.result(outcome.report, () => describeEval(outcome.report));
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
}
