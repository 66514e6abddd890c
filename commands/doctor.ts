import { PithCommand } from '../cli/base-command.js';
import { formatBytes } from '../cli/sizes.js';
import { table } from '../cli/table.js';
import { doctor } from '../pipelines/doctor.js';

export default class Doctor extends PithCommand {
  static override summary = 'Show what this machine computes with, how fast, and what is missing';
  static override description = 'Sets up every device in a thread of its own, checks one of its products, then times a larger one.';
  static override examples = ['<%= config.bin %> doctor', '<%= config.bin %> doctor --json'];

  async run(): Promise<void> {
    await this.parse(Doctor);
    const r = await doctor();
    this.result(
      r,
      () => {
        const number = (v: number | undefined): string => (v === undefined ? '-' : v.toPrecision(3));
        const rows = r.devices.map((d) => [
          d.name,
          d.found ? (d.software ? 'software' : 'yes') : 'no',
          number(d.gflops),
          number(d.gbPerSecond),
          d.found ? d.description : (d.message ?? ''),
        ]);
        return [
          `Node ${r.node}, ${r.platform}`,
          `${r.cpu}, ${r.cores} cores, ${formatBytes(r.memoryBytes)} memory (${formatBytes(r.freeBytes)} free)`,
          '',
          table(['device', 'found', 'GFLOP/s', 'GB/s', 'what'], rows),
          `--device auto is ${r.auto}`,
          ...(r.advice.length === 0 ? [] : ['', ...r.advice]),
        ].join('\n');
      },
      r.auto,
    );
  }
}
