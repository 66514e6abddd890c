import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { runFlags } from '../../cli/flags.js';
import { formatBytes, formatMs, formatShare } from '../../cli/sizes.js';
import { storeAdd, type StoreAddReport } from '../../pipelines/store-add.js';

export default class StoreAdd extends PithCommand {
  static override summary = 'Put a checkpoint into a store';
  static override description =
    'Every tensor is kept once, coded against the closest tensor of the same name in the store where one is close. ' +
    'The model is listed only when everything it needs is on disk; a run that was killed costs nothing, and the next one goes on from what it had stored.';
  static override examples = [
    '<%= config.bin %> store add llamas ./llama-base',
    '<%= config.bin %> store add llamas ./llama-math --name math-v2',
    '<%= config.bin %> store add llamas ./llama-code --dry-run',
  ];
  static override args = {
    dir: Args.string({ required: true, description: 'the store' }),
    checkpoint: Args.string({ required: true, description: 'checkpoint to add' }),
  };
  static override flags = {
    name: Flags.string({ description: "the model's name in the store (default: that of the folder or file)", helpValue: 'NAME' }),
    force: Flags.boolean({ description: 'replace the model of that name' }),
    'dry-run': Flags.boolean({ default: false, description: 'predict what would be stored; write nothing' }),
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(StoreAdd);
    const started = performance.now();
    const report = await this.follow(
      storeAdd({
        store: args.dir,
        checkpoint: args.checkpoint,
        name: flags.name,
        force: flags.force,
        dryRun: flags['dry-run'],
        ...this.runOptions(flags),
      }),
    );
    this.result(report, () => describe(report, performance.now() - started));
  }
}

function describe(r: StoreAddReport, ms: number): string {
  const count = (how: string): number => r.tensors.filter((t) => t.how === how).length;
  const verb = r.dryRun ? `${r.model} would add about` : `${r.model}: added`;
  return [
    `${verb} ${formatBytes(r.bytes)}, ${formatShare(r.ratio)} of ${formatBytes(r.rawBytes)}${r.dryRun ? '' : ` in ${formatMs(ms)}`}`,
    `${r.tensors.length} tensors: ${count('reused')} already there, ${count('delta')} against another one, ${count('alone')} alone; ${r.sideFiles.length} side files`,
  ].join('\n');
}
