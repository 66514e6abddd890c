import { Args } from '@oclif/core';
import { PithCommand } from '../cli/base-command.js';
import type { ConfigForm } from '../cli/config.js';
import { finetuneFlags, finetuneOptions } from '../cli/finetune-flags.js';
import { runFlags, writeFlags } from '../cli/flags.js';
import { formatMs } from '../cli/sizes.js';
import { finetune, type FinetuneReport } from '../pipelines/finetune/finetune.js';
import { checkReportFile, writeReportFile } from '../pipelines/report-file.js';

export default class Finetune extends PithCommand {
  static override summary = 'Train a checkpoint on a text: an adapter beside its frozen weights, saved as peft reads it, as a delta or as a model';
  static override description =
    'The checkpoint stays in its storage type; only the adapter has gradients and states. Prompts are read but not learnt. A run that was stopped goes on ' +
    'from its last saved state, to the same bytes. --config takes YAML under the key names of axolotl or mlx-lm; flags win.';
  static override examples = [
    '<%= config.bin %> finetune llama --data math.jsonl --method lora --rank 16 --steps 200 --out llama-math',
    '<%= config.bin %> finetune llama --data math.jsonl --method dora --target q_proj,v_proj --val-split 0.1 --eval-every 20 --out llama-math',
    '<%= config.bin %> finetune llama --config axolotl.yaml --save adapter,delta --report curves.html',
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'model to train' }) };
  static override flags = { ...finetuneFlags, force: writeFlags.force, resume: writeFlags.resume, ...runFlags };
  static override configForm = async (): Promise<ConfigForm> => {
    const { CONFIG_KEYS, translateFinetune } = await import('../cli/finetune-config.js');
    return { translate: translateFinetune, keys: CONFIG_KEYS };
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Finetune);
    const started = performance.now();
    if (flags.report !== undefined) checkReportFile(flags.report, flags.force);
    const { force, resume } = flags;
    const report = await this.follow(finetune({ checkpoint: args.checkpoint, ...finetuneOptions(flags), force, resume, ...this.runOptions(flags) }));
    if (flags.report !== undefined) {
      const { finetunePage } = await import('../cli/report/finetune-page.js');
      writeReportFile(flags.report, await finetunePage(report), flags.force);
    }
    const result = Object.fromEntries(Object.entries(report).filter(([key]) => key !== 'metrics'));
    this.result(result, () => describe(report, performance.now() - started), report.device);
  }
}

function describe(r: FinetuneReport, ms: number): string {
  const left = [r.cut > 0 ? `${r.cut} rows cut` : '', r.dropped > 0 ? `${r.dropped} rows without a token to learn left out` : ''].filter((t) => t !== '');
  const val = r.valLoss === undefined ? '' : `, validation ${r.valLoss.toFixed(4)}`;
  const base = r.baseLoss === undefined ? '' : ` (the base ${r.baseLoss.toFixed(4)})`;
  return [
    `${r.out}: ${r.saved.join(', ')} in ${formatMs(ms)}`,
    `${r.method} on ${r.modules} layers, ${r.trainable} trainable values`,
    `${r.steps} steps${r.stoppedEarly ? ' (ended early)' : ''} over ${r.windows} sequences, ${Math.round(r.tokensPerSecond)} tokens learnt a second`,
    `loss ${r.loss.toFixed(4)}${val}${base}`,
    ...(left.length > 0 ? [left.join(', ')] : []),
    ...(r.sample === undefined ? [] : [`sample: ${JSON.stringify(r.sample)}`]),
  ].join('\n');
}
