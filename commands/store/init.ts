import { Args } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { storeInit } from '../../pipelines/store-list.js';

export default class StoreInit extends PithCommand {
  static override summary = 'Make an empty store';
  static override description = 'The folder must not exist or be empty.';
  static override examples = ['<%= config.bin %> store init llamas'];
  static override args = { dir: Args.string({ required: true, description: 'folder to make' }) };

  async run(): Promise<void> {
    const { args } = await this.parse(StoreInit);
    storeInit(args.dir);
    this.result({ store: args.dir }, () => `made ${args.dir}`);
  }
}
