import { Args, Flags } from '@oclif/core';
import { adapterWriteFlags, energyFlag } from '../../cli/adapter-flags.js';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes } from '../../cli/sizes.js';
import { table } from '../../cli/table.js';
import { PithError } from '../../core/errors.js';
import { adapterResize, type ResizeReport } from '../../pipelines/adapter-resize.js';

export default class AdapterResize extends PithCommand {
  static override summary = 'Give a LoRA adapter a smaller rank at the least error';
  static override description =
    'Keeps the leading singular components of every B A. A module whose rank is not above the asked one stays as it is, byte for byte, and so does everything that is no factor.';
  static override examples = [
    '<%= config.bin %> adapter resize math-lora --rank 16 --out math-lora-16',
    '<%= config.bin %> adapter resize math-lora --energy 0.95 --out math-lora-small',
    '<%= config.bin %> adapter resize math-lora --rank 64 --uniform --out math-lora-64',
  ];
  static override args = { adapter: Args.string({ required: true, description: 'folder of a PEFT LoRA adapter' }) };
  static override flags = {
    rank: Flags.integer({ min: 1, description: 'largest rank of a module' }),
    energy: energyFlag('the least rank of every module that keeps this share of its squared update, at most --rank'),
    uniform: Flags.boolean({ description: 'fill every module up to --rank with zero components', dependsOn: ['rank'] }),
    out: Flags.string({ required: true, char: 'o', description: 'folder of the new adapter', helpValue: 'DIR' }),
    modules: Flags.boolean({ description: 'list every module' }),
    ...adapterWriteFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AdapterResize);
    if (flags.rank === undefined && flags.energy === undefined) throw new PithError('USAGE', { message: 'give --rank or --energy' });
    const r = await this.follow(
      adapterResize({
        adapter: args.adapter,
        out: flags.out,
        rule: { maxRank: flags.rank ?? Infinity, ...(flags.energy === undefined ? {} : { energy: flags.energy }) },
        ...(flags.uniform ? { uniformRank: flags.rank! } : {}),
        force: flags.force,
        dryRun: flags['dry-run'],
        ...this.runOptions(flags),
      }),
    );
    this.result(r, () => describe(r, flags.modules));
  }
}

function describe(r: ResizeReport, modules: boolean): string {
  const cut = r.modules.filter((m) => m.rank < m.before).length;
  if (r.dryRun) return `would write ${formatBytes(r.bytes)}: ${cut} of ${r.modules.length} modules cut, largest rank ${r.rank}`;
  const lines = [
    `${r.out}: ${formatBytes(r.bytes)}, rank ${r.rank}; ${cut} of ${r.modules.length} modules cut`,
    `|new - old| / |old| = ${r.error.toPrecision(4)}`,
  ];
  if (modules) {
    const rows = r.modules.map((m) => [m.name, m.before, m.rank, m.error.toPrecision(4)]);
    lines.push(table(['module', 'rank', 'new rank', '|new - old| / |old|'], rows));
  }
  return lines.join('\n');
}
