import { Args, Flags } from '@oclif/core';
import { adapterWriteFlags } from '../../cli/adapter-flags.js';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes } from '../../cli/sizes.js';
import { table } from '../../cli/table.js';
import { adapterLint, LINT_TARGETS, type LintReport } from '../../pipelines/adapter-lint.js';

export default class AdapterLint extends PithCommand {
  static override summary = 'Check whether a program would load a LoRA adapter and mean the same by it';
  static override description =
    'Exit code 0: it would; 1: it would not, each reason is named; 65: the adapter itself is broken. ' +
    'With --out an adapter that fits is written where ranks, scales or names are all that is in the way.';
  static override examples = [
    '<%= config.bin %> adapter lint math-lora --target vllm',
    '<%= config.bin %> adapter lint math-lora --target vllm --max-rank 16 --out math-lora-16',
    '<%= config.bin %> adapter lint math-lora --target mlx --out math-lora-mlx',
    '<%= config.bin %> adapter lint math-lora --target peft --base llama --json',
  ];
  static override args = { adapter: Args.string({ required: true, description: 'folder of a PEFT LoRA adapter' }) };
  static override flags = {
    target: Flags.option({ options: LINT_TARGETS, required: true, description: 'who shall load it' })(),
    base: Flags.string({ description: 'check the modules against this base as well', helpValue: 'CKPT' }),
    'max-rank': Flags.integer({ min: 1, description: 'largest rank the target takes (vllm: its --max-lora-rank; default 512)' }),
    out: Flags.string({ char: 'o', description: 'write an adapter that fits', helpValue: 'DIR' }),
    ...adapterWriteFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AdapterLint);
    const maxRank = flags['max-rank'];
    const r = await this.follow(
      adapterLint({
        ...args,
        target: flags.target,
        ...(flags.base === undefined ? {} : { base: flags.base }),
        ...(maxRank === undefined ? {} : { maxRank }),
        ...(flags.out === undefined ? {} : { out: flags.out }),
        force: flags.force,
        dryRun: flags['dry-run'],
        ...this.runOptions(flags),
      }),
    );
    this.result(r, () => describe(r));
    if (!r.ok) process.exitCode = 1;
  }
}

function describe(r: LintReport): string {
  const lines: string[] = [];
  if (r.findings.length > 0) {
    const where = (f: LintReport['findings'][number]): string => (f.first === undefined ? '' : f.count === 1 ? f.first : `${f.first} and ${f.count! - 1} more`);
    const rows = r.findings.map((f) => [f.severity, f.code, f.fixable ? 'yes' : 'no', f.message, where(f)]);
    lines.push(table(['', 'finding', 'fixable', 'what', 'where'], rows));
  }
  const { fitted } = r;
  if (fitted !== undefined)
    lines.push(`${fitted.out}: ${formatBytes(fitted.bytes)}, rank ${fitted.rank}, |new - old| / |old| = ${fitted.error.toPrecision(4)}`);
  else lines.push(`${r.target}: ${r.ok ? 'ok' : 'would not load it as it is'}, ${r.modules} modules, rank ${r.rank}`);
  return lines.join('\n');
}
