import { Args, Flags } from '@oclif/core';
import { PithCommand } from '../cli/base-command.js';
import { parseShare, runFlags, selectFlags, viewFlags } from '../cli/flags.js';
import { selector } from '../cli/select.js';
import { formatShare } from '../cli/sizes.js';
import { intruderLine, spectrumTable } from '../cli/spectrum-view.js';
import { table } from '../cli/table.js';
import { diffCheckpoints } from '../pipelines/diff.js';
import { INTRUDER_DEFAULTS } from '../pipelines/intruders.js';
import { checkReportFile, writeReportFile } from '../pipelines/report-file.js';

export default class Diff extends PithCommand {
  static override summary = 'Show tensor by tensor what a fine-tune changed';
  static override examples = [
    '<%= config.bin %> diff llama llama-math',
    "<%= config.bin %> diff llama llama-math --include '*.mlp.*' --json",
    '<%= config.bin %> diff llama llama-math --spectrum --report diff.html',
  ];
  static override args = {
    base: Args.string({ required: true, description: 'base checkpoint' }),
    tuned: Args.string({ required: true, description: 'fine-tuned checkpoint' }),
  };
  static override flags = {
    ...viewFlags,
    'intruder-top': Flags.integer({ min: 1, default: INTRUDER_DEFAULTS.top, description: 'leading singular vectors that --spectrum looks at for intruders' }),
    'intruder-cosine': Flags.custom<number>({
      description: 'a vector is an intruder whose cosines with all of the base are below',
      default: INTRUDER_DEFAULTS.cosine,
      helpValue: '0..1',
      parse: async (text) => parseShare('intruder-cosine', text),
    })(),
    ...selectFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Diff);
    if (flags.report !== undefined) checkReportFile(flags.report, flags.force);
    const r = await this.follow(
      diffCheckpoints({
        ...args,
        spectrum: flags.spectrum,
        intruders: { top: flags['intruder-top'], cosine: flags['intruder-cosine'] },
        selects: selector(flags.include, flags.exclude),
        ...this.runOptions(flags),
      }),
    );
    const found = new Map(r.tensors.flatMap((t) => (t.spectrum === undefined ? [] : [[t.name, t.spectrum] as const])));
    if (flags.report !== undefined) writeReportFile(flags.report, await (await import('../cli/report/diff-page.js')).diffPage(r), flags.force);
    this.result(r, () => {
      const rows = r.tensors.map((t) => [
        t.name,
        t.status,
        t.dtype,
        t.shape.join('x'),
        t.changedShare === undefined ? '-' : formatShare(t.changedShare),
        t.relativeNorm === undefined ? '-' : t.relativeNorm.toExponential(2),
        t.maxAbs === undefined ? '-' : t.maxAbs.toExponential(2),
      ]);
      const { changedShare, relativeNorm } = r.summary;
      const spectrum = flags.spectrum ? `\n\n${spectrumTable(found)}\n${intruderLine(r)}` : '';
      return `${table(['tensor', 'status', 'dtype', 'shape', 'changed', '|dW|/|W|', 'max |dW|'], rows)}\nall: ${formatShare(changedShare)} of the elements changed, |dW|/|W| = ${relativeNorm.toExponential(3)}${spectrum}`;
    });
  }
}
