import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes } from '../../cli/sizes.js';
import { deltaJoin } from '../../pipelines/delta-split.js';

export default class DeltaJoin extends PithCommand {
  static override summary = 'Put the exact layer of a delta behind its lossy layer again';
  static override description = 'The result is the file that `pith delta split` was given, byte for byte. Layers of two deltas are refused with exit code 65.';
  static override examples = ['<%= config.bin %> delta join math.lossy.safetensors math.exact.safetensors --out math.delta.safetensors'];
  static override args = {
    lossy: Args.string({ required: true, description: 'lossy layer, a delta file' }),
    exact: Args.string({ required: true, description: 'exact layer' }),
  };
  static override flags = {
    out: Flags.string({ required: true, char: 'o', description: 'file to write', helpValue: 'FILE' }),
    force: Flags.boolean({ description: 'replace an existing output' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(DeltaJoin);
    const r = await this.follow(deltaJoin({ ...args, out: flags.out, force: flags.force, signal: this.signal }));
    this.result(r, () => `${r.path}: ${formatBytes(r.bytes)}`);
  }
}
