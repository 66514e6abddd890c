import { Args, Flags } from '@oclif/core';
import { adapterWriteFlags, dtypeFlag, storageType } from '../../cli/adapter-flags.js';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes, formatMs, formatShare, parseSize } from '../../cli/sizes.js';
import { adapterFuse, adapterFuseDelta, type FuseReport } from '../../pipelines/adapter-fuse.js';

export default class AdapterFuse extends PithCommand {
  static override summary = 'Merge a LoRA, rsLoRA or DoRA adapter into its base';
  static override description =
    'Computes in f32 and rounds once, to the type of each base tensor or to --dtype. An adapter with missing or foreign tensors, ' +
    'or one that does not fit the base, is refused (65) and names the tensor.';
  static override examples = [
    '<%= config.bin %> adapter fuse llama math-lora --out llama-math',
    '<%= config.bin %> adapter fuse llama math-lora --out llama-math --dtype f32',
    '<%= config.bin %> adapter fuse llama math-lora --save delta --out math.delta.safetensors',
  ];
  static override args = {
    base: Args.string({ required: true, description: 'base checkpoint' }),
    adapter: Args.string({ required: true, description: 'folder of a PEFT adapter' }),
  };
  static override flags = {
    out: Flags.string({ required: true, char: 'o', description: 'folder or .safetensors file; the delta file with --save delta', helpValue: 'PATH' }),
    save: Flags.option({ options: ['checkpoint', 'delta'] as const, default: 'checkpoint' as const, description: 'what is written' })(),
    dtype: dtypeFlag("type of every float tensor (default: the base's)"),
    'shard-size': Flags.custom<number>({ description: 'largest file (default 5GB)', helpValue: 'SIZE', parse: async (text) => parseSize(text) })(),
    ...adapterWriteFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AdapterFuse);
    const started = performance.now();
    const shardBytes = flags['shard-size'];
    const options = {
      ...args,
      out: flags.out,
      ...storageType(flags.dtype),
      ...(shardBytes === undefined ? {} : { shardBytes }),
      force: flags.force,
      dryRun: flags['dry-run'],
      ...this.runOptions(flags),
    };
    if (flags.save === 'checkpoint' || flags['dry-run']) {
      const r = await this.follow(adapterFuse(options));
      this.result(r, () => describe(r, performance.now() - started));
      return;
    }
    const r = await this.follow(adapterFuseDelta(options, { method: 'lossless', params: {}, selects: () => true }));
    const size = `${r.out}: ${formatBytes(r.bytes)}, ${formatShare(r.ratio)} of ${formatBytes(r.rawBytes)}, an exact delta of the merged checkpoint`;
    this.result(r, () =>
      [
        size,
        ...describe(r.fused, performance.now() - started)
          .split('\n')
          .slice(1),
      ].join('\n'),
    );
  }
}

function describe(r: FuseReport, ms: number): string {
  const merged = r.tensors.filter((t) => t.kind === 'merged').length;
  if (r.dryRun) return `would write ${formatBytes(r.bytes)}: ${merged} tensors merged, ${r.tensors.length - merged} replaced, ${r.copied} as they are`;
  return [
    `${r.out}: ${formatBytes(r.bytes)} in ${formatMs(ms)}`,
    `${merged} tensors merged, ${r.tensors.length - merged} replaced, ${r.copied} as they are`,
    `largest rounding error / max |W'| = ${r.maxError.toExponential(2)}`,
  ].join('\n');
}
