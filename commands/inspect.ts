import { Args, Flags } from '@oclif/core';
import { runFlags, selectFlags, viewFlags } from '../cli/flags.js';
import { selector } from '../cli/select.js';
import { spectrumTable } from '../cli/spectrum-view.js';
import { PithCommand } from '../cli/base-command.js';
import { formatBytes } from '../cli/sizes.js';
import { table } from '../cli/table.js';
import { printable } from '../core/errors.js';
import { inspectCheckpoint } from '../pipelines/inspect.js';
import { checkReportFile, writeReportFile } from '../pipelines/report-file.js';
import { spectra } from '../pipelines/spectrum.js';

export default class Inspect extends PithCommand {
  static override summary = 'Show what a checkpoint holds, from its headers; --spectrum reads the weights';
  static override examples = [
    '<%= config.bin %> inspect llama',
    '<%= config.bin %> inspect model.safetensors --tensors',
    '<%= config.bin %> inspect model-Q4_K_M.gguf --tensors',
    '<%= config.bin %> inspect llama --json',
    "<%= config.bin %> inspect llama --spectrum --include '*.q_proj.*' --report q.html",
  ];
  static override args = { checkpoint: Args.string({ required: true, description: 'folder, .safetensors or .gguf file, Hub cache folder' }) };
  static override flags = { tensors: Flags.boolean({ description: 'list every tensor' }), ...viewFlags, ...selectFlags, ...runFlags };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Inspect);
    if (flags.report !== undefined) checkReportFile(flags.report, flags.force);
    const r = await inspectCheckpoint(args.checkpoint);
    this.warnings(r.warnings);
    const selects = selector(flags.include, flags.exclude);
    const run = this.runOptions(flags);
    const found = flags.spectrum ? await this.follow(spectra({ ...run, checkpoint: args.checkpoint, selects })) : undefined;
    const tensors = r.tensors.filter((t) => selects(t.name)).map((t) => ({ ...t, ...(found?.has(t.name) === true ? { spectrum: found.get(t.name)! } : {}) }));
    if (flags.report !== undefined) {
      const { inspectPage } = await import('../cli/report/inspect-page.js');
      writeReportFile(flags.report, await inspectPage({ ...r, tensors: r.tensors.filter((t) => selects(t.name)) }, found), flags.force);
    }
    this.result({ ...r, tensors }, () => {
      const lines = [
        `${r.source}: ${r.tensors.length} tensors, ${r.parameters.toLocaleString('en-US')} parameters, ${formatBytes(r.totalBytes)} in ${r.files.length} file${r.files.length === 1 ? '' : 's'}`,
        ...(r.facts === undefined ? [] : [factsLine(r.format, r.facts)]),
        table(
          ['dtype', 'tensors', 'bytes'],
          Object.entries(r.dtypes).map(([d, v]) => [d, v.tensors, formatBytes(v.bytes)]),
        ),
      ];
      if (flags.tensors) {
        lines.push(
          table(
            ['tensor', 'dtype', 'shape', 'bytes', ...(r.facts === undefined ? [] : ['in the file'])],
            tensors.map((t) => [t.name, t.dtype, t.shape.join('x'), formatBytes(t.bytes), ...(t.storedName === undefined ? [] : [t.storedName])]),
          ),
        );
      }
      if (found !== undefined) lines.push(spectrumTable(found));
      return lines.join('\n');
    });
  }
}

/** `contextLength` -> `context length`. */
const factsLine = (format: string, facts: Readonly<Record<string, string | number>>): string => {
  const words = Object.entries(facts).map(([key, value]) => `${key.replace(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`)} ${printable(String(value))}`);
  return `${format}: ${words.join('; ')}`;
};
