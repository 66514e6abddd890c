import { Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { table } from '../../cli/table.js';
import { KINDS, listMethods } from '../../methods/index.js';

export default class MethodsList extends PithCommand {
  static override summary = 'List the published methods that pith implements';
  static override examples = ['<%= config.bin %> methods list', '<%= config.bin %> methods list --kind delta --json'];
  static override flags = { kind: Flags.option({ options: KINDS, description: 'only this kind' })() };

  async run(): Promise<void> {
    const { flags } = await this.parse(MethodsList);
    const methods = (await listMethods(flags.kind)).map((m) => ({ kind: m.kind, name: m.name, title: m.title, paper: m.paper }));
    this.result({ methods }, () =>
      table(
        ['kind', 'method', 'title', 'paper'],
        methods.map((m) => [m.kind, m.name, m.title, m.paper.url]),
      ),
    );
  }
}
