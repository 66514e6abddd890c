import { Flags } from '@oclif/core';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PithCommand } from '../../cli/base-command.js';
import { probeFlags, probeOptions } from '../../cli/delta-flags.js';
import { parseShares, runFlags, selectFlags } from '../../cli/flags.js';
import { selector } from '../../cli/select.js';
import { formatBytes, formatMs, formatShare } from '../../cli/sizes.js';
import { table } from '../../cli/table.js';
import { deltaFrontier, type FrontierReport } from '../../pipelines/delta-frontier.js';
import { checkReportFile, writeReportFile } from '../../pipelines/report-file.js';

export default class DeltaFrontier extends PithCommand {
  static override summary = 'Show what every delta codec leaves at every size';
  static override description = 'Encodes the pair with each codec at each size, measures the file and the error of what it restores, and keeps nothing.';
  static override examples = [
    '<%= config.bin %> delta frontier --base llama --tuned llama-math',
    '<%= config.bin %> delta frontier --base llama --tuned llama-math --sizes 0.5,1,2 --methods auto,ere --report frontier.html',
  ];
  static override flags = {
    base: Flags.string({ required: true, description: 'base checkpoint', helpValue: 'CKPT' }),
    tuned: Flags.string({ required: true, description: 'fine-tuned checkpoint', helpValue: 'CKPT' }),
    sizes: Flags.custom<readonly number[]>({
      description: 'sizes in percent of the raw bytes',
      default: [0.01, 0.02, 0.04, 0.08, 0.16],
      defaultHelp: async () => '1,2,4,8,16',
      helpValue: '1,2,...',
      parse: async (text) => parseShares('sizes', text),
    })(),
    methods: Flags.string({ description: 'codecs, and auto (default: all that can follow a size, and lossless)', helpValue: 'NAME,...' }),
    report: Flags.string({ description: 'write the curves as one HTML page', helpValue: 'FILE.html' }),
    force: Flags.boolean({ description: 'overwrite the report' }),
    ...probeFlags,
    ...selectFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(DeltaFrontier);
    const { base, tuned, report } = flags;
    if (report !== undefined) checkReportFile(report, flags.force);
    const work = mkdtempSync(join(tmpdir(), 'pith-'));
    try {
      const r = await this.follow(
        deltaFrontier({
          base,
          tuned,
          work,
          shares: flags.sizes,
          methods: flags.methods?.split(','),
          selects: selector(flags.include, flags.exclude),
          ...probeOptions(flags),
          ...this.runOptions(flags),
        }),
      );
      if (report !== undefined) writeReportFile(report, await (await import('../../cli/report/frontier-page.js')).frontierPage(r, base, tuned), flags.force);
      this.result(r, () => describe(r));
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
}

function describe(r: FrontierReport): string {
  const rows = r.series.flatMap(({ method, points, missed }) => [
    ...points.map((p) => [
      method,
      p.share === undefined ? '' : formatShare(p.share),
      formatBytes(p.bytes),
      formatShare(p.ratio),
      p.error.toPrecision(4),
      formatMs(p.ms),
    ]),
    ...missed.map((share) => [method, formatShare(share), 'not that small', '', '', '']),
  ]);
  return `${table(['method', 'asked', 'bytes', 'of raw', 'error', 'time'], rows)}\nerror: |restored - tuned| / |tuned - base|; raw: ${formatBytes(r.rawBytes)}`;
}
