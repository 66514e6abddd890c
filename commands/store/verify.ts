import { Args } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { runFlags } from '../../cli/flags.js';
import { storeVerify } from '../../pipelines/store-list.js';

export default class StoreVerify extends PithCommand {
  static override summary = 'Decode every object of a store and compare it with its name';
  static override description = 'Exit code 0: everything holds; 65: each damaged object is named, and the models that need it.';
  static override examples = ['<%= config.bin %> store verify llamas', '<%= config.bin %> store verify llamas --json'];
  static override args = { dir: Args.string({ required: true, description: 'the store' }) };
  static override flags = runFlags;

  async run(): Promise<void> {
    const { args, flags } = await this.parse(StoreVerify);
    const run = this.runOptions(flags);
    const r = await this.follow(storeVerify(args.dir, run));
    this.result(r, () => {
      if (r.ok) return `ok: ${r.objects} objects and ${r.models} models are what their hashes say`;
      const lines = r.damaged.map((d) => `${d.message}\n  needed by ${d.models.length === 0 ? 'no model' : d.models.join(', ')}`);
      return [`${r.damaged.length} of ${r.objects} objects and ${r.models} models are damaged`, ...lines].join('\n');
    });
    if (!r.ok) process.exitCode = 65;
  }
}
