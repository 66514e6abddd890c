import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes, parseDuration } from '../../cli/sizes.js';
import { storeGc } from '../../pipelines/store-list.js';

export default class StoreGc extends PithCommand {
  static override summary = 'Remove the objects of a store that no model needs';
  static override description =
    'An object that a running add relies on stays whatever its age. To remove a model, delete models/NAME.json of the store, then run gc.';
  static override examples = ['<%= config.bin %> store gc llamas --dry-run', '<%= config.bin %> store gc llamas --older-than 0s'];
  static override args = { dir: Args.string({ required: true, description: 'the store' }) };
  static override flags = {
    'older-than': Flags.custom<number>({
      description: 'only objects written so long ago, as 30m or 7d (default: 1h)',
      helpValue: 'TIME',
      default: async () => parseDuration('1h'),
      defaultHelp: async () => '',
      parse: async (text) => parseDuration(text),
    })(),
    'dry-run': Flags.boolean({ default: false, description: 'say what would be removed; remove nothing' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(StoreGc);
    const r = await storeGc(args.dir, { olderThanMs: flags['older-than'], dryRun: flags['dry-run'], signal: this.signal });
    this.result(r, () => {
      const kept = r.kept.objects === 0 ? '' : `\n${r.kept.objects} unreachable objects stay (${formatBytes(r.kept.bytes)}): too young, or in use`;
      return `${r.dryRun ? 'would remove' : 'removed'} ${r.removed.objects} objects, ${formatBytes(r.removed.bytes)}, and ${r.temporary} leftovers of killed runs${kept}`;
    });
  }
}
