import { Args } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes, formatShare } from '../../cli/sizes.js';
import { table } from '../../cli/table.js';
import { storeList } from '../../pipelines/store-list.js';

export default class StoreList extends PithCommand {
  static override summary = 'Show the models of a store and what they take; reads headers only';
  static override description =
    'own: bytes that no other model needs. reads: bytes of all objects that a get reads. depth: the longest chain of bases among its tensors.';
  static override examples = ['<%= config.bin %> store list llamas', '<%= config.bin %> store list llamas --json'];
  static override args = { dir: Args.string({ required: true, description: 'the store' }) };

  async run(): Promise<void> {
    const { args } = await this.parse(StoreList);
    const r = storeList(args.dir);
    this.result(r, () => {
      const rows = r.models.map((m) => [
        m.name,
        m.files,
        m.tensors,
        formatBytes(m.rawBytes),
        formatBytes(m.ownBytes),
        formatBytes(m.reachedBytes),
        m.depth,
        m.damaged === 0 ? '' : `${m.damaged} damaged`,
      ]);
      const lost = r.unreachable.objects === 0 ? '' : `\n${r.unreachable.objects} objects, ${formatBytes(r.unreachable.bytes)}, belong to no model`;
      const head = ['model', 'files', 'tensors', 'raw', 'own', 'reads', 'depth', ''];
      return `${table(head, rows)}\n${r.models.length} models, ${r.objects} objects: ${formatBytes(r.bytes)}, ${formatShare(r.ratio)} of ${formatBytes(r.rawBytes)}${lost}`;
    });
  }
}
