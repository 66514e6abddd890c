import { Args, Flags } from '@oclif/core';
import * as z from 'zod';
import { PithCommand } from '../../cli/base-command.js';
import { KINDS, loadMethod } from '../../methods/index.js';

export default class MethodsShow extends PithCommand {
  static override summary = 'Show one method: what it does, its paper and its parameters';
  static override examples = ['<%= config.bin %> methods show lossless'];
  static override args = { name: Args.string({ required: true, description: 'method name' }) };
  static override flags = { kind: Flags.option({ options: KINDS, default: 'delta', description: 'kind of the method' })() };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MethodsShow);
    const { kind, name, title, paper, params } = await loadMethod(flags.kind, args.name);
    const schema = z.toJSONSchema(params) as { properties?: Record<string, { default?: unknown; description?: string }> };
    this.result({ kind, name, title, paper, params: schema }, () => {
      const rows = Object.entries(schema.properties ?? {}).map(
        ([k, v]) => `  ${k}  ${v.description ?? ''}${v.default === undefined ? '' : ` (default ${JSON.stringify(v.default)})`}`,
      );
      return [
        `${kind} ${name}: ${title}`,
        `${paper.cite}, ${paper.url}`,
        rows.length > 0 ? `parameters (--set key=value):\n${rows.join('\n')}` : 'no parameters',
      ].join('\n');
    });
  }
}
