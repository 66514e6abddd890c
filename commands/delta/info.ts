import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { layersLine } from '../../cli/delta-summary.js';
import { formatBytes, formatShare } from '../../cli/sizes.js';
import { table } from '../../cli/table.js';
import { diffInfo, type DiffInfo } from '../../pipelines/bitdelta-diff.js';
import { deltaInfo } from '../../pipelines/delta-info.js';

export default class DeltaInfo extends PithCommand {
  static override summary = 'Show what a delta file holds; reads its header and its lists only';
  static override examples = ['<%= config.bin %> delta info math.delta.safetensors', '<%= config.bin %> delta info math.delta.safetensors --tensors'];
  static override args = { delta: Args.string({ required: true, description: 'delta file, or URL of one' }) };
  static override flags = { tensors: Flags.boolean({ description: 'list every tensor' }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(DeltaInfo);
    const diff = diffInfo(args.delta);
    if (diff !== undefined) {
      this.result(diff, () => describeDiff(diff, flags.tensors));
      return;
    }
    const r = await deltaInfo(args.delta, { signal: this.signal });
    this.result(r, () => {
      const lines = [
        `${r.path}: ${formatBytes(r.bytes)}, ${formatShare(r.ratio)} of ${formatBytes(r.rawBytes)}, format version ${r.version}, ${r.generator}`,
        `base   ${r.base === null ? 'none' : `${r.base.name}  ${r.base.contentHash}`}`,
        `tuned  ${r.tuned.name}  ${r.tuned.contentHash}`,
        ...(r.layers === undefined ? [] : [layersLine(r.layers, r.rawBytes)]),
        ...(r.tuned.contentHash === r.tuned.restoredContentHash ? [] : [`${r.layers === undefined ? 'restores' : 'lossy'} to  ${r.tuned.restoredContentHash}`]),
        `${r.tensors.length} tensors, ${r.files.length} tensor files, ${r.sideFiles.length} side files, ${r.removed.length} removed`,
      ];
      if (flags.tensors) {
        const rows = r.tensors.map((t) => [
          t.name,
          t.dtype,
          t.shape.join('x'),
          t.method,
          formatBytes(t.bytes),
          formatShare(t.rawBytes === 0 ? 0 : t.bytes / t.rawBytes),
        ]);
        lines.push(table(['tensor', 'dtype', 'shape', 'method', 'bytes', 'ratio'], rows));
      }
      return lines.join('\n');
    });
  }
}

function describeDiff(r: DiffInfo, list: boolean): string {
  const coded = r.tensors.filter((t) => t.method === 'bitdelta').length;
  const lines = [
    `${r.path}: ${formatBytes(r.bytes)}, a diff of BitDelta's release: ${coded} tensors as signs and a scale, ${r.tensors.length - coded} whole`,
    'nothing in it is proven: it names no base and holds no hashes',
  ];
  if (list) {
    const rows = r.tensors.map((t) => [t.name, t.shape.join('x'), t.method, formatBytes(t.bytes)]);
    lines.push(table(['tensor', 'shape', 'method', 'bytes'], rows));
  }
  return lines.join('\n');
}
