import { Flags } from '@oclif/core';
import { PithCommand } from '../../cli/base-command.js';
import { runFlags } from '../../cli/flags.js';
import { table } from '../../cli/table.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';

export default class DeltaVerify extends PithCommand {
  static override summary = 'Prove that base and delta give what the delta promises, without writing it';
  static override description =
    'Exit code 0: every tensor matches, in both layers of a progressive delta; 1: some do not, each is named; 65: the file itself is broken.';
  static override examples = [
    '<%= config.bin %> delta verify --base llama --delta math.delta.safetensors',
    '<%= config.bin %> delta verify --base llama --delta math.delta.safetensors --tuned llama-math --json',
  ];
  static override flags = {
    base: Flags.string({ description: 'base checkpoint (default: the one the delta names, beside it)', helpValue: 'CKPT' }),
    delta: Flags.string({ required: true, description: 'delta file, or URL of one', helpValue: 'FILE' }),
    tuned: Flags.string({ description: 'the original checkpoint, to compare with as well', helpValue: 'CKPT' }),
    ...runFlags,
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(DeltaVerify);
    const report = await this.follow(
      deltaVerify({
        base: flags.base,
        delta: flags.delta,
        tuned: flags.tuned,
        ...this.runOptions(flags),
      }),
    );
    this.result(report, () => {
      if (report.ok && !report.proven) return `nothing can be proven: ${report.checked} tensors fit the base in name, type and shape; the diff holds no hashes`;
      if (report.ok) return `ok: ${report.checked} tensors match${report.exact ? ', the restore is exact' : ' what the lossy delta promises'}`;
      const rows = report.mismatches.map((m) => [m.tensor, m.what, m.expected.slice(0, 16), m.got.slice(0, 60)]);
      return `${report.mismatches.length} of ${report.checked} tensors do not match\n${table(['tensor', 'what', 'expected', 'got'], rows)}`;
    });
    if (!report.ok) process.exitCode = 1;
  }
}
