import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes } from '../../cli/sizes.js';
import { deltaSplit } from '../../pipelines/delta-split.js';

export default class DeltaSplit extends PithCommand {
  static override summary = 'Write the two layers of a progressive delta as two files';
  static override description =
    'The lossy file is an ordinary lossy delta; `pith delta join` puts the exact one behind it again. The delta itself stays as it is. Of a URL only what is asked for is fetched.';
  static override examples = [
    '<%= config.bin %> delta split math.delta.safetensors --lossy math.lossy.safetensors --exact math.exact.safetensors',
    '<%= config.bin %> delta split https://example.org/math.delta.safetensors --lossy math.lossy.safetensors',
  ];
  static override args = { delta: Args.string({ required: true, description: 'progressive delta file, or URL of one' }) };
  static override flags = {
    lossy: Flags.string({ description: 'where the lossy layer goes', helpValue: 'FILE' }),
    exact: Flags.string({ description: 'where the exact layer goes', helpValue: 'FILE' }),
    force: Flags.boolean({ description: 'replace an existing output' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(DeltaSplit);
    const { lossy, exact, force } = flags;
    const outs = { ...(lossy === undefined ? {} : { lossy }), ...(exact === undefined ? {} : { exact }) };
    const r = await this.follow(deltaSplit({ delta: args.delta, ...outs, force, signal: this.signal }));
    this.result(r, () => [r.lossy, r.exact].flatMap((f) => (f === undefined ? [] : [`${f.path}: ${formatBytes(f.bytes)}`])).join('\n'));
  }
}
