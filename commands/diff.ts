import { Args } from '@oclif/core';
import { PithCommand } from '../cli/base-command.js';
import { runFlags, selectFlags } from '../cli/flags.js';
import { selector } from '../cli/select.js';
import { formatShare } from '../cli/sizes.js';
import { table } from '../cli/table.js';
import { diffCheckpoints } from '../pipelines/diff.js';

export default class Diff extends PithCommand {
  static override summary = 'Show tensor by tensor what a fine-tune changed';
  static override examples = ['<%= config.bin %> diff llama llama-math', "<%= config.bin %> diff llama llama-math --include '*.mlp.*' --json"];
  static override args = {
    base: Args.string({ required: true, description: 'base checkpoint' }),
    tuned: Args.string({ required: true, description: 'fine-tuned checkpoint' }),
  };
  static override flags = { ...selectFlags, ...runFlags };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Diff);
    const r = await this.follow(
      diffCheckpoints({
        ...args,
        selects: selector(flags.include, flags.exclude),
        threads: flags.threads,
        maxMemoryBytes: flags['max-memory'],
        seed: flags.seed,
        device: flags.device,
        signal: this.signal,
      }),
    );
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
      return `${table(['tensor', 'status', 'dtype', 'shape', 'changed', '|dW|/|W|', 'max |dW|'], rows)}\nall: ${formatShare(changedShare)} of the elements changed, |dW|/|W| = ${relativeNorm.toExponential(3)}`;
    });
  }
}
