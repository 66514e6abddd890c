import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../cli/base-command.js';
import { statisticFlags, statistics, windowFlags, windows } from '../cli/calibration-flags.js';
import { runFlags, selectFlags, writeFlags } from '../cli/flags.js';
import { selector } from '../cli/select.js';
import { formatBytes, formatMs } from '../cli/sizes.js';
import { calibrate, type CalibrateReport } from '../pipelines/calibrate.js';

export default class Calibrate extends PithCommand {
  static override summary = "Take statistics of a model's linear layers on a text";
  static override description =
    'Windows of the text go through the model block by block; what the layers were fed (and the gradients of their weights, on request) is written as a ' +
    'safetensors file for prune, quantize, factorize and delta encode. Hidden states lie on disk, one block is in memory at a time.';
  static override examples = [
    '<%= config.bin %> calibrate llama --dataset wiki.train.txt --out llama.stats.safetensors',
    '<%= config.bin %> calibrate llama --dataset c4.jsonl --nsamples 256 --stats sqnorm --out llama.stats.safetensors',
    "<%= config.bin %> calibrate llama --dataset math.jsonl --stats none --fisher row,kron --include '*layers.0.*' --out llama.fisher.safetensors",
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'model whose layers are watched' }) };
  static override flags = {
    dataset: Flags.string({ required: true, description: 'text: plain, or JSON Lines', helpValue: 'FILE' }),
    out: Flags.string({ required: true, char: 'o', description: 'the statistics', helpValue: 'STATS.safetensors' }),
    ...windowFlags,
    ...statisticFlags,
    ...selectFlags,
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Calibrate);
    const started = performance.now();
    const report = await this.follow(
      calibrate({
        checkpoint: args.checkpoint,
        out: flags.out,
        data: windows(flags),
        ...statistics(flags),
        selects: selector(flags.include, flags.exclude),
        force: flags.force,
        dryRun: flags['dry-run'],
        resume: flags.resume,
        ...this.runOptions(flags),
      }),
    );
    this.result(report, () => describe(report, performance.now() - started), report.device);
  }
}

function describe(r: CalibrateReport, ms: number): string {
  const shared = r.inputs === 0 ? '' : ` with ${r.inputs} different inputs`;
  const what = `${r.modules} linear layers${shared}: ${r.statistics.join(', ')}`;
  const text = `${r.nsamples} windows of ${r.seqlen} tokens, ${r.tokens} in all`;
  if (r.plan !== undefined) {
    const { bytes, spoolBytes, peakBytes, ms: predicted } = r.plan;
    return [
      `would write ${formatBytes(bytes)} in about ${formatMs(predicted)}, with at most ${formatBytes(peakBytes)} of memory and ${formatBytes(spoolBytes)} of disk beside it`,
      what,
      text,
    ].join('\n');
  }
  const loss = r.loss === undefined ? [] : [`loss ${r.loss.toFixed(4)} nats, perplexity ${Math.exp(r.loss).toPrecision(4)}`];
  return [`${r.out}: ${formatBytes(r.bytes)} in ${formatMs(ms)}`, what, text, ...loss, `model  ${r.contentHash ?? ''}`].join('\n');
}
