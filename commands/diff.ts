import { Args } from '@oclif/core';
import { barPlot, spectrumPlot, writeReport } from '../cli/report.js';
import { spectrumTable } from '../cli/spectrum-view.js';
import { PithCommand } from '../cli/base-command.js';
import { runFlags, selectFlags, viewFlags } from '../cli/flags.js';
import { selector } from '../cli/select.js';
import { formatShare } from '../cli/sizes.js';
import { table } from '../cli/table.js';
import { diffCheckpoints, type DiffReport } from '../pipelines/diff.js';
import type { Spectrum } from '../pipelines/spectrum.js';

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
  static override flags = { ...viewFlags, ...selectFlags, ...runFlags };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Diff);
    const r = await this.follow(
      diffCheckpoints({
        ...args,
        spectrum: flags.spectrum,
        selects: selector(flags.include, flags.exclude),
        threads: flags.threads,
        maxMemoryBytes: flags['max-memory'],
        seed: flags.seed,
        device: flags.device,
        signal: this.signal,
      }),
    );
    const found = new Map(r.tensors.flatMap((t) => (t.spectrum === undefined ? [] : [[t.name, t.spectrum] as const])));
    if (flags.report !== undefined) report(flags.report, r, found);
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
      const spectrum = flags.spectrum ? `\n\n${spectrumTable(found)}` : '';
      return `${table(['tensor', 'status', 'dtype', 'shape', 'changed', '|dW|/|W|', 'max |dW|'], rows)}\nall: ${formatShare(changedShare)} of the elements changed, |dW|/|W| = ${relativeNorm.toExponential(3)}${spectrum}`;
    });
  }
}

function report(file: string, r: DiffReport, found: ReadonlyMap<string, Spectrum>): void {
  const rows = r.tensors.map((t) => [t.name, t.status, t.dtype, t.shape.join(' x '), t.changedShare ?? '', t.relativeNorm ?? '', t.maxAbs ?? '', t.spectrum?.effectiveRank?.toFixed(1) ?? '']); // prettier-ignore
  const bars = r.tensors.flatMap((t) => (t.changedShare === undefined ? [] : [{ name: t.name, value: t.changedShare }]));
  writeReport(file, `${r.tuned} against ${r.base}`, [
    ...(found.size === 0
      ? []
      : [{ title: 'Singular values of the differences', svg: spectrumPlot([...found].map(([name, s]) => ({ name, values: s.values }))) }]),
    { title: 'Share of the elements that changed', svg: barPlot(bars) },
    { title: 'Tensors', table: { head: ['tensor', 'status', 'dtype', 'shape', 'changed', '|dW|/|W|', 'max |dW|', 'effective rank'], rows } },
  ]);
}
