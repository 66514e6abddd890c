import { Flags } from '@oclif/core';
import { mkdtempSync, createReadStream, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline as pipe } from 'node:stream/promises';
import { PithCommand } from '../../cli/base-command.js';
import { deltaFlags, lossyOptions, probeFlags, probeOptions } from '../../cli/delta-flags.js';
import { deltaSummary } from '../../cli/delta-summary.js';
import { parseSettings, runFlags, selectFlags, writeFlags } from '../../cli/flags.js';
import { selector } from '../../cli/select.js';
import { deltaEncode } from '../../pipelines/delta-encode.js';

export default class DeltaEncode extends PithCommand {
  static override summary = 'Store a fine-tuned checkpoint as a delta against its base';
  static override description =
    'Writes one safetensors file that names the base by content hash and carries the SHA-256 of every tensor. ' +
    'With the lossless method `pith delta restore` gives every file of the folder back byte for byte; with --progressive too, and the first part of the file is a lossy delta by itself.';
  static override examples = [
    '<%= config.bin %> delta encode --base llama --tuned llama-math --out math.delta.safetensors',
    '<%= config.bin %> delta encode --base llama --tuned llama-math --method ere --rank 16 --out math.delta.safetensors',
    '<%= config.bin %> delta encode --base llama --tuned llama-math --method ere --target-ratio 40 --out math.delta.safetensors',
    "<%= config.bin %> delta encode --base llama --tuned llama-math --method auto --target-ratio 50 --dataset math.jsonl --template 'Question: {question}\\nAnswer: {answer}\\n' --out math.delta.safetensors",
    '<%= config.bin %> delta encode --base llama --tuned llama-math --method auto --target-size 200MB --progressive --out math.delta.safetensors',
    '<%= config.bin %> delta encode --base none --tuned llama --out llama.small.safetensors',
    '<%= config.bin %> delta encode --base llama --tuned llama-math --out - | ssh host "cat > math.delta.safetensors"',
  ];
  static override flags = {
    base: Flags.string({ required: true, description: 'base checkpoint, or none', helpValue: 'CKPT' }),
    tuned: Flags.string({ required: true, description: 'fine-tuned checkpoint', helpValue: 'CKPT' }),
    out: Flags.string({ required: true, char: 'o', description: 'file to write, or - for stdout', helpValue: 'FILE' }),
    ...deltaFlags,
    ...probeFlags,
    ...selectFlags,
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(DeltaEncode);
    const toStdout = flags.out === '-';
    const folder = toStdout ? mkdtempSync(join(tmpdir(), 'pith-')) : undefined;
    const out = folder === undefined ? flags.out : join(folder, 'delta.safetensors');
    const started = performance.now();
    try {
      const report = await this.follow(
        deltaEncode({
          base: flags.base === 'none' ? undefined : flags.base,
          tuned: flags.tuned,
          out,
          method: flags.method,
          progressive: flags.progressive,
          ...lossyOptions(flags, parseSettings(flags.set)),
          ...probeOptions(flags),
          ...(flags.stats === undefined ? {} : { stats: flags.stats }),
          selects: selector(flags.include, flags.exclude),
          force: flags.force,
          dryRun: flags['dry-run'],
          resume: flags.resume,
          ...this.runOptions(flags),
        }),
      );
      if (toStdout && !flags['dry-run']) await pipe(createReadStream(out), process.stdout);
      else this.result(report, () => deltaSummary(report, performance.now() - started), report.device);
    } finally {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
  }
}
