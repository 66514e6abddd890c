import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../cli/base-command.js';
import { formatBytes } from '../cli/sizes.js';
import { table } from '../cli/table.js';
import { inspectCheckpoint } from '../pipelines/inspect.js';

export default class Inspect extends PithCommand {
  static override summary = 'Show what a checkpoint holds; reads headers only';
  static override examples = [
    '<%= config.bin %> inspect llama',
    '<%= config.bin %> inspect model.safetensors --tensors',
    '<%= config.bin %> inspect llama --json',
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'folder, .safetensors file or Hub cache folder' }) };
  static override flags = { tensors: Flags.boolean({ description: 'list every tensor' }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Inspect);
    const r = await inspectCheckpoint(args.checkpoint);
    this.result(r, () => {
      const lines = [
        `${r.source}: ${r.tensors.length} tensors, ${r.parameters.toLocaleString('en-US')} parameters, ${formatBytes(r.totalBytes)} in ${r.files.length} file${r.files.length === 1 ? '' : 's'}`,
        table(
          ['dtype', 'tensors', 'bytes'],
          Object.entries(r.dtypes).map(([d, v]) => [d, v.tensors, formatBytes(v.bytes)]),
        ),
      ];
      if (flags.tensors) {
        lines.push(
          table(
            ['tensor', 'dtype', 'shape', 'bytes'],
            r.tensors.map((t) => [t.name, t.dtype, t.shape.join('x'), formatBytes(t.bytes)]),
          ),
        );
      }
      return lines.join('\n');
    });
  }
}
